//! Addresses of gone pods: let go at the right moment, not before.
use podwall_engine::model::Labels;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};

use super::*;

const ADDRESS: &str = "10.0.0.5";

fn pod(node: &str) -> Change {
    Change::Pod(Pod {
        uid: PodUid("u1".into()),
        namespace: "shop".into(),
        name: "web".into(),
        labels: Labels::default(),
        node: Some(NodeName::from(node)),
        network: Network::Own,
        addresses: vec![ADDRESS.parse().unwrap()],
        life: Life::Live,
        started: None,
        ports: Vec::new(),
        host_ports: Vec::new(),
        own: None,
        workload: None,
    })
}

fn host(prefix: Option<u8>) -> Arc<View> {
    let mut view = View::default();
    let mut link = LinkMessage::default();
    link.header.index = 3;
    link.attributes.push(LinkAttribute::IfName("veth1".to_owned()));
    link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]));
    view.link(&link);
    if let Some(prefix) = prefix {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.kind = RouteType::Unicast;
        route.header.destination_prefix_length = prefix;
        let destination: IpAddr = if prefix == 32 { ADDRESS } else { "10.0.0.0" }.parse().unwrap();
        route.attributes = vec![RouteAttribute::Destination(destination.into()), RouteAttribute::Oif(3)];
        view.route(&route);
    }
    view.settle();
    Arc::new(view)
}

fn held() -> BTreeSet<IpAddr> {
    BTreeSet::from([ADDRESS.parse().unwrap()])
}

fn free() -> Change {
    Change::AddressFree(ADDRESS.parse().unwrap())
}

#[test]
fn a_local_pod_is_told_with_its_link_and_a_remote_one_is_not() {
    let mut locals = Locals::new(NodeName::from("a"));
    locals.view(host(Some(32)));
    locals.object(&pod("b"));
    assert_eq!(locals.settle(&BTreeSet::new(), Instant::now()), []);
    locals.object(&pod("a"));
    let attachment = Attachment { link: LinkName::new("veth1").unwrap(), sharing: Sharing::Exclusive };
    let attachments = BTreeMap::from([(ADDRESS.parse().unwrap(), attachment)]);
    assert_eq!(locals.settle(&BTreeSet::new(), Instant::now()), [Change::Links(Links { attachments })]);
    assert_eq!(locals.settle(&BTreeSet::new(), Instant::now()), []);
}

#[test]
fn the_address_of_a_gone_pod_is_let_go_when_its_own_interface_is_gone_and_not_before() {
    let mut locals = Locals::new(NodeName::from("a"));
    let start = Instant::now();
    locals.view(host(Some(32)));
    locals.object(&pod("a"));
    locals.settle(&BTreeSet::new(), start);
    locals.object(&Change::PodGone(PodUid("u1".into())));
    assert_eq!(locals.settle(&held(), start), []);
    assert_eq!(locals.settle(&held(), start + 10 * LINGER), []);
    locals.view(host(None));
    assert!(!locals.settle(&held(), start + 10 * LINGER).contains(&free()));
    assert_eq!(locals.deadline(), Some(start + 10 * LINGER + FLAP));
    assert_eq!(locals.settle(&held(), start + 10 * LINGER + FLAP), [free()]);
}

#[test]
fn a_route_that_is_away_for_a_moment_does_not_let_an_address_go() {
    let mut locals = Locals::new(NodeName::from("a"));
    let start = Instant::now();
    locals.view(host(Some(32)));
    locals.object(&pod("a"));
    locals.settle(&BTreeSet::new(), start);
    locals.object(&Change::PodGone(PodUid("u1".into())));
    locals.settle(&held(), start);
    for round in 0..10 {
        for prefix in [None, Some(32)] {
            locals.view(host(prefix));
            let freed = locals.settle(&held(), start + round * FLAP).contains(&free());
            assert!(!freed, "round {round}");
        }
    }
}

#[test]
fn a_live_pod_that_no_interface_leads_to_is_told_after_a_while_and_a_dying_one_is_not() {
    let start = Instant::now();
    let told = |life: Life, prefix: Option<u8>, after: Duration| {
        let mut locals = Locals::new(NodeName::from("a"));
        locals.view(host(prefix));
        let Change::Pod(pod) = pod("a") else { unreachable!() };
        locals.object(&Change::Pod(Pod { life, ..pod }));
        locals.settle(&BTreeSet::new(), start);
        locals.unseen(start + after).is_some_and(|words| words.contains(ADDRESS))
    };
    assert!(told(Life::Live, None, UNSEEN));
    assert!(!told(Life::Live, None, UNSEEN - Duration::from_millis(1)));
    assert!(!told(Life::Terminating, None, UNSEEN));
    assert!(!told(Life::Live, Some(32), UNSEEN));
}

#[test]
fn a_bridge_that_leads_out_too_is_named_and_its_bypass_noticed() {
    let mut view = View::default();
    let mut link = LinkMessage::default();
    link.header.index = 4;
    link.attributes.push(LinkAttribute::IfName("br0".to_owned()));
    link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    view.link(&link);
    for (destination, length) in [("10.0.0.0", 24), ("0.0.0.0", 0)] {
        let mut route = RouteMessage::default();
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.kind = RouteType::Unicast;
        route.header.destination_prefix_length = length;
        let destination: IpAddr = destination.parse().unwrap();
        route.attributes = vec![RouteAttribute::Destination(destination.into()), RouteAttribute::Oif(4)];
        view.route(&route);
    }
    view.settle();
    let mut locals = Locals::new(NodeName::from("a"));
    let start = Instant::now();
    locals.view(Arc::new(view));
    locals.object(&pod("a"));
    assert_eq!(locals.settle(&BTreeSet::new(), start), [], "what is asked of pods must not be asked there");
    let br0 = LinkName::new("br0").unwrap();
    assert_eq!(locals.bypass(), Some((br0.clone(), "net.bridge.bridge-nf-call-iptables")));
    assert_eq!(locals.tag_bypass(), Some(br0));
    assert!(locals.unseen(start + UNSEEN).unwrap().contains("bridge br0"));
}

#[test]
fn without_an_interface_of_its_own_the_address_is_let_go_after_a_while() {
    let mut locals = Locals::new(NodeName::from("a"));
    let start = Instant::now();
    locals.view(host(Some(24)));
    locals.object(&pod("a"));
    locals.settle(&BTreeSet::new(), start);
    locals.object(&Change::PodGone(PodUid("u1".into())));
    assert_eq!(locals.settle(&held(), start), []);
    assert_eq!(locals.deadline(), Some(start + LINGER));
    assert_eq!(locals.settle(&held(), start + LINGER - Duration::from_millis(1)), []);
    assert_eq!(locals.settle(&held(), start + LINGER), [free()]);
    locals.settle(&BTreeSet::new(), start + LINGER);
    assert_eq!(locals.deadline(), None);
}

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
    assert!(locals.settle(&held(), start + 10 * LINGER).contains(&free()));
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

//! Views built from the very messages the kernel sends.
use rtnetlink::packet_route::AddressFamily;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(index: u32, name: &str, kind: Option<InfoKind>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])));
    message
}

fn route(destination: &str, link: u32, gateway: Option<&str>) -> RouteMessage {
    let network: IpNetwork = destination.parse().unwrap();
    let mut message = RouteMessage::default();
    message.header.address_family =
        if network.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = network.prefix();
    if network.prefix() > 0 {
        message.attributes.push(RouteAttribute::Destination(network.ip().into()));
    }
    message.attributes.push(RouteAttribute::Oif(link));
    message.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(ip(gateway).into())));
    message
}

fn on(link: &str, sharing: Sharing) -> Hanging {
    Hanging::On(Attachment { link: LinkName::new(link).unwrap(), sharing })
}

/// eth0 leads out; cali1 is a routed pod's; cni0 is a bridge.
fn node() -> View {
    let mut view = View::default();
    view.link(&link(2, "eth0", None));
    view.link(&link(3, "cali1", Some(InfoKind::Veth)));
    view.link(&link(4, "cni0", Some(InfoKind::Bridge)));
    for (destination, link, gateway) in [
        ("0.0.0.0/0", 2, Some("192.0.2.1")),
        ("::/0", 2, Some("fe80::1")),
        ("192.0.2.0/24", 2, None),
        ("169.254.169.254/32", 2, None),
        ("10.0.0.5/32", 3, None),
        ("fd00::5/128", 3, None),
        ("10.1.0.0/24", 4, None),
        ("fe80::/64", 3, None),
        ("10.2.0.7/32", 3, Some("10.0.0.5")),
    ] {
        view.route(&route(destination, link, gateway));
    }
    view.settle();
    view
}

#[test]
fn a_host_route_makes_an_interface_one_pods_and_a_connected_prefix_makes_it_shared() {
    let view = node();
    assert_eq!(view.hanging(ip("10.0.0.5")), on("cali1", Sharing::Exclusive));
    assert_eq!(view.hanging(ip("fd00::5")), on("cali1", Sharing::Exclusive));
    assert_eq!(view.hanging(ip("10.1.0.9")), on("cni0", Sharing::Shared));
}

#[test]
fn nothing_hangs_on_the_way_out_or_behind_a_gateway() {
    let view = node();
    for address in ["192.0.2.77", "169.254.169.254", "10.2.0.7", "8.8.8.8", "fe80::9"] {
        assert_eq!(view.hanging(ip(address)), Hanging::Nowhere, "{address}");
    }
}

#[test]
fn links_that_carry_no_pod_do_not_change_the_view() {
    let (mut with, mut without) = (node(), node());
    with.link(&link(9, "veth9", Some(InfoKind::Veth)));
    with.settle();
    without.settle();
    assert_eq!(with, without);
}

#[test]
fn a_bridge_without_filtering_is_a_bypass_for_its_pods_and_nobody_else() {
    let mut view = node();
    let bridged = ip("10.1.0.9");
    let routed = ip("10.0.0.5");
    let attachment = |address: IpAddr| match view.hanging(address) {
        Hanging::On(attachment) => (address, attachment.link),
        other => panic!("{address}: {other:?}"),
    };
    let both = [attachment(routed), attachment(bridged)];
    let both = || both.iter().map(|(address, link)| (address, link));
    let cni0 = LinkName::new("cni0").unwrap();
    assert_eq!(view.bypass(both()), Some((cni0, "net.bridge.bridge-nf-call-iptables")));
    assert_eq!(view.bypass(both().take(1)), None);
    view.filtering.v4 = true;
    assert_eq!(view.bypass(both()), None);
}

#[test]
fn ipvs_mode_is_told_by_kube_proxys_dummy_interface() {
    let mut view = node();
    assert!(!view.ipvs);
    view.link(&link(7, "kube-ipvs0", Some(InfoKind::Dummy)));
    assert!(view.ipvs);
}

#[test]
fn the_machines_own_cards_never_carry_pods_and_a_bridge_is_never_one_pods_alone() {
    let mut view = node();
    for (index, name, kind) in
        [(11, "eth1", None), (12, "eth1.5", Some(InfoKind::Vlan)), (13, "bond0", Some(InfoKind::Bond))]
    {
        view.link(&link(index, name, kind));
    }
    view.link(&link(14, "wg0", Some(InfoKind::Wireguard)));
    // A private network without a way out, that the range of pods is a part of.
    for (destination, link) in [
        ("10.0.0.0/8", 11),
        ("10.3.0.0/16", 12),
        ("10.4.0.0/16", 13),
        ("10.5.0.0/16", 14),
        ("10.3.0.9/32", 11),
    ] {
        view.route(&route(destination, link, None));
    }
    view.route(&route("10.1.0.7/32", 4, None));
    view.settle();
    for address in ["10.0.0.6", "10.3.0.1", "10.3.0.9", "10.4.0.1", "10.5.0.1"] {
        assert_eq!(view.hanging(ip(address)), Hanging::Nowhere, "{address}");
    }
    assert_eq!(view.hanging(ip("10.0.0.5")), on("cali1", Sharing::Exclusive));
    assert_eq!(view.hanging(ip("10.1.0.7")), on("cni0", Sharing::Shared));
}

#[test]
fn tagged_frames_are_a_bypass_between_bridged_pods_until_the_kernel_shows_them() {
    let mut view = node();
    let attachment = |address: &str| match view.hanging(ip(address)) {
        Hanging::On(attachment) => attachment.link,
        other => panic!("{address}: {other:?}"),
    };
    let (routed, bridged) = (attachment("10.0.0.5"), attachment("10.1.0.9"));
    assert_eq!(view.tag_bypass([&routed]), None);
    assert_eq!(view.tag_bypass([&routed, &bridged]), Some(LinkName::new("cni0").unwrap()));
    view.filtering.tagged = true;
    assert_eq!(view.tag_bypass([&routed, &bridged]), None);
}

//! Section 7: host network, nodes, and a pod talking to itself (H1 to H7).
use podwall_ruleset::packet::Packet;
use podwall_ruleset::{ConnState, Family, Hook, LinkName};

use super::ALL_BUT_XA;
use super::manifest::pod;
use super::world::{World, transport};

const CLOSED: &str = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress]}";

/// The standard world, and a host-network pod x/h1 on n1 and x/h2 on n2, labelled like x/b.
fn with_hosts() -> World {
    let mut world = World::standard();
    world.pod(pod("x/h1").labels("pod=b").on("n1").ips(&["172.18.0.1", "fd00:18::1"]).host_network());
    world.pod(pod("x/h2").labels("pod=b").on("n2").ips(&["172.18.0.2", "fd00:18::2"]).host_network());
    world
}

fn packet(from: &str, to: &str, what: &str) -> Packet {
    let (source, destination) = (from.parse().unwrap(), to.parse().unwrap());
    Packet::opening(source, destination, transport(what, Family::of(&source)))
}

#[test]
fn a_host_network_pod_is_no_subject() {
    let mut world = with_hosts();
    world.policy("x/closed", "policyTypes: [Ingress, Egress]");
    assert!(world.open("outside", "x/h1", "tcp/80") && world.open("x/h1", "outside", "tcp/80"));
    assert!(world.open("z/a", "x/h2", "tcp/80"));
    assert!(!world.open("outside", "x/b", "tcp/80"));
}

#[test]
fn a_host_network_pod_is_no_selector_peer_and_its_addresses_are_in_no_set() {
    let mut world = with_hosts();
    world.policy(
        "x/p",
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
    );
    assert!(world.open("x/b", "x/a", "tcp/80"));
    assert!(!world.open("x/h2", "x/a", "tcp/80"));
    let sets = world.engine("n1").ruleset().sets.values();
    let held: Vec<String> =
        sets.flat_map(|set| set.iter()).filter_map(|(key, _)| key.address()).map(|a| a.to_string()).collect();
    assert!(
        held.iter().all(|address| !address.starts_with("172.18.") && !address.starts_with("fd00:18:")),
        "{held:?}"
    );
}

#[test]
fn a_host_network_pod_on_another_node_can_be_admitted_by_its_address_only() {
    let mut world = with_hosts();
    world.policy("x/p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.2/32}}, {ipBlock: {cidr: 'fd00:18::2/128'}}]}]}");
    assert!(world.open("x/h2", "x/a", "tcp/80"));
    assert!(!world.open("outside", "x/a", "tcp/80"));
}

#[test]
fn the_own_node_always_reaches_its_pods_on_any_port_and_protocol() {
    let mut world = with_hosts();
    world.policy("x/closed", CLOSED);
    for what in ["tcp/80", "tcp/65535", "udp/53", "sctp/9", "icmp", "proto/47"] {
        assert!(world.open("n1", "x/a", what) && world.open("x/h1", "x/a", what), "{what}");
        assert!(!world.open("n2", "x/a", what) && !world.open("x/h2", "x/a", what), "{what}");
    }
}

#[test]
fn a_forwarded_packet_with_the_address_of_the_own_node_is_still_judged() {
    let mut world = World::standard();
    world.policy("x/closed", CLOSED);
    for (node, server, open) in
        [("172.18.0.1", "10.244.1.10", "10.244.1.12"), ("fd00:18::1", "fd00:244:1::10", "fd00:244:1::12")]
    {
        assert!(!world.judge("n1", &packet(node, server, "tcp/80")));
        assert!(world.judge("n1", &packet(node, open, "tcp/80")));
    }
}

#[test]
fn other_nodes_are_ordinary_addresses() {
    let mut world = World::standard();
    world.policy("x/p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.2/32}}, {ipBlock: {cidr: 'fd00:18::2/128'}}], ports: [{port: 80}]}]}");
    assert!(world.open("n2", "x/a", "tcp/80"));
    assert!(!world.open("n2", "x/a", "tcp/81"));
}

#[test]
fn egress_to_the_own_node_is_judged_like_any_address_on_the_input_path() {
    let mut world = with_hosts();
    world.policy("x/closed", CLOSED);
    assert!(!world.open("x/a", "n1", "tcp/10250") && !world.open("x/a", "x/h1", "tcp/80"));
    assert!(world.open("x/c", "n1", "tcp/10250"), "its neighbour is free");
    let own =
        "to: [{ipBlock: {cidr: 172.18.0.1/32}}, {ipBlock: {cidr: 'fd00:18::1/128'}}], ports: [{port: 10250}]";
    world.policy(
        "x/closed",
        &format!("{{podSelector: {{matchLabels: {{pod: a}}}}, policyTypes: [Egress], egress: [{{{own}}}]}}"),
    );
    assert!(world.open("x/a", "n1", "tcp/10250"));
    assert!(!world.open("x/a", "n1", "tcp/22") && !world.open("x/a", "n2", "tcp/10250"));
}

#[test]
fn replies_to_connections_the_node_opened_pass_an_egress_isolated_pod() {
    let mut world = World::standard();
    world.policy("x/closed", CLOSED);
    for (from, to) in [("10.244.1.10", "172.18.0.1"), ("fd00:244:1::10", "fd00:18::1")] {
        let mut reply = packet(from, to, "tcp/40000");
        reply.hook = Hook::Input;
        assert!(!world.judge("n1", &reply), "a new connection");
        reply.state = ConnState::Established;
        reply.original_direction = false;
        assert!(world.judge("n1", &reply), "a reply");
    }
}

#[test]
fn the_node_talking_to_itself_is_never_judged() {
    let mut world = World::standard();
    world.policy("x/closed", CLOSED);
    let mut own = packet("10.244.1.10", "127.0.0.1", "tcp/80");
    own.hook = Hook::Input;
    assert!(!world.judge("n1", &own));
    own.input_link = Some(LinkName::new("lo").unwrap());
    assert!(world.judge("n1", &own));
}

#[test]
fn a_pod_reaches_itself_through_a_service_whatever_isolates_it() {
    let mut world = World::standard();
    world.policy("x/closed", CLOSED);
    for what in ["tcp/80", "udp/53", "sctp/9", "icmp"] {
        assert!(world.open("x/a", "x/a", what), "{what}");
        assert!(!world.open("x/a", "x/c", what) && !world.open("x/c", "x/a", what), "{what}");
    }
    assert_eq!(world.sources("x/a", "tcp/80"), "");
}

#[test]
fn a_pod_reaches_itself_when_nothing_isolates_it_too() {
    let world = World::standard();
    assert!(world.open("x/a", "x/a", "tcp/80"));
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
}

#[test]
fn own_address_means_the_address_the_pod_has_now() {
    let mut world = World::standard();
    world.policy("x/closed", CLOSED);
    world.pod(pod("x/a").labels("pod=a").on("n1").ips(&["10.244.1.99", "fd00:244:1::99"]));
    assert!(world.open("x/a", "x/a", "tcp/80"));
    assert!(!world.open("10.244.1.10", "x/a", "tcp/80"));
    assert!(
        !world.judge("n1", &packet("10.244.1.10", "10.244.1.10", "tcp/80")),
        "the old address is kept shut"
    );
}

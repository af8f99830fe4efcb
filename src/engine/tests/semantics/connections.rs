//! Section 9: connections, ICMP and what is never filtered (F1 to F8; fragments need a kernel).
use std::collections::BTreeSet;
use std::net::IpAddr;

use podwall_engine::{Change, flows, recheck};
use podwall_ruleset::evaluate::{Decision, evaluate};
use podwall_ruleset::packet::{Packet, Transport};
use podwall_ruleset::{ConnState, Family, Hook, Protocol};

use super::ALL_BUT_XA;
use super::world::{World, transport};

const CLOSED: &str = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress]}";

/// x/a and an outside host, in each family.
const ENDS: [(&str, &str); 2] = [("10.244.1.10", "192.0.2.7"), ("fd00:244:1::10", "2001:db8::7")];

fn packet(from: &str, to: &str, what: &str) -> Packet {
    let source = from.parse().unwrap();
    Packet::opening(source, to.parse().unwrap(), transport(what, Family::of(&source)))
}

fn closed() -> World {
    let mut world = World::standard();
    world.policy("x/closed", CLOSED);
    world
}

/// Both ways between x/a and the outside, as conntrack sees the packet.
fn passes(world: &World, state: ConnState, alter: impl Fn(&mut Packet)) -> Vec<bool> {
    let judged = |from: &str, to: &str| {
        let mut packet = packet(from, to, "tcp/80");
        packet.state = state;
        alter(&mut packet);
        world.judge("n1", &packet)
    };
    ENDS.into_iter().flat_map(|(pod, host)| [judged(pod, host), judged(host, pod)]).collect()
}

#[test]
fn packets_of_an_established_connection_pass_in_both_directions() {
    let world = closed();
    assert_eq!(passes(&world, ConnState::New, |_| {}), [false; 4]);
    assert_eq!(passes(&world, ConnState::Established, |_| {}), [true; 4]);
    assert_eq!(passes(&world, ConnState::Established, |packet| packet.original_direction = false), [true; 4]);
}

#[test]
fn icmp_errors_of_a_connection_pass_and_other_related_packets_are_judged() {
    let world = closed();
    let error = |packet: &mut Packet| {
        packet.transport = match Family::of(&packet.source) {
            Family::V4 => Transport::Icmp(3),
            Family::V6 => Transport::Icmpv6(2),
        };
    };
    assert_eq!(passes(&world, ConnState::Related, error), [true; 4]);
    assert_eq!(passes(&world, ConnState::New, error), [false; 4]);
    assert_eq!(passes(&world, ConnState::Related, |_| {}), [false; 4]);
}

#[test]
fn an_edit_that_tightens_names_the_pods_whose_flows_must_be_judged_again() {
    let mut world = World::standard();
    world.policy("x/p", CLOSED);
    let addresses = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<BTreeSet<IpAddr>>();
    assert_eq!(world.last("n1").tightened, addresses(&["10.244.1.10", "fd00:244:1::10"]));
    assert_eq!(world.last("n2").tightened, BTreeSet::new());
    world.policy_gone("x/p");
    assert_eq!(world.last("n1").tightened, BTreeSet::new(), "an edit that only opens names nobody");
}

#[test]
fn a_peer_that_leaves_a_selection_is_named_and_nobody_else_with_it() {
    let mut world = World::standard();
    world.policy(
        "x/p",
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
    );
    world.relabel("x/b", "pod=other");
    let peer: BTreeSet<IpAddr> = ["10.244.2.11", "fd00:244:2::11"].map(|a| a.parse().unwrap()).into();
    assert_eq!(world.last("n1").tightened, peer);
    world.relabel("x/b", "pod=b");
    assert_eq!(world.last("n1").tightened, BTreeSet::new());
}

#[test]
fn while_rechecked_an_established_flow_passes_only_if_it_could_be_opened_now() {
    let mut world = World::standard();
    world.policy("x/p", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 80}]}]}");
    for (pod, host) in ENDS {
        let armed = {
            let mut ruleset = world.engine("n1").ruleset().clone();
            recheck::arm(&ruleset, &[pod.parse().unwrap()].into(), podwall_engine::Barred::Same)
                .apply(&mut ruleset)
                .unwrap();
            ruleset
        };
        let passes = |from: &str, to: &str, what: &str, original: bool| {
            let mut packet = packet(from, to, what);
            packet.state = ConnState::Established;
            packet.original_direction = original;
            matches!(evaluate(&armed, &packet).decision, Decision::Accept)
        };
        assert!(passes(host, pod, "tcp/80", true), "allowed then and now: never stalls");
        assert!(passes(pod, host, "tcp/40000", false), "its replies");
        assert!(!passes(host, pod, "tcp/81", true), "no longer allowed");
        assert!(!passes(pod, host, "tcp/80", true), "no longer allowed, outwards");
        let neighbour = if pod.contains(':') { "fd00:244:1::12" } else { "10.244.1.12" };
        assert!(passes(host, neighbour, "tcp/81", true), "others are left alone");
        let mut calm = armed.clone();
        recheck::disarm(&armed).apply(&mut calm).unwrap();
        assert_eq!(calm, *world.engine("n1").ruleset());
    }
}

#[test]
fn a_flow_is_cut_exactly_when_it_could_not_be_opened_now() {
    let mut world = World::standard();
    world.policy("x/p", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 80}]}]}");
    let host: BTreeSet<IpAddr> = ["172.18.0.1", "fd00:18::1"].map(|a| a.parse().unwrap()).into();
    let allowed = |source: &str, destination: &str, what: &str| {
        let packet = packet(source, destination, what);
        let flow = flows::FlowTuple {
            source: packet.source,
            destination: packet.destination,
            transport: packet.transport,
        };
        flows::allowed(world.engine("n1").ruleset(), &flow, &host)
    };
    for (pod, outside) in ENDS {
        assert!(allowed(outside, pod, "tcp/80"));
        assert!(!allowed(outside, pod, "tcp/81"));
        assert!(!allowed(pod, outside, "tcp/80"));
        let node = if pod.contains(':') { "fd00:18::1" } else { "172.18.0.1" };
        assert!(allowed(node, pod, "tcp/81"), "the node opened it");
        assert!(!allowed(pod, node, "tcp/81"), "judged on the input path");
    }
}

#[test]
fn new_connections_follow_the_new_state_at_once_also_after_deletion() {
    let mut world = World::standard();
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
    world.policy("x/p", CLOSED);
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    world.policy_gone("x/p");
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
}

#[test]
fn the_next_packet_after_a_udp_entry_expired_is_judged_in_its_own_direction() {
    let mut world = World::standard();
    world.policy("x/p", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], egress: [{ports: [{protocol: UDP, port: 53}]}]}");
    for (pod, host) in ENDS {
        let mut answer = packet(host, pod, "udp/40000");
        answer.state = ConnState::Established;
        answer.original_direction = false;
        assert!(world.judge("n1", &answer), "an answer");
        answer.state = ConnState::New;
        answer.original_direction = true;
        assert!(!world.judge("n1", &answer), "a late answer is a new packet to the pod");
        assert!(world.judge("n1", &packet(pod, host, "udp/53")), "a new question");
    }
}

#[test]
fn addresses_that_left_or_changed_owner_are_released() {
    let mut world = closed();
    let both: BTreeSet<IpAddr> = ["10.244.1.10", "fd00:244:1::10"].map(|a| a.parse().unwrap()).into();
    world.relabel("x/a", "pod=a more=labels");
    assert_eq!(world.last("n1").released, BTreeSet::new());
    world.pod_gone("x/a");
    assert_eq!(world.last("n1").released, both);
    assert_eq!(world.last("n2").released, BTreeSet::new());
    world.pod(World::place(super::manifest::pod("x/a").uid("second"), 0));
    assert_eq!(world.last("n1").released, both);
    world.pod(World::place(super::manifest::pod("x/a").uid("third").started("2026-03-01T00:00:00Z"), 0));
    assert_eq!(world.last("n1").released, both);
}

#[test]
fn packets_that_fit_no_flow_are_dropped_for_isolated_pods_even_when_a_rule_would_allow_them() {
    let mut world = World::standard();
    world.policy(
        "x/p",
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}",
    );
    assert_eq!(passes(&world, ConnState::New, |_| {}), [true; 4]);
    assert_eq!(passes(&world, ConnState::Invalid, |_| {}), [false; 4]);
    world.policy_gone("x/p");
    assert_eq!(passes(&world, ConnState::Invalid, |_| {}), [true; 4], "nobody isolates it");
}

#[test]
fn untracked_packets_are_never_established() {
    assert_eq!(passes(&closed(), ConnState::Untracked, |_| {}), [false; 4]);
}

#[test]
fn after_the_grace_period_tcp_in_mid_stream_opens_nothing_for_isolated_pods() {
    let mid_stream = |packet: &mut Packet| packet.transport = Transport::Tcp { port: 80, opening: false };
    let mut world = World::standard();
    world.policy(
        "x/p",
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}",
    );
    assert_eq!(passes(&world, ConnState::New, mid_stream), [true; 4], "flows older than we are may go on");
    world.change(&Change::GraceOver);
    assert_eq!(passes(&world, ConnState::New, mid_stream), [false; 4]);
    assert_eq!(passes(&world, ConnState::New, |_| {}), [true; 4]);
    world.policy_gone("x/p");
    assert_eq!(passes(&world, ConnState::New, mid_stream), [true; 4], "nobody isolates it");
}

#[test]
fn a_pod_isolated_in_one_direction_cannot_revive_a_cut_flow_in_the_other() {
    let mid_stream = |packet: &mut Packet| packet.transport = Transport::Tcp { port: 80, opening: false };
    for (types, closed) in [("Ingress", "ingress"), ("Egress", "egress")] {
        let mut world = World::standard();
        let spec =
            format!("{{podSelector: {{matchLabels: {{pod: a}}}}, policyTypes: [{types}], {closed}: [{{}}]}}");
        world.policy("x/p", &spec);
        world.change(&Change::GraceOver);
        assert_eq!(passes(&world, ConnState::New, |_| {}), [true; 4], "{types}");
        assert_eq!(passes(&world, ConnState::New, mid_stream), [false; 4], "{types}");
        assert_eq!(passes(&world, ConnState::Invalid, |_| {}), [false; 4], "{types}");
    }
}

#[test]
fn protocols_without_ports_are_allowed_only_by_rules_without_ports() {
    let mut world = closed();
    for what in ["icmp", "proto/47", "proto/50"] {
        assert_eq!(world.sources("x/a", what), "", "{what}");
    }
    let from_b = "from: [{podSelector: {matchLabels: {pod: b}}}]";
    world.policy("x/closed", &format!("{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{{{from_b}, ports: [{{}}, {{protocol: UDP}}, {{protocol: SCTP}}]}}]}}"));
    for what in ["icmp", "proto/47"] {
        assert_eq!(world.sources("x/a", what), "", "{what}");
    }
    world.policy(
        "x/closed",
        &format!("{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{{{from_b}}}]}}"),
    );
    for what in ["icmp", "proto/47"] {
        assert_eq!(world.sources("x/a", what), "x/b", "{what}");
    }
}

#[test]
fn neighbour_discovery_and_listener_discovery_are_never_filtered_on_a_link() {
    let world = closed();
    let judged = |hook: Hook, kind: u8, source: &str, hop_limit: u8| {
        let mut packet = packet(source, "2001:db8::7", "icmp");
        packet.transport = Transport::Icmpv6(kind);
        (packet.hook, packet.hop_limit) = (hook, hop_limit);
        packet.state = ConnState::Untracked;
        world.judge("n1", &packet)
    };
    let both =
        |kind, source, limit| [Hook::Forward, Hook::Input].map(|hook| judged(hook, kind, source, limit));
    let pod = "fd00:244:1::10";
    for kind in [133, 134, 135, 136, 137] {
        assert_eq!(both(kind, pod, 255), [true; 2], "{kind}");
        assert_eq!(both(kind, pod, 254), [false; 2], "{kind} that passed a router");
    }
    for kind in [130, 131, 132, 143] {
        for source in ["fe80::1", "::"] {
            assert_eq!(both(kind, source, 1), [true; 2], "{kind}");
        }
        assert_eq!(both(kind, pod, 1), [false; 2], "{kind} from an address that is routed");
    }
    for kind in [1, 128, 129, 138, 144] {
        assert_eq!(both(kind, pod, 255), [false; 2], "{kind}");
    }
}

#[test]
fn an_unknown_source_on_the_interface_of_an_isolated_pod_is_refused() {
    let world = closed();
    let from = |source: &str, link: &str| {
        let mut forged =
            packet(source, if source.contains(':') { "2001:db8::7" } else { "192.0.2.7" }, "tcp/80");
        forged.input_link = Some(super::world::link(link));
        world.judge("n1", &forged)
    };
    for unknown in ["203.0.113.5", "2001:db8:bad::5", "fe80::5"] {
        assert!(!from(unknown, "x/a"), "{unknown}");
        assert!(from(unknown, "x/c"), "{unknown}: its pod is not isolated");
    }
}

#[test]
fn a_source_that_is_not_routed_back_to_the_pods_interface_is_forged() {
    let world = World::standard();
    for (own, host) in ENDS {
        let mut packet = packet(own, host, "tcp/80");
        packet.input_link = Some(super::world::link("x/c"));
        packet.reverse_path = false;
        assert!(!world.judge("n1", &packet));
        packet.input_link = Some(super::world::link("x/a"));
        packet.reverse_path = true;
        assert!(world.judge("n1", &packet));
        packet.input_link = Some(podwall_ruleset::LinkName::new("eth0").unwrap());
        packet.reverse_path = false;
        assert!(world.judge("n1", &packet), "transit is not ours to filter");
    }
}

#[test]
fn a_protocol_number_is_matched_whatever_the_family() {
    let world = closed();
    for (pod, host) in ENDS {
        let mut packet = packet(host, pod, "tcp/80");
        packet.transport = Transport::Other(Protocol(4));
        assert!(!world.judge("n1", &packet));
    }
}

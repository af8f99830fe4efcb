//! Random bans, Services and exposures, judged twice: by the rules of every node, and by the naive reading.
use std::net::IpAddr;

use podwall_engine::compile::names;
use podwall_engine::{Change, Cluster, Engine, NodeName, Options, ingest, plan};
use podwall_ruleset::evaluate::{Decision, evaluate};
use podwall_ruleset::packet::{Packet, Transport};
use podwall_ruleset::{Family, Hook, LinkName, Ruleset};
use podwall_testkit::naive::fence::{Knock, Way, fenced};
use podwall_testkit::naive::{self, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::config;

/// A pod, nodes, an address that is lent to a Service, and people outside.
const ADDRESSES: [&str; 10] = [
    "10.1.0.1",
    "192.168.0.1",
    "192.168.0.2",
    "198.51.100.80",
    "203.0.113.7",
    "fd00:1::1",
    "fd16::1",
    "fd16::2",
    "2001:db8:80::80",
    "2001:db8::7",
];

const BLOCKS: [&str; 8] = [
    "203.0.113.0/24",
    "192.168.0.0/30",
    "0.0.0.0/1",
    "128.0.0.0/1",
    "2001:db8::/32",
    "2000::/3",
    "fd00::/8",
    "fd16::/126",
];

fn fixed() -> Vec<Value> {
    let node = |name: &str, addresses: [&str; 2], edge: &str| {
        let addresses = addresses.map(|address| json!({"type": "InternalIP", "address": address}));
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"edge": edge}},
               "status": {"addresses": addresses}})
    };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "p", "uid": "p"},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00:1::1"}]}});
    vec![node("n1", ["192.168.0.1", "fd16::1"], "yes"), node("n2", ["192.168.0.2", "fd16::2"], "no"), pod]
}

fn ban(name: usize) -> impl Strategy<Value = Value> {
    let addresses = (subsequence(ADDRESSES.to_vec(), 0..3), subsequence(BLOCKS.to_vec(), 0..3));
    let port = select(vec![
        json!({"protocol": "TCP"}),
        json!({"protocol": "TCP", "localPort": 22, "localEndPort": 80}),
        json!({"protocol": "UDP", "localPort": 53}),
        json!({"protocol": "TCP", "remotePort": 1, "remoteEndPort": 1023}),
        json!({"protocol": "TCP", "remotePort": 40000, "localPort": 80}),
        json!({"protocol": "ICMP"}),
        json!({"protocol": "ICMPv6"}),
    ]);
    let more = (
        prop::option::of(vec(port, 1..4)),
        prop::option::weighted(
            0.3,
            select(vec![json!({"names": ["eth0"]}), json!({"names": ["eth0", "wg0"]})]),
        ),
        prop::option::weighted(0.3, Just(json!({"matchLabels": {"edge": "yes"}}))),
        select(vec!["In", "Out", "Both"]),
        select(vec!["Enforce", "Enforce", "Enforce", "Audit"]),
        select(vec!["Spare", "Ban"]),
        select(vec!["Drop", "Reject"]),
    );
    (addresses, more).prop_map(move |((singles, blocks), (ports, links, nodes, direction, mode, management, action))| {
        let addresses = [singles, blocks].concat();
        let mut spec = json!({"addresses": addresses, "direction": direction, "mode": mode,
                              "managementPorts": management, "action": action});
        for (key, value) in [("ports", ports.map(Value::Array)), ("interfaces", links), ("nodeSelector", nodes)] {
            if let Some(value) = value {
                spec[key] = value;
            }
        }
        json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "Ban", "metadata": {"name": format!("b{name}")}, "spec": spec})
    })
}

fn service(name: &'static str) -> impl Strategy<Value = Value> {
    let ports = subsequence(
        vec![
            json!({"name": "web", "port": 80, "nodePort": 30080}),
            json!({"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}),
            json!({"name": "admin", "port": 22}),
        ],
        0..=3,
    );
    let lent = (subsequence(vec!["198.51.100.80", "2001:db8:80::80"], 0..=2), select(vec!["yes", "no"]));
    (ports, lent).prop_map(move |(ports, (lent, public))| {
        let (external, balanced): (Vec<&str>, Vec<&str>) = lent.into_iter().partition(|address| address.contains(':'));
        let ingress: Vec<Value> = balanced.iter().map(|address| json!({"ip": address})).collect();
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": name, "labels": {"public": public}},
               "spec": {"ports": ports, "externalIPs": external}, "status": {"loadBalancer": {"ingress": ingress}}})
    })
}

fn exposure(name: usize) -> impl Strategy<Value = Value> {
    let services = select(vec![
        json!({"names": ["one"]}),
        json!({"selector": {"matchLabels": {"public": "yes"}}}),
        json!({"selector": {}}),
    ]);
    let block = select(vec![
        json!({"cidr": "203.0.113.0/24"}),
        json!({"cidr": "203.0.113.0/24", "except": ["203.0.113.7/32"]}),
        json!({"cidr": "0.0.0.0/0"}),
        json!({"cidr": "2001:db8::/32", "except": ["2001:db8::/64"]}),
        json!({"cidr": "::/0"}),
    ]);
    let port =
        select(vec![json!({"name": "web"}), json!({"port": 53, "protocol": "UDP"}), json!({"port": 22})]);
    let rule = (vec(block, 1..3), prop::option::of(vec(port, 1..3))).prop_map(|(from, ports)| match ports {
        None => json!({"from": from}),
        Some(ports) => json!({"from": from, "ports": ports}),
    });
    let mode = select(vec!["Enforce", "Enforce", "Audit"]);
    (services, vec(rule, 0..3), mode).prop_map(move |(services, allow, mode)| {
        json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "ServiceExposure",
               "metadata": {"namespace": "a", "name": format!("e{name}")},
               "spec": {"services": services, "allow": allow, "mode": mode}})
    })
}

fn world() -> impl Strategy<Value = Vec<Value>> {
    let bans = (0..4_usize).prop_flat_map(|count| (0..count).map(ban).collect::<Vec<_>>());
    let exposures = (0..3_usize).prop_flat_map(|count| (0..count).map(exposure).collect::<Vec<_>>());
    let services = (0..3_usize)
        .prop_flat_map(|count| ["one", "two"].into_iter().take(count).map(service).collect::<Vec<_>>());
    (bans, services, exposures)
        .prop_map(|(bans, services, exposures)| [fixed(), bans, services, exposures].concat())
}

fn knocks() -> impl Strategy<Value = Vec<Knock>> {
    let transport = select(vec![
        naive::Transport::Tcp(22),
        naive::Transport::Tcp(80),
        naive::Transport::Tcp(30_080),
        naive::Transport::Tcp(10_250),
        naive::Transport::Udp(53),
        naive::Transport::Udp(30_053),
        naive::Transport::Sctp(80),
        naive::Transport::Echo,
        naive::Transport::Other(47),
    ]);
    let ends = (select(Family::BOTH.to_vec()), 0..5_usize, 0..5_usize);
    let how = (
        select(vec!["n1", "n2"]),
        select(vec![Way::In, Way::Out]),
        select(vec![40_000, 80]),
        select(vec![None, Some("eth0"), Some("wg0")]),
    );
    let knock = (ends, transport, how).prop_map(
        |((family, source, destination), transport, (node, way, source_port, link))| {
            let base = if family == Family::V4 { 0 } else { 5 };
            let at = |index: usize| -> IpAddr { ADDRESSES[base + index].parse().unwrap() };
            let own: &[&str] =
                if node == "n1" { &["192.168.0.1", "fd16::1"] } else { &["192.168.0.2", "fd16::2"] };
            Knock {
                node: node.to_owned(),
                way,
                source: at(source),
                destination: at(destination),
                transport,
                source_port,
                link: link.map(str::to_owned),
                local: way == Way::In && own.iter().any(|own| own.parse() == Ok(at(destination))),
            }
        },
    );
    vec(knock, 60)
}

/// What the node's own rules say; a packet that leaves is asked at the hook of what the node itself sends.
fn judge(ruleset: &Ruleset, knock: &Knock) -> Verdict {
    let transport = match (knock.transport, Family::of(&knock.source)) {
        (naive::Transport::Tcp(port), _) => Transport::Tcp { port, opening: true },
        (naive::Transport::Udp(port), _) => Transport::Udp(port),
        (naive::Transport::Sctp(port), _) => Transport::Sctp(port),
        (naive::Transport::Echo, Family::V4) => Transport::Icmp(8),
        (naive::Transport::Echo, Family::V6) => Transport::Icmpv6(128),
        (naive::Transport::Other(number), _) => Transport::Other(podwall_ruleset::Protocol(number)),
    };
    let link = knock.link.as_deref().map(|name| LinkName::new(name).unwrap());
    let (hook, input_link, output_link) = match knock.way {
        Way::In => (Hook::Prerouting, link, None),
        Way::Out => (Hook::Output, None, link),
    };
    let packet = Packet {
        hook,
        input_link,
        output_link,
        source_port: knock.source_port,
        local: knock.local,
        ..Packet::opening(knock.source, knock.destination, transport)
    };
    match evaluate(ruleset, &packet).decision {
        Decision::Accept => Verdict::Allowed,
        Decision::Drop { .. } => Verdict::Denied,
    }
}

fn changes(objects: &[Value]) -> impl Iterator<Item = Change> {
    objects.iter().map(|object| {
        let (change, warnings) = ingest::object(object).expect("readable").expect("of use");
        assert_eq!(warnings, Vec::new(), "{object}");
        change
    })
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn bans_and_doors_say_on_every_node_what_their_text_says(objects in world(), knocks in knocks()) {
        let mut cluster = Cluster::default();
        changes(&objects).for_each(|change| cluster.apply(change));
        let rulesets = ["n1", "n2"].map(|node| (node, plan(&cluster, &NodeName::from(node), &Options::default()).ruleset));
        for knock in &knocks {
            let (_, ruleset) = rulesets.iter().find(|(node, _)| *node == knock.node).unwrap();
            prop_assert_eq!(judge(ruleset, knock), fenced(&objects, knock), "{:?}", knock);
        }
    }
}

#[test]
fn without_bans_and_exposures_no_packet_is_asked_about_them() {
    let mut engine = Engine::new(NodeName::from("n1"), Options::default());
    changes(&fixed()).for_each(|change| engine.apply(change));
    let chains = &engine.ruleset().chains;
    for name in
        [names::arriving(), names::leaving(), names::arrivals(), names::departures(), names::exposed()]
    {
        assert!(!chains.contains_key(&name), "{name}");
    }
}

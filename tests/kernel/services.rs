//! What translation makes of a connection, and who the sender then is (F9, F19 to F23; V1 to V5, H2 to H7). Under
//! both of kube-proxy's modes that go through the forward path.
mod node_port;

use std::net::IpAddr;

use podwall_lab::{Cni, Outcome, PodPlan, Probe, Protocol};

use crate::rig::proxy::{Mode, OutsideTraffic, Service, ServicePort};
use crate::rig::{Actor, Rig, WEB, serving, town};

/// Is one probe answered, in both families alike?
fn reached(rig: &Rig, from: &str, addresses: &[IpAddr], (protocol, port): (Protocol, u16)) -> bool {
    let netns = rig.netns(&Actor(from.to_owned()));
    let ask = |address: &IpAddr| {
        let answer = Probe::new(protocol, *address, port).from(netns).expect("a probe can be sent");
        match answer.outcome {
            Outcome::Open => true,
            Outcome::TimedOut => false,
            Outcome::Refused | Outcome::Unreachable => panic!("{from} to {address}: {}", answer.outcome),
        }
    };
    let answers: Vec<bool> = addresses.iter().map(ask).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{from} to {addresses:?}: {answers:?}");
    answers[0]
}

fn own(rig: &Rig, name: &str) -> Vec<IpAddr> {
    rig.addresses(&Actor(name.to_owned())).to_vec()
}

/// A Service on 10.96.9.9 and fd96::909 with port 80 in front of a pod's 8080.
fn shifted(rig: &Rig, pod: &str, node_port: Option<u16>) -> Service {
    let pod = rig.lab.pod(pod).expect("it is there");
    let ports = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| ServicePort {
        protocol,
        port: 80,
        target: WEB,
        node_port,
    });
    Service {
        addresses: vip(),
        ports: ports.to_vec(),
        endpoints: pod.addresses().iter().map(|address| (*address, pod.node().to_owned())).collect(),
        outside: OutsideTraffic::Cluster,
    }
}

fn vip() -> Vec<IpAddr> {
    ["10.96.9.9", "fd96::909"].map(|address| address.parse().expect("written so")).to_vec()
}

const TRANSLATED: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

#[test]
fn rules_on_the_pods_port_hold_behind_a_service_and_rules_on_the_services_port_mean_nothing() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let every = |port: u16| {
        format!("[{{port: {port}}}, {{port: {port}, protocol: UDP}}, {{port: {port}, protocol: SCTP}}]")
    };
    for mode in [Mode::Iptables, Mode::Nftables] {
        rig.load_services(mode, &[shifted(&rig, "red/cat", None)]);
        for (port, open) in [(WEB, true), (80, false)] {
            let ports = every(port);
            rig.policy(
                "red/cat",
                &format!("{{podSelector: {{matchLabels: {{kind: cat}}}}, ingress: [{{ports: {ports}}}]}}"),
            );
            rig.policy(
                "blue/out",
                &format!("{{podSelector: {{}}, policyTypes: [Egress], egress: [{{ports: {ports}}}]}}"),
            );
            for protocol in TRANSLATED {
                for from in ["red/ant", "red/bee", "blue/ant", "blue/bee"] {
                    assert_eq!(
                        reached(&rig, from, &vip(), (protocol, 80)),
                        open,
                        "{mode:?} {from} {protocol} {port}"
                    );
                }
            }
        }
    }
}

#[test]
fn an_address_block_of_cluster_ips_opens_nothing() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.load_services(Mode::Iptables, &[shifted(&rig, "red/cat", None)]);
    rig.policy(
        "blue/out",
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/12}}, {ipBlock: {cidr: 'fd96::/16'}}]}]}",
    );
    assert!(!reached(&rig, "blue/ant", &vip(), (Protocol::Tcp, 80)));
    assert!(reached(&rig, "red/ant", &vip(), (Protocol::Tcp, 80)));
}

#[test]
fn a_pod_reaches_itself_directly_and_through_its_service_under_any_policy() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/shut", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    for mode in [Mode::Iptables, Mode::Nftables] {
        rig.load_services(mode, &[shifted(&rig, "red/cat", None)]);
        for protocol in TRANSLATED {
            assert!(reached(&rig, "red/cat", &own(&rig, "red/cat"), (protocol, WEB)), "{protocol} directly");
            assert!(
                reached(&rig, "red/cat", &vip(), (protocol, 80)),
                "{mode:?} {protocol} through its Service"
            );
            assert!(
                !reached(&rig, "red/ant", &vip(), (protocol, 80)),
                "{mode:?} {protocol} of its neighbour"
            );
            assert!(
                !reached(&rig, "red/cat", &own(&rig, "red/ant"), (protocol, WEB)),
                "{protocol} to its neighbour"
            );
        }
    }
}

/// The address blocks of one node.
fn block_of(rig: &Rig, node: &str) -> String {
    let addresses = rig.lab.node(node).expect("it is there").addresses();
    let blocks = addresses
        .iter()
        .map(|address| format!("{{ipBlock: {{cidr: '{}'}}}}", ipnetwork::IpNetwork::from(*address)));
    blocks.collect::<Vec<_>>().join(", ")
}

#[test]
fn the_own_node_and_its_host_network_pods_are_admitted_and_others_only_by_address() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    for node in ["east", "west"] {
        let plan = PodPlan::new(&format!("red/agent-{node}")).on(node).host_network();
        rig.add_pod(plan, &[("kind", "ant")]);
    }
    // Selectors never mean a host-network pod (H1), not even with the right label in the right namespace.
    let ants = "{podSelector: {matchLabels: {kind: ant}}}";
    rig.policy(
        "red/cat",
        &format!("{{podSelector: {{matchLabels: {{kind: cat}}}}, ingress: [{{from: [{ants}]}}]}}"),
    );
    let cat = own(&rig, "red/cat");
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp] {
        for (from, open) in
            [("red/agent-east", true), ("@east", true), ("red/agent-west", false), ("@west", false)]
        {
            assert_eq!(reached(&rig, from, &cat, (protocol, WEB)), open, "{from} {protocol}");
        }
        assert!(reached(&rig, "red/ant", &cat, (protocol, WEB)));
    }
    let west = block_of(&rig, "west");
    rig.policy(
        "red/cat",
        &format!("{{podSelector: {{matchLabels: {{kind: cat}}}}, ingress: [{{from: [{west}]}}]}}"),
    );
    assert!(reached(&rig, "@west", &cat, (Protocol::Tcp, WEB)));
    assert!(!reached(&rig, "red/ant", &cat, (Protocol::Tcp, WEB)));
}

#[test]
fn egress_to_the_own_node_needs_an_address_and_answers_to_the_node_do_not() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    for node in ["east", "west"] {
        rig.add_pod(serving(PodPlan::new(&format!("sys/agent-{node}")).on(node).host_network()), &[]);
    }
    let (east, west) = (own(&rig, "sys/agent-east"), own(&rig, "sys/agent-west"));
    rig.policy("red/mute", "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Egress]}");
    let home = rig.lab.pod("red/ant").expect("it is there").node().to_owned();
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp] {
        for node in [&east, &west] {
            assert!(!reached(&rig, "red/ant", node, (protocol, WEB)), "{protocol} to {node:?}");
            assert!(
                reached(&rig, "red/bee", node, (protocol, WEB)),
                "{protocol} to {node:?} from its neighbour"
            );
        }
        let ant = own(&rig, "red/ant");
        assert!(reached(&rig, &format!("@{home}"), &ant, (protocol, WEB)), "{protocol}: its answers pass");
    }
    let block = block_of(&rig, &home);
    rig.policy(
        "red/mute",
        &format!("{{podSelector: {{matchLabels: {{kind: ant}}}}, policyTypes: [Egress], egress: [{{to: [{block}], ports: [{{port: 8080}}]}}]}}"),
    );
    let (allowed, other) = if home == "east" { (east, west) } else { (west, east) };
    assert!(reached(&rig, "red/ant", &allowed, (Protocol::Tcp, WEB)));
    assert!(!reached(&rig, "red/ant", &allowed, (Protocol::Udp, WEB)));
    assert!(!reached(&rig, "red/ant", &other, (Protocol::Tcp, WEB)));
}

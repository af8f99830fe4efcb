//! What translation makes of a connection, and who the sender then is (F9, F19 to F23; V1 to V5, H2 to H7). Under
//! both of kube-proxy's modes that go through the forward path.
mod node_port;

use std::net::IpAddr;

use podwall_lab::Outcome::{self, Open, TimedOut};
use podwall_lab::{Cni, PodPlan, Protocol};

use crate::rig::asks::{self, Ask};
use crate::rig::proxy::{Mode, OutsideTraffic, Service, ServicePort};
use crate::rig::{Actor, Rig, WEB, serving, town};

/// Every one of the addresses answers so, whatever flows were left before.
fn expect(rig: &Rig, wanted: Outcome, from: &str, to: &[IpAddr], asks: &[Ask]) {
    rig.forget_flows();
    asks::expect(rig, wanted, from, to, asks);
}

fn own(rig: &Rig, name: &str) -> Vec<IpAddr> {
    rig.addresses(&Actor(name.to_owned())).to_vec()
}

/// A Service on 10.96.9.9 and fd96::909 with port 80 in front of a pod's 8080.
fn shifted(rig: &Rig, pod: &str, node_port: Option<u16>) -> Service {
    let pod = rig.lab.pod(pod).expect("it is there");
    let ports =
        translated(80).map(|(protocol, _)| ServicePort { protocol, port: 80, target: WEB, node_port });
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

/// All that is translated, to one port.
fn translated(port: u16) -> [Ask; 3] {
    [(Protocol::Tcp, port), (Protocol::Udp, port), (Protocol::Sctp, port)]
}

/// All protocols; every pod serves one port.
fn every() -> [Ask; 4] {
    [(Protocol::Tcp, WEB), (Protocol::Udp, WEB), (Protocol::Sctp, WEB), (Protocol::Icmp, 0)]
}

#[test]
fn rules_on_the_pods_port_hold_behind_a_service_and_rules_on_the_services_port_mean_nothing() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let listed = |port: u16| {
        format!("[{{port: {port}}}, {{port: {port}, protocol: UDP}}, {{port: {port}, protocol: SCTP}}]")
    };
    for mode in [Mode::Iptables, Mode::Nftables] {
        rig.load_services(mode, &[shifted(&rig, "red/cat", None)]);
        for (port, wanted) in [(WEB, Open), (80, TimedOut)] {
            let ports = listed(port);
            rig.policy(
                "red/cat",
                &format!("{{podSelector: {{matchLabels: {{kind: cat}}}}, ingress: [{{ports: {ports}}}]}}"),
            );
            rig.policy(
                "blue/out",
                &format!("{{podSelector: {{}}, policyTypes: [Egress], egress: [{{ports: {ports}}}]}}"),
            );
            for from in ["red/ant", "red/bee", "blue/ant", "blue/bee"] {
                expect(&rig, wanted, from, &vip(), &translated(80));
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
    expect(&rig, TimedOut, "blue/ant", &vip(), &translated(80));
    expect(&rig, Open, "red/ant", &vip(), &translated(80));
}

#[test]
fn a_pod_reaches_itself_directly_and_through_its_service_under_any_policy() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/shut", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    for mode in [Mode::Iptables, Mode::Nftables] {
        rig.load_services(mode, &[shifted(&rig, "red/cat", None)]);
        expect(&rig, Open, "red/cat", &own(&rig, "red/cat"), &translated(WEB));
        expect(&rig, Open, "red/cat", &vip(), &translated(80));
        // Its neighbours are still shut off, and it from them.
        expect(&rig, TimedOut, "red/ant", &vip(), &translated(80));
        expect(&rig, TimedOut, "red/cat", &own(&rig, "red/ant"), &translated(WEB));
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
    for (from, wanted) in [
        ("red/agent-east", Open),
        ("@east", Open),
        ("red/agent-west", TimedOut),
        ("@west", TimedOut),
        ("red/ant", Open),
    ] {
        expect(&rig, wanted, from, &cat, &every());
    }
    let west = block_of(&rig, "west");
    rig.policy(
        "red/cat",
        &format!("{{podSelector: {{matchLabels: {{kind: cat}}}}, ingress: [{{from: [{west}]}}]}}"),
    );
    expect(&rig, Open, "@west", &cat, &every());
    expect(&rig, TimedOut, "red/ant", &cat, &every());
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
    for node in [&east, &west] {
        expect(&rig, TimedOut, "red/ant", node, &every());
        expect(&rig, Open, "red/bee", node, &every());
    }
    // Its answers to the node pass.
    expect(&rig, Open, &format!("@{home}"), &own(&rig, "red/ant"), &every());
    let block = block_of(&rig, &home);
    rig.policy(
        "red/mute",
        &format!("{{podSelector: {{matchLabels: {{kind: ant}}}}, policyTypes: [Egress], egress: [{{to: [{block}], ports: [{{port: 8080}}]}}]}}"),
    );
    let (allowed, other) = if home == "east" { (east, west) } else { (west, east) };
    expect(&rig, Open, "red/ant", &allowed, &[(Protocol::Tcp, WEB)]);
    expect(&rig, TimedOut, "red/ant", &allowed, &[(Protocol::Udp, WEB)]);
    expect(&rig, TimedOut, "red/ant", &other, &[(Protocol::Tcp, WEB)]);
}

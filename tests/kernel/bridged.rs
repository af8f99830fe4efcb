//! Pods on a bridge (the CNI plugins bridge and flannel): same truth, as long as br_netfilter hands bridged packets
//! to the IP filters; and what happens when it does not, which is why the agent looks.
use std::net::IpAddr;

use podwall_lab::{BridgeFilter, Cni, Protocol};

use crate::parity;
use crate::rig::agents::Agents;
use crate::rig::{ALL, EVERY, Rig, WEB, openings, town};

const SHUT: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";

/// Two pods behind one bridge: only br_netfilter shows their packets to us.
fn neighbours(rig: &Rig, from: &str, to: &str) -> bool {
    let home = |name: &str| rig.lab.pod(name).map(|pod| pod.node().to_owned());
    matches!((home(from), home(to)), (Ok(from), Ok(to)) if from == to)
}

#[test]
fn the_truth_on_a_bridge_is_the_truth_on_routes() {
    let Some(mut rig) = town(Cni::Bridged) else { return };
    rig.expect(ALL, |_| true);
    rig.policy("red/shut", SHUT);
    rig.expect(ALL, |hop| !hop.to.lives_in("red") && !hop.from.lives_in("red"));
    rig.policy(
        "red/some",
        "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {matchLabels: {colour: blue}}}]}],
          ingress: [{from: [{namespaceSelector: {matchLabels: {colour: green}}}], ports: [{port: web}, {port: 8080, protocol: SCTP}]}]}",
    );
    rig.expect(ALL, |hop| {
        let admitted = hop.to.is("red/cat")
            && hop.from.lives_in("green")
            && (hop.is_web() || hop.is_to(Protocol::Sctp, WEB));
        let sent = hop.from.is("red/cat") && hop.to.lives_in("blue");
        (!hop.to.lives_in("red") || admitted) && (!hop.from.lives_in("red") || sent)
    });
    rig.delete("NetworkPolicy", "red/some");
    rig.delete("NetworkPolicy", "red/shut");
    rig.expect(ALL, |_| true);
}

#[test]
fn kernel_simulator_and_specification_agree_on_bridged_nodes() {
    parity::agree(Cni::Bridged, 50);
}

#[test]
fn bridged_packets_that_br_netfilter_does_not_hand_over_bypass_every_policy() {
    let Some(mut rig) = town(Cni::Bridged) else { return };
    // Between neighbours a Service does not work at all then: replies are not translated back.
    rig.ask_directly();
    rig.policy("red/shut", "{podSelector: {}, policyTypes: [Ingress]}");
    let switch = |rig: &Rig, filter| {
        rig.lab.nodes().try_for_each(|node| node.filter_bridged(filter)).expect("br_netfilter is there")
    };
    for (filter, bypassing) in [
        (BridgeFilter::Off, [true, true]),
        (BridgeFilter::Ipv4Only, [false, true]),
        (BridgeFilter::On, [false, false]),
    ] {
        switch(&rig, filter);
        rig.expect_at(&[(Protocol::Tcp, WEB), (Protocol::Icmp, 0)], |hop, address| {
            let bypasses = bypassing[usize::from(address.is_ipv6())];
            !hop.to.lives_in("red") || (bypasses && neighbours(&rig, &hop.from.0, &hop.to.0))
        });
    }
}

#[test]
fn an_agent_whose_node_lets_bridged_packets_bypass_it_says_so_and_is_not_ready() {
    let Some(mut rig) = town(Cni::Bridged) else { return };
    let mut agents = Agents::instead_of_filters(&mut rig);
    let east = rig.lab.node("east").expect("it is there");
    // The setting is read at the start and every half minute, so each look here is a start.
    let restart = |agents: &mut Agents, filter| {
        agents.kill("east");
        east.filter_bridged(filter).expect("br_netfilter is there");
        agents.start("east");
    };
    restart(&mut agents, BridgeFilter::Off);
    agents.await_unready("east", "bridge-nf-call-iptables=1");
    restart(&mut agents, BridgeFilter::Ipv4Only);
    agents.await_unready("east", "bridge-nf-call-ip6tables=1");
    restart(&mut agents, BridgeFilter::On);
    agents.await_ready("east");
}

#[test]
fn a_packet_from_its_own_destination_is_shut_on_a_bridge_unless_it_was_sent_to_a_service() {
    let Some(mut rig) = town(Cni::Bridged) else { return };
    let forged = |rig: &Rig, from: &str| {
        let own = rig.lab.pod("red/cat").expect("it is there").addresses();
        let at = |address: &IpAddr| rig.arriving(from, *address, "red/cat", &openings(WEB));
        own.iter().flat_map(at).collect::<Vec<_>>()
    };
    assert_eq!(forged(&rig, "blue/ant"), [EVERY, EVERY].concat(), "nobody is isolated");
    rig.policy("red/shut", SHUT);
    assert_eq!(forged(&rig, "blue/ant"), [], "a neighbour that says it is its victim");
    rig.expect(ALL, |hop| !hop.to.lives_in("red") && !hop.from.lives_in("red") || hop.to.0 == hop.from.0);
}

#[test]
fn a_bridged_pod_may_borrow_its_neighbours_address_and_no_other() {
    let Some(mut rig) = town(Cni::Bridged) else { return };
    rig.policy(
        "red/cat",
        "{podSelector: {matchLabels: {kind: cat}}, ingress: [{from: [{podSelector: {matchLabels: {kind: ant}}},
          {namespaceSelector: {matchLabels: {colour: green}}}, {ipBlock: {cidr: 203.0.113.0/24}}, {ipBlock: {cidr: '2001:db8::/32'}}]}]}",
    );
    let own = |name: &str| rig.lab.pod(name).expect("it is there").addresses().to_vec();
    assert!(neighbours(&rig, "blue/ant", "red/ant") && neighbours(&rig, "blue/ant", "red/cat"));
    assert!(!neighbours(&rig, "blue/ant", "green/ant"));
    let outside = rig.lab.host("outside").expect("it is there").addresses().to_vec();
    for source in own("green/ant").into_iter().chain(outside) {
        assert_eq!(
            rig.arriving("blue/ant", source, "red/cat", &openings(WEB)),
            [],
            "as {source}, from elsewhere"
        );
    }
    for source in own("blue/ant") {
        assert_eq!(rig.arriving("blue/ant", source, "red/cat", &openings(WEB)), [], "as itself");
    }
    // The documented limit (P13): on one bridge an address is whoever claims it.
    for source in own("red/ant") {
        assert_eq!(
            rig.arriving("blue/ant", source, "red/cat", &openings(WEB)),
            EVERY,
            "as {source}, a neighbour"
        );
    }
}

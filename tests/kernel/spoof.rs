//! Forged sources: what a pod with CAP_NET_RAW gains by them (decision L6, promise P13).
use std::net::{IpAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use podwall_engine::Options;
use podwall_engine::options::SpoofGuard;
use podwall_lab::{Cni, Protocol};

use crate::rig::stream::bound;
use crate::rig::{EVERY, Rig, WEB, openings, town, town_with};

/// Admits an ant, a part of the pod range nobody lives in, and the outside; nobody else.
const CHOOSY: &str = "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress], ingress: [{from: [
    {podSelector: {matchLabels: {kind: ant}}},
    {ipBlock: {cidr: 10.77.1.128/25}}, {ipBlock: {cidr: 'fd77:0:0:1:1::/80'}},
    {ipBlock: {cidr: 203.0.113.0/24}}, {ipBlock: {cidr: '2001:db8::/32'}}]}]}";

const NOTHING: [Protocol; 0] = [];

/// Addresses the policy above admits and an attacker would like to have.
fn tempting(rig: &Rig) -> Vec<IpAddr> {
    let ant = rig.lab.pod("red/ant").expect("it is there").addresses().to_vec();
    let unused = ["10.77.1.200", "fd77:0:0:1:1::c8", "203.0.113.10", "2001:db8::a"];
    ant.into_iter().chain(unused.map(|address| address.parse().expect("written so"))).collect()
}

fn own(rig: &Rig, pod: &str) -> Vec<IpAddr> {
    rig.lab.pod(pod).expect("it is there").addresses().to_vec()
}

/// Of the neighbours of red/cat (east) and of the pods on the other node.
const ATTACKERS: [&str; 2] = ["blue/ant", "blue/bee"];

#[test]
fn a_forged_source_gains_a_routed_pod_nothing_and_the_genuine_one_passes() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/cat", CHOOSY);
    for attacker in ATTACKERS {
        for source in tempting(&rig) {
            assert_eq!(
                rig.arriving(attacker, source, "red/cat", &openings(WEB)),
                NOTHING,
                "{attacker} as {source}"
            );
        }
        for source in own(&rig, attacker) {
            assert_eq!(
                rig.arriving(attacker, source, "red/cat", &openings(WEB)),
                NOTHING,
                "{attacker} as itself"
            );
            assert_eq!(
                rig.arriving(attacker, source, "red/bee", &openings(WEB)),
                EVERY,
                "{attacker} to an open pod"
            );
        }
    }
    for source in own(&rig, "red/ant") {
        assert_eq!(
            rig.arriving("red/ant", source, "red/cat", &openings(WEB)),
            EVERY,
            "{source} is what it says"
        );
    }
    for source in rig.lab.host("outside").expect("it is there").addresses() {
        assert_eq!(
            rig.arriving("outside", *source, "red/cat", &openings(WEB)),
            EVERY,
            "{source} is what it says"
        );
    }
}

#[test]
fn without_the_guard_the_same_forged_sources_pass() {
    let options = Options { spoof_guard: SpoofGuard::Off, ..Options::default() };
    let Some(mut rig) = town_with(Cni::Routed, &options) else { return };
    rig.policy("red/cat", CHOOSY);
    for source in tempting(&rig) {
        assert_eq!(rig.arriving("blue/ant", source, "red/cat", &openings(WEB)), EVERY, "as {source}");
    }
}

#[test]
fn a_pod_that_may_send_nothing_may_not_send_under_another_name_either() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("blue/mute", "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Egress]}");
    for source in tempting(&rig).into_iter().chain(own(&rig, "blue/ant")) {
        for to in ["red/cat", "red/bee", "outside"] {
            assert_eq!(rig.arriving("blue/ant", source, to, &openings(WEB)), NOTHING, "as {source} to {to}");
        }
    }
    for source in own(&rig, "blue/bee") {
        assert_eq!(rig.arriving("blue/bee", source, "red/bee", &openings(WEB)), EVERY, "{source} may send");
    }
}

#[test]
fn a_second_address_on_its_interface_does_not_free_a_pod_that_may_send_nothing() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let second: [IpAddr; 2] =
        ["10.77.1.77", "fd77:0:0:1::4d"].map(|address| address.parse().expect("written so"));
    // The node routes to it, so the way back is right: only the interface tells whose it is.
    second.iter().for_each(|address| rig.lab.add_address("blue/ant", *address).expect("it can be added"));
    for source in second {
        assert_eq!(
            rig.arriving("blue/ant", source, "red/bee", &openings(WEB)),
            EVERY,
            "{source} is not judged"
        );
    }
    rig.policy("blue/mute", "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Egress]}");
    for source in second {
        assert_eq!(rig.arriving("blue/ant", source, "red/bee", &openings(WEB)), NOTHING, "as {source}");
    }
}

/// A datagram from the pod's link-local address to its gateway's: does it reach a process on the node?
fn reaches_gateway(rig: &Rig, pod: &str) -> bool {
    let pod = rig.lab.pod(pod).expect("it is there");
    let node = rig.lab.node(pod.node()).expect("it is there");
    let server = node.netns().run(|| bound("[::]:7777")).expect("a node").expect("a free port");
    server.set_read_timeout(Some(Duration::from_millis(250))).expect("a good time");
    let send = || {
        let socket = UdpSocket::bind("[::]:0")?;
        let link = rustix::net::netdevice::name_to_index(&socket, "eth0")?;
        let gateway = "fe80::ecee:eeff:feee:eeee".parse().expect("written so");
        socket.send_to(b"hello", SocketAddrV6::new(gateway, 7777, 0, link))
    };
    pod.netns().run(send).expect("a pod").expect("it can be sent");
    server.recv(&mut [0; 16]).is_ok()
}

#[test]
fn link_local_packets_to_the_own_node_follow_the_egress_policy() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    assert!(reaches_gateway(&rig, "blue/ant"), "an open pod may");
    rig.policy("blue/mute", "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Egress]}");
    assert!(!reaches_gateway(&rig, "blue/ant"), "a pod that may send nothing may not");
    assert!(reaches_gateway(&rig, "blue/bee"), "its neighbour may");
}

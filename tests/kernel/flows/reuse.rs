//! An address gets a new owner: nothing that stood between the old one and the world serves the new one (F28, F5).
use std::net::IpAddr;
use std::time::Duration;

use podwall_lab::{Cni, Forged, Listener, Payload, PodPlan};

use crate::rig::{Rig, WEB, policy, serving, town};

const SILENCE: Duration = Duration::from_millis(300);

/// One datagram from an address and port to red/cat; does it arrive?
fn arrives(rig: &Rig, from: &str, source: IpAddr, payload: &Payload) -> bool {
    let cat = rig.lab.pod("red/cat").expect("it is there");
    let destination = *cat.addresses().iter().find(|a| a.is_ipv4() == source.is_ipv4()).expect("dual stack");
    let listener = Listener::open(cat.netns()).expect("a pod can be listened to");
    let forged = Forged { source, destination, payload: payload.clone() };
    forged.send(rig.lab.pod(from).expect("it is there").netns()).expect("it can be sent");
    let seen = listener.wait_for(SILENCE, |arrival| arrival.source == source).expect("it listens");
    seen.is_some()
}

const TALK: Payload = Payload::Udp { from: 5555, to: WEB, data: Vec::new() };

fn admit_ants(rig: &mut Rig) {
    rig.policy(
        "red/cat",
        "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress],
          ingress: [{from: [{podSelector: {matchLabels: {kind: ant}}}]}]}",
    );
}

/// red/ant goes and red/heir takes its addresses; what it was allowed is still in the tables of flows.
fn inherit(rig: &mut Rig, kind: &str) -> Vec<IpAddr> {
    let old = rig.lab.pod("red/ant").expect("it is there");
    let (node, addresses) = (old.node().to_owned(), old.addresses().to_vec());
    for address in &addresses {
        assert!(arrives(rig, "red/ant", *address, &TALK), "{address} is allowed");
    }
    rig.remove_pod("red/ant");
    let plan = PodPlan::new("red/heir").on(&node);
    let plan = addresses.iter().fold(plan, |plan, address| plan.address(*address));
    rig.add_pod(serving(plan), &[("kind", kind)]);
    rig.commit_and_cut();
    addresses
}

#[test]
fn a_new_pod_on_an_old_address_does_not_inherit_its_flows() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    admit_ants(&mut rig);
    for address in inherit(&mut rig, "wasp") {
        assert!(!arrives(&rig, "red/heir", address, &TALK), "{address} went on with an old flow");
    }
}

#[test]
fn a_new_pod_on_an_old_address_opens_the_flows_its_own_labels_allow() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    admit_ants(&mut rig);
    for address in inherit(&mut rig, "ant") {
        assert!(arrives(&rig, "red/heir", address, &TALK), "{address} is allowed by its own label");
    }
}

#[test]
fn a_segment_of_no_connection_reaches_open_pods_only_and_isolated_ones_never() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let stray = Payload::TcpAck { from: 5556, to: WEB };
    let addresses = rig.lab.pod("red/ant").expect("it is there").addresses().to_vec();
    for address in &addresses {
        assert!(arrives(&rig, "red/ant", *address, &stray), "{address} talks to an open pod");
    }
    rig.learn(&[policy("red/all", "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}")]);
    rig.commit();
    rig.forget_flows();
    let opening = Payload::TcpSyn { from: 5557, to: WEB };
    for address in &addresses {
        assert!(!arrives(&rig, "red/ant", *address, &stray), "{address} is in the middle of nothing");
        assert!(arrives(&rig, "red/ant", *address, &opening), "{address} opens a connection");
    }
}

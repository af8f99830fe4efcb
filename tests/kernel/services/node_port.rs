//! A client outside comes in at a node's port (F21): with the cluster policy it may be masqueraded as the node, and
//! that must not become the own node's right.
use podwall_lab::Cni;
use podwall_lab::Outcome::{self, Open, TimedOut};

use crate::rig::proxy::{Mode, OutsideTraffic, Service};
use crate::rig::{Rig, WEB, town};

use super::{block_of, expect, own, shifted, translated};

const NODE_PORT: u16 = 30_080;

const CLIENT: &str = "{ipBlock: {cidr: 203.0.113.0/24}}, {ipBlock: {cidr: '2001:db8::/32'}}";

fn admit(rig: &mut Rig, peers: &str) {
    rig.policy(
        "red/cat",
        &format!("{{podSelector: {{matchLabels: {{kind: cat}}}}, ingress: [{{from: [{peers}]}}]}}"),
    );
}

fn serve(rig: &Rig, mode: Mode, outside: OutsideTraffic) {
    rig.load_services(mode, &[Service { outside, ..shifted(rig, "red/cat", Some(NODE_PORT)) }]);
}

/// What becomes of the client at the node's port, in every protocol.
fn expect_through(rig: &Rig, node: &str, wanted: Outcome) {
    let addresses = rig.lab.node(node).expect("it is there").addresses().to_vec();
    expect(rig, wanted, "outside", &addresses, &translated(NODE_PORT));
}

/// red/cat lives on the east node; the west one is the other.
fn expect_entries(rig: &Rig, wanted: [Outcome; 2]) {
    assert_eq!(rig.lab.pod("red/cat").expect("it is there").node(), "east");
    expect_through(rig, "east", wanted[0]);
    expect_through(rig, "west", wanted[1]);
}

#[test]
fn the_cluster_policy_shows_the_client_to_pods_of_the_entry_node_and_the_node_to_all_others() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    for mode in [Mode::Iptables, Mode::Nftables] {
        admit(&mut rig, "{podSelector: {}}");
        serve(&rig, mode, OutsideTraffic::Cluster);
        // Masqueraded as the own node is not the own node (V5).
        expect_entries(&rig, [TimedOut, TimedOut]);
        // On the second node the client's address is gone (V4).
        admit(&mut rig, CLIENT);
        expect_entries(&rig, [Open, TimedOut]);
        // What is seen there is the entry node's.
        let west = block_of(&rig, "west");
        admit(&mut rig, &west);
        expect_entries(&rig, [TimedOut, Open]);
        expect(&rig, TimedOut, "outside", &own(&rig, "red/cat"), &translated(WEB));
    }
}

#[test]
fn the_local_policy_keeps_the_client_and_has_no_way_to_other_nodes() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    for mode in [Mode::Iptables, Mode::Nftables] {
        admit(&mut rig, "{podSelector: {}}");
        serve(&rig, mode, OutsideTraffic::Local);
        expect_through(&rig, "east", TimedOut);
        admit(&mut rig, CLIENT);
        expect_through(&rig, "east", Open);
    }
}

#[test]
fn an_open_pod_is_reached_through_every_node() {
    let Some(rig) = town(Cni::Routed) else { return };
    for mode in [Mode::Iptables, Mode::Nftables] {
        serve(&rig, mode, OutsideTraffic::Cluster);
        expect_entries(&rig, [Open, Open]);
    }
}

//! A client outside comes in at a node's port (F21): with the cluster policy it may be masqueraded as the node, and
//! that must not become the own node's right.
use podwall_lab::{Cni, Protocol};

use crate::rig::proxy::{Mode, OutsideTraffic, Service};
use crate::rig::{Rig, town};

use super::{TRANSLATED, block_of, own, reached, shifted};

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

/// In every protocol alike: does the client get through at the node's port?
fn through(rig: &Rig, node: &str) -> bool {
    let addresses = rig.lab.node(node).expect("it is there").addresses().to_vec();
    let answers = TRANSLATED.map(|protocol| reached(rig, "outside", &addresses, (protocol, NODE_PORT)));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{node}: {answers:?}");
    answers[0]
}

/// red/cat lives on the east node; the west one is the other.
fn entries(rig: &Rig) -> [bool; 2] {
    assert_eq!(rig.lab.pod("red/cat").expect("it is there").node(), "east");
    [through(rig, "east"), through(rig, "west")]
}

#[test]
fn the_cluster_policy_shows_the_client_to_pods_of_the_entry_node_and_the_node_to_all_others() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    for mode in [Mode::Iptables, Mode::Nftables] {
        admit(&mut rig, "{podSelector: {}}");
        serve(&rig, mode, OutsideTraffic::Cluster);
        assert_eq!(
            entries(&rig),
            [false, false],
            "{mode:?}: masqueraded as the own node is not the own node (V5)"
        );
        admit(&mut rig, CLIENT);
        assert_eq!(
            entries(&rig),
            [true, false],
            "{mode:?}: the client's address is gone on the second node (V4)"
        );
        let west = block_of(&rig, "west");
        admit(&mut rig, &west);
        assert_eq!(entries(&rig), [false, true], "{mode:?}: the entry node's address is what is seen");
        assert!(
            !reached(&rig, "outside", &own(&rig, "red/cat"), (Protocol::Tcp, 8080)),
            "{mode:?}: directly"
        );
    }
}

#[test]
fn the_local_policy_keeps_the_client_and_has_no_way_to_other_nodes() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    for mode in [Mode::Iptables, Mode::Nftables] {
        admit(&mut rig, "{podSelector: {}}");
        serve(&rig, mode, OutsideTraffic::Local);
        assert!(!through(&rig, "east"), "{mode:?}");
        admit(&mut rig, CLIENT);
        assert!(through(&rig, "east"), "{mode:?}");
    }
}

#[test]
fn an_open_pod_is_reached_through_every_node() {
    let Some(rig) = town(Cni::Routed) else { return };
    for mode in [Mode::Iptables, Mode::Nftables] {
        serve(&rig, mode, OutsideTraffic::Cluster);
        assert_eq!(entries(&rig), [true, true], "{mode:?}");
    }
}

//! What a change sends: it follows the change, not the node.
use std::sync::Arc;
use std::time::Instant;

use podwall_ruleset::{Key, StageKind, Value};

use super::foreign::iptables;
use super::*;

const PODS: u32 = 1000;

fn pod(number: u32) -> Key {
    Key::Address(std::net::Ipv4Addr::from_bits(0x0a01_0000 + number).into())
}

fn put(ruleset: &mut Ruleset, name: &str, key: Key, value: Value) {
    Arc::make_mut(ruleset.sets.get_mut(&sample::set(name)).unwrap()).insert(key, value).unwrap();
}

/// The node with many more pods.
fn crowd() -> Ruleset {
    let mut node = sample::node();
    node.sets.values_mut().for_each(|set| Arc::make_mut(set).spec.size = None);
    for number in 16..PODS {
        put(&mut node, "in4", pod(number), Value::Verdict(sample::goto("i4_x")));
        put(&mut node, "eg4", pod(number), Value::Verdict(podwall_ruleset::Verdict::Return));
    }
    node
}

/// Commits the one stage a change has; answers the lines it took, and prints the time.
fn lines(kernel: &mut Iptables, (old, new): (&Ruleset, &Ruleset), what: &str) -> usize {
    let began = Instant::now();
    let mut lines = 0;
    for stage in stages(old, &Delta::between(old, new)) {
        assert_ne!(stage.kind, StageKind::Load);
        lines += kernel.commit(&stage.transaction).unwrap().messages;
    }
    println!(
        "{}: {what}: {lines} lines, {:.1} ms",
        kernel.capabilities().backend,
        began.elapsed().as_secs_f64() * 1e3
    );
    lines
}

#[test]
fn a_change_sends_its_leaf_of_the_tree_and_a_change_of_peers_sends_its_elements() {
    in_namespace(|variant| {
        let mut kernel = open(variant);
        let node = crowd();
        bring(&mut kernel, &Ruleset::default(), &node);
        let mut peers = node.clone();
        put(&mut peers, "s4_web", pod(7), Value::Member);
        assert_eq!(lines(&mut kernel, (&node, &peers), "one peer"), 1);
        let mut more = peers.clone();
        put(&mut more, "in4", pod(PODS), Value::Verdict(sample::goto("i4_x")));
        let sent = lines(&mut kernel, (&peers, &more), "one pod among 1000");
        assert!(sent < 60, "{sent}");
        assert!(lines(&mut kernel, (&more, &peers), "the same pod gone") < 60);
        let began = Instant::now();
        assert!(!kernel.looks_changed().unwrap());
        println!("{}: a look: {:.1} ms", variant.as_str(), began.elapsed().as_secs_f64() * 1e3);
        // It rests after that: fifty times as long.
        iptables(variant, &["-F", "FORWARD"]);
        assert!(!kernel.looks_changed().unwrap());
        kernel.rest = Rest::default();
        assert!(kernel.looks_changed().unwrap());
        let seen = kernel.observe().unwrap().or_empty();
        bring(&mut kernel, &seen, &peers);
        assert_eq!(standing(&mut kernel), Some(peers));
    });
}

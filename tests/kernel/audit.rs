//! Policies that are only audited (decision D2): the kernel drops nothing for them, counts all they would drop, and
//! goes from the one to the other without a wrong verdict in between.
use std::collections::BTreeMap;
use std::net::IpAddr;

use podwall_engine::compile::names;
use podwall_engine::recheck;
use podwall_lab::{Cni, Flow, Protocol};
use serde_json::{Value, json};

use crate::rig::asks::{all_live, flow, none_lives};
use crate::rig::{Actor, EVERY, Rig, WEB, openings, policy, town};

const NOTHING: [Protocol; 0] = [];

/// Lets ants in and nobody else, and cats go wherever they want.
const ANTS: &str = "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress],
    ingress: [{from: [{podSelector: {matchLabels: {kind: ant}}}]}]}";

/// Lets cats talk to ants and nobody else.
const TO_ANTS: &str = "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Egress],
    egress: [{to: [{podSelector: {matchLabels: {kind: ant}}}]}]}";

const NOBODY: &str = "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress]}";

pub fn marked(name: &str, mark: &str, spec: &str) -> Value {
    let mut policy = policy(name, spec);
    policy["metadata"]["annotations"] = json!({"podwall.dev/mode": mark});
    policy
}

/// What audits have counted on all nodes, by the beginning of their chains' names.
fn counted(rig: &mut Rig) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for filter in rig.filters.values_mut() {
        for counter in filter.backend.counters().expect("they can be read") {
            let audited = ["audited4", "audited6"].map(|purpose| names::own_rule(&counter.chain, purpose));
            if audited.contains(&counter.rule) && counter.packets > 0 {
                let (prefix, _) = counter.chain.as_str().split_once('_').expect("it has a digest");
                *counts.entry(prefix.to_owned()).or_default() += counter.packets;
            }
        }
    }
    counts
}

fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(prefix, packets)| ((*prefix).to_owned(), *packets)).collect()
}

/// Sends one packet of each kind in each family, so often; answers which kinds arrive, the same each time.
fn send(rig: &Rig, from: &str, to: &str, times: usize) -> Vec<Protocol> {
    let mut answers: Vec<Vec<Protocol>> = Vec::new();
    for _ in 0..times {
        for source in rig.addresses(&Actor(from.to_owned())) {
            answers.push(rig.arriving(from, *source, to, &openings(WEB)));
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{from} to {to}: {answers:?}");
    answers.remove(0)
}

#[test]
fn an_audited_policy_drops_nothing_and_counts_every_packet_it_would_drop() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.apply(&[marked("red/in", "audit", ANTS), marked("red/out", "audit", TO_ANTS)]);
    assert_eq!(send(&rig, "red/ant", "red/cat", 3), EVERY);
    assert_eq!(counted(&mut rig), counts(&[]), "what it allows is not counted");
    assert_eq!(send(&rig, "red/bee", "red/cat", 3), EVERY);
    // Three times four kinds of each family.
    assert_eq!(counted(&mut rig), counts(&[("ai4", 12), ("ai6", 12)]));
    assert_eq!(send(&rig, "red/cat", "red/bee", 2), EVERY);
    assert_eq!(send(&rig, "red/cat", "red/ant", 2), EVERY);
    assert_eq!(counted(&mut rig), counts(&[("ae4", 8), ("ae6", 8), ("ai4", 12), ("ai6", 12)]));
    // The same policies, enforced.
    rig.apply(&[marked("red/in", "enforce", ANTS), marked("red/out", "enforce", TO_ANTS)]);
    rig.forget_flows();
    assert_eq!(send(&rig, "red/ant", "red/cat", 1), EVERY);
    assert_eq!(send(&rig, "red/bee", "red/cat", 1), NOTHING);
    assert_eq!(send(&rig, "red/cat", "red/bee", 1), NOTHING);
    assert_eq!(send(&rig, "red/cat", "red/ant", 1), EVERY);
    assert_eq!(counted(&mut rig), counts(&[]));
}

#[test]
fn what_is_enforced_beside_an_audited_policy_still_drops() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    // The other way, and of another pod.
    rig.apply(&[
        marked("red/in", "audit", ANTS),
        policy("red/out", TO_ANTS),
        policy("red/bees", "{podSelector: {matchLabels: {kind: bee}}, policyTypes: [Ingress]}"),
    ]);
    assert_eq!(send(&rig, "red/cat", "red/bee", 1), NOTHING);
    assert_eq!(send(&rig, "red/cat", "red/ant", 1), EVERY);
    assert_eq!(send(&rig, "red/ant", "red/bee", 1), NOTHING);
    assert_eq!(send(&rig, "red/bee", "red/cat", 2), EVERY);
    assert_eq!(counted(&mut rig), counts(&[("asi4", 8), ("asi6", 8)]));
    // The same way: it could only let more in, so it has nothing to say.
    rig.apply(&[policy("red/nobody", NOBODY)]);
    rig.forget_flows();
    assert_eq!(send(&rig, "red/ant", "red/cat", 1), NOTHING);
    assert_eq!(send(&rig, "red/bee", "red/cat", 1), NOTHING);
    assert_eq!(counted(&mut rig), counts(&[]));
    // Both are judged together.
    rig.apply(&[marked("red/nobody", "audit", NOBODY)]);
    assert_eq!(send(&rig, "red/ant", "red/cat", 1), EVERY);
    assert_eq!(send(&rig, "red/bee", "red/cat", 1), EVERY);
    assert_eq!(counted(&mut rig), counts(&[("asi4", 4), ("asi6", 4)]));
}

#[test]
fn open_flows_are_cut_when_an_audited_policy_is_enforced_and_only_those_it_forbids() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.learn(&[marked("red/in", "audit", ANTS)]);
    assert_eq!(rig.commit_and_cut(), 0);
    let cats: Vec<IpAddr> = rig.addresses(&Actor("red/cat".to_owned())).to_vec();
    let open = |rig: &Rig, from: &str| -> Vec<Flow> {
        let ways =
            cats.iter().flat_map(|to| [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, *to, WEB)));
        ways.map(|way| flow(rig, from, way)).collect()
    };
    let (mut kept, mut cut) = (open(&rig, "red/ant"), open(&rig, "red/bee"));
    let before = counted(&mut rig);
    assert_eq!(before, counts(&[("ai4", 2), ("ai6", 2)]));
    // What goes on is not counted again, though it is looked at.
    for filter in rig.filters.values_mut() {
        let arm =
            recheck::arm(filter.standing(), &cats.iter().copied().collect(), podwall_engine::Barred::Same);
        filter.carry_out(&arm);
    }
    all_live(kept.iter_mut().chain(&mut cut));
    assert_eq!(counted(&mut rig), before);
    rig.learn(&[marked("red/in", "enforce", ANTS)]);
    assert_ne!(rig.commit_and_cut(), 0);
    none_lives(&mut cut);
    all_live(&mut kept);
    rig.learn(&[marked("red/in", "audit", ANTS)]);
    assert_eq!(rig.commit_and_cut(), 0, "nothing got tighter");
    all_live(&mut kept);
}

#[test]
fn a_mark_that_comes_and_goes_decides_from_one_packet_to_the_next() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    for _ in 0..3 {
        rig.apply(&[marked("red/in", "audit", ANTS), marked("red/out", "audit", TO_ANTS)]);
        assert_eq!(send(&rig, "red/bee", "red/cat", 1), EVERY);
        assert_eq!(send(&rig, "red/cat", "red/bee", 1), EVERY);
        rig.apply(&[policy("red/in", ANTS), policy("red/out", TO_ANTS)]);
        assert_eq!(send(&rig, "red/bee", "red/cat", 1), NOTHING);
        assert_eq!(send(&rig, "red/cat", "red/bee", 1), NOTHING);
        assert_eq!(send(&rig, "red/ant", "red/cat", 1), EVERY);
    }
    rig.delete("NetworkPolicy", "red/in");
    rig.delete("NetworkPolicy", "red/out");
    assert_eq!(send(&rig, "red/bee", "red/cat", 1), EVERY);
    let audits = rig.filters.values().flat_map(|filter| filter.standing().chains.keys());
    assert_eq!(audits.filter(|chain| names::is_audit(chain)).count(), 0);
}

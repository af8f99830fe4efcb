//! Policies that are only audited (decision D2): nobody is isolated by them, and what they would refuse is told.
use podwall_engine::compile::names;
use podwall_engine::model::ban::Mode;
use podwall_ruleset::evaluate::evaluate;
use podwall_ruleset::packet::Packet;
use podwall_ruleset::{Count, Family, Outcome};
use serde_json::json;

use super::ALL_BUT_XA;
use super::manifest;
use super::world::{World, transport};

/// A policy `namespace/name` with the mark.
fn marked(world: &mut World, path: &str, mark: &str, spec: &str) {
    let mut policy = manifest::policy(path, spec);
    policy["metadata"]["annotations"] = json!({"podwall.dev/mode": mark});
    world.put(&policy);
}

/// Of everybody who may send to x/a (10.244.1.10 and fd00:244:1::10 on n1), those whose packets would be dropped.
fn told(world: &World, what: &str) -> String {
    let senders = [
        ("x/b", "10.244.2.11", "fd00:244:2::11"),
        ("x/c", "10.244.1.12", "fd00:244:1::12"),
        ("y/a", "10.244.2.13", "fd00:244:2::13"),
        ("outside", "192.0.2.7", "2001:db8::7"),
    ];
    let would_drop = |source: &str, destination: &str, family| {
        let packet =
            Packet::opening(source.parse().unwrap(), destination.parse().unwrap(), transport(what, family));
        let trace = evaluate(world.engine("n1").ruleset(), &packet);
        trace.would_drop().next().is_some()
    };
    let told = senders.iter().filter(|(name, v4, v6)| {
        let four = would_drop(v4, "10.244.1.10", Family::V4);
        assert_eq!(four, would_drop(v6, "fd00:244:1::10", Family::V6), "{name}");
        four
    });
    told.map(|(name, ..)| *name).collect::<Vec<_>>().join(" ")
}

const FROM_B: &str = "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: 80}]}]}";
const NOBODY: &str = "{podSelector: {}, policyTypes: [Ingress]}";

#[test]
fn an_audited_policy_isolates_nobody_and_tells_whom_it_would_refuse() {
    let mut world = World::standard();
    marked(&mut world, "x/from-b", "audit", FROM_B);
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
    assert_eq!(world.targets("x/a", "tcp/80"), ALL_BUT_XA);
    assert_eq!(told(&world, "tcp/80"), "x/c y/a outside");
    assert_eq!(told(&world, "tcp/81"), "x/b x/c y/a outside");
    marked(&mut world, "x/from-b", "enforce", FROM_B);
    assert_eq!((world.sources("x/a", "tcp/80"), told(&world, "tcp/80")), ("x/b".to_owned(), String::new()));
}

#[test]
fn audited_policies_add_up_as_enforced_ones_do() {
    let mut world = World::standard();
    marked(&mut world, "x/nobody", "audit", NOBODY);
    assert_eq!(told(&world, "tcp/80"), "x/b x/c y/a outside");
    marked(&mut world, "x/from-b", "audit", FROM_B);
    assert_eq!(told(&world, "tcp/80"), "x/c y/a outside");
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
}

#[test]
fn beside_an_enforced_policy_an_audited_one_could_only_allow_more_and_tells_nothing() {
    let mut world = World::standard();
    world.policy("x/nobody", NOBODY);
    marked(&mut world, "x/from-b", "audit", FROM_B);
    assert_eq!((world.sources("x/a", "tcp/80"), told(&world, "tcp/80")), (String::new(), String::new()));
    world.policy_gone("x/nobody");
    assert_eq!(told(&world, "tcp/80"), "x/c y/a outside");
}

#[test]
fn one_direction_is_enforced_and_the_other_audited() {
    let mut world = World::standard();
    world.policy("x/out", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}");
    marked(&mut world, "x/from-b", "audit", FROM_B);
    assert_eq!(world.targets("x/a", "tcp/80"), "");
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
    assert_eq!(told(&world, "tcp/80"), "x/c y/a outside");
}

#[test]
fn the_chain_of_an_audit_says_so_counts_and_leads_back_to_its_policies() {
    let mut world = World::standard();
    marked(&mut world, "x/from-b", "audit", FROM_B);
    let engine = world.engine("n1");
    let chains: Vec<_> = engine.ruleset().chains.iter().filter(|(name, _)| names::is_audit(name)).collect();
    assert_eq!(chains.len(), 2, "one of each family");
    for (name, chain) in chains {
        let [.., record, audited] = chain.rules.as_slice() else { panic!("{name} is too short") };
        let prefix = record.effect.log.as_ref().map(|log| log.prefix.clone());
        assert_eq!(prefix, Some(format!("podwall:{name}:")));
        assert_eq!((audited.effect.count, &audited.effect.outcome), (Count::Yes, &Outcome::Continue));
        let origin = &engine.origins().chains[name];
        let policies: Vec<String> = origin.policies.iter().map(ToString::to_string).collect();
        assert_eq!((origin.mode, policies), (Mode::Audit, vec!["x/from-b".to_owned()]));
    }
}

#[test]
fn flows_are_judged_again_when_an_audited_policy_is_enforced_and_not_the_other_way() {
    let mut world = World::standard();
    let a = ["10.244.1.10", "fd00:244:1::10"].map(|address| address.parse().unwrap());
    marked(&mut world, "x/from-b", "audit", FROM_B);
    assert!(world.last("n1").tightened.is_empty(), "{:?}", world.last("n1").tightened);
    marked(&mut world, "x/from-b", "enforce", FROM_B);
    assert_eq!(world.last("n1").tightened, a.into());
    marked(&mut world, "x/from-b", "audit", FROM_B);
    assert!(world.last("n1").tightened.is_empty(), "{:?}", world.last("n1").tightened);
    // Whom an audited policy loses is cut off from nobody.
    world.relabel("x/b", "pod=z");
    assert!(world.last("n1").tightened.is_empty(), "{:?}", world.last("n1").tightened);
    assert_eq!(told(&world, "tcp/80"), "x/b x/c y/a outside");
}

#[test]
fn an_established_flow_is_not_told_of_again_while_it_is_judged_again() {
    let mut world = World::standard();
    marked(&mut world, "x/from-b", "audit", FROM_B);
    let engine = world.engine("n1");
    let mut armed = engine.ruleset().clone();
    let judged = ["10.244.1.10".parse().unwrap()].into();
    let arm = podwall_engine::recheck::arm(&armed, &judged, podwall_engine::Barred::Same);
    arm.apply(&mut armed).unwrap();
    let new = Packet::opening(
        "10.244.2.13".parse().unwrap(),
        "10.244.1.10".parse().unwrap(),
        transport("tcp/80", Family::V4),
    );
    let old = Packet { state: podwall_ruleset::ConnState::Established, ..new.clone() };
    assert_eq!(evaluate(&armed, &new).would_drop().count(), 1);
    assert_eq!(evaluate(&armed, &old).would_drop().count(), 0);
}

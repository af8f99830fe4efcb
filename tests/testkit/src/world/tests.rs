//! The generators themselves: worlds that would all be open, or all shut, would prove nothing.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{strategy::ValueTree, test_runner::TestRunner};

use super::*;
use crate::{
    naive::{Verdict, owner_of, verdict},
    objects::identity,
};

fn sample<S: Strategy>(strategy: &S, count: usize) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

#[test]
fn worlds_hold_allowed_and_denied_connections_in_good_measure() {
    for claims in [Claims::Unique, Claims::Reused] {
        let mut counts = BTreeMap::new();
        for world in sample(&worlds(claims), 300) {
            for flow in &world.flows {
                *counts.entry(verdict(&world.objects, flow)).or_insert(0) += 1;
            }
        }
        let share = |verdict| counts.get(&verdict).copied().unwrap_or(0) * 100 / counts.values().sum::<i32>();
        let shares = [share(Verdict::Allowed), share(Verdict::Denied)];
        assert!(shares.iter().all(|share| *share >= 15), "{claims:?}: {shares:?}");
    }
}

#[test]
fn worlds_differ_in_every_field_a_policy_can_have() {
    let text: String = sample(&worlds(Claims::Unique), 300)
        .iter()
        .flat_map(|world| &world.objects)
        .filter(|object| identity(object).0 == "NetworkPolicy")
        .map(|policy| format!("{policy}\n"))
        .collect();
    let fields = [
        "podSelector",
        "namespaceSelector",
        "ipBlock",
        "except",
        "policyTypes",
        "endPort",
        "protocol",
        "ports",
        "matchLabels",
        "matchExpressions",
        "NotIn",
        "DoesNotExist",
        ":null",
        ":[]",
        ":{}",
        "[{}",
        "\"http\"",
        "SCTP",
    ];
    let missing: Vec<_> = fields.iter().filter(|field| !text.contains(**field)).collect();
    assert_eq!(missing, Vec::<&&str>::new());
}

#[test]
fn pods_of_a_buildable_world_share_no_address() {
    for world in sample(&worlds(Claims::Unique), 100) {
        for flow in &world.flows {
            if let Some(owner) = owner_of(&world.objects, flow.destination) {
                let claims = world.objects.iter().filter(|object| {
                    let host_network = object.pointer("/spec/hostNetwork").is_some();
                    let status = object.get("status").map(ToString::to_string).unwrap_or_default();
                    !host_network
                        && identity(object).0 == "Pod"
                        && status.contains(&format!("\"{}\"", flow.destination))
                });
                assert_eq!(claims.count(), 1, "{} {}", owner.namespace(), owner.name());
            }
        }
    }
}

#[test]
fn histories_never_bring_a_finished_pod_back_nor_delete_what_is_not_there() {
    for history in sample(&histories(60), 100) {
        let mut alive = BTreeMap::new();
        let mut finished = BTreeSet::new();
        for edit in &history.edits {
            match edit {
                Edit::Put(object) => {
                    let uid = object.pointer("/metadata/uid").unwrap().to_string();
                    let phase = object.pointer("/status/phase").and_then(Value::as_str);
                    let over = matches!(phase, Some("Succeeded" | "Failed"));
                    assert!(over || !finished.contains(&uid), "{uid} came back");
                    if over {
                        finished.insert(uid);
                    }
                    alive.insert(identity(object), object.clone());
                }
                Edit::Delete(object) => assert_eq!(alive.remove(&identity(object)).as_ref(), Some(object)),
            }
        }
        assert_eq!(history.objects_after(usize::MAX), alive.into_values().collect::<Vec<_>>());
    }
}

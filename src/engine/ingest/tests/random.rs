//! Arbitrary JSON, and a good policy spoiled at a random place.
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

use super::super::{Ingested, object};
use super::read;
use crate::model::{Direction, Peer, Peers, Policy, PolicyRule, Ports};

/// Any JSON, with words that matter among the keys and values.
fn any_json() -> impl Strategy<Value = Value> {
    let words = select(vec![
        "podSelector",
        "namespaceSelector",
        "ipBlock",
        "cidr",
        "except",
        "ingress",
        "egress",
        "from",
        "to",
        "ports",
        "port",
        "endPort",
        "protocol",
        "policyTypes",
        "matchLabels",
        "matchExpressions",
        "key",
        "operator",
        "values",
        "metadata",
        "name",
        "namespace",
        "uid",
        "labels",
        "spec",
        "status",
        "podIPs",
        "ip",
        "containers",
        "nodeName",
    ]);
    let values =
        select(vec!["Ingress", "Egress", "TCP", "In", "Exists", "10.0.0.0/8", "::/0", "web", "", "é"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        values.prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 5, move |inner| {
        let key = words.clone().prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(key, inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A policy with every kind of field.
fn full_spec() -> Value {
    let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]});
    let peers = json!([
        {"podSelector": selector},
        {"namespaceSelector": selector, "podSelector": {}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
    ]);
    let ports = json!([{"port": 80, "endPort": 90, "protocol": "TCP"}, {"port": "web"}, {"protocol": "UDP"}]);
    json!({
        "podSelector": selector,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": peers, "ports": ports}, {"ports": ports}],
        "egress": [{"to": peers, "ports": ports}, {"to": peers}],
    })
}

/// Paths of all values below, as JSON pointers.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), found))
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| pointers(value, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

/// Everything `after` lets through, `before` lets through too, for at least the same subjects.
fn only_closes(before: &Policy, after: &Policy) -> bool {
    let subjects = after.subject == before.subject || after.subject.pods.is_everything();
    subjects
        && Direction::BOTH.into_iter().all(|direction| {
            match (before.rules(direction), after.rules(direction)) {
                (Some(before), Some(after)) => {
                    after.iter().all(|rule| before.iter().any(|old| narrower(old, rule)))
                }
                (None, Some(after)) => after.is_empty() || before.rules(direction).is_none(),
                (Some(_), None) => false,
                (None, None) => true,
            }
        })
}

fn narrower(before: &PolicyRule, after: &PolicyRule) -> bool {
    let peers = match (&before.peers, &after.peers) {
        (Peers::Any, _) => true,
        (Peers::List(_), Peers::Any) => false,
        (Peers::List(before), Peers::List(after)) => {
            after.iter().all(|peer| *peer == Peer::Never || before.contains(peer))
        }
    };
    let ports = match (&before.ports, &after.ports) {
        (Ports::Any, _) => true,
        (Ports::List(_), Ports::Any) => false,
        (Ports::List(before), Ports::List(after)) => after.iter().all(|port| before.contains(port)),
    };
    peers && ports || after.peers == Peers::List(Vec::new())
}

proptest! {
    #[test]
    fn arbitrary_json_never_panics(raw in any_json(), kind in select(vec!["Pod", "Namespace", "Node", "NetworkPolicy"])) {
        let group = if kind == "NetworkPolicy" { "networking.k8s.io/v1" } else { "v1" };
        let whole = json!({"apiVersion": group, "kind": kind, "metadata": {"name": "a"}, "spec": raw, "status": raw});
        let _ = object(&whole);
        let _ = object(&json!({"apiVersion": group, "kind": kind, "metadata": raw}));
        let _ = object(&raw);
    }

    #[test]
    fn a_spec_of_arbitrary_json_isolates_unless_it_says_otherwise(spec in any_json()) {
        let Ingested { policy, warnings } = read(&spec);
        prop_assert!(policy.ingress.is_some() || policy.egress.is_some());
        for warning in warnings {
            prop_assert!(warning.field.starts_with("spec"), "{warning}");
        }
    }

    #[test]
    fn an_unknown_field_anywhere_is_named_and_only_closes(pick in any::<Index>()) {
        let mut places = Vec::new();
        pointers(&full_spec(), "", &mut places);
        let before = read(&full_spec()).policy;
        let mut spec = full_spec();
        let place = pick.get(&places);
        let Some(Value::Object(map)) = spec.pointer_mut(place) else { return Ok(()) };
        map.insert("surprise".to_owned(), json!(1));
        let Ingested { policy, warnings } = read(&spec);
        let named: Vec<&str> = warnings.iter().map(|warning| warning.field.as_str()).collect();
        prop_assert_eq!(named.len(), 1, "{:?}", named);
        prop_assert!(named[0].ends_with(".surprise") || named[0].ends_with("[surprise]"), "{:?}", named);
        prop_assert!(only_closes(&before, &policy), "{policy:?}");
    }

    #[test]
    fn a_value_replaced_by_one_that_cannot_be_understood_only_closes(pick in any::<Index>()) {
        let mut places = Vec::new();
        pointers(&full_spec(), "", &mut places);
        let before = read(&full_spec()).policy;
        let mut spec = full_spec();
        let place = pick.get(&places);
        *spec.pointer_mut(place).expect("it is there") = json!({"surprise": [1]});
        let Ingested { policy, warnings } = read(&spec);
        prop_assert!(!warnings.is_empty(), "{place}");
        // An end that is nonsense leaves the single start, which is less than the range but not one of its entries.
        prop_assert!(only_closes(&before, &policy) || place.ends_with("/endPort"), "{place}: {policy:?}");
    }
}

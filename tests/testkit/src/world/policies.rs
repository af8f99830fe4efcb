//! Random policies: every form a selector, a peer and a port may take, absent and empty and null alike.

use proptest::{collection::vec, option::weighted, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use super::somewhere;
use crate::objects::mk_policy;

/// Blocks with excepts that an API server would accept, some of them only from older objects (host bits, mapped).
const BLOCKS: [(&str, &[&str]); 12] = [
    ("0.0.0.0/0", &["10.77.0.0/16", "203.0.113.10/32"]),
    ("::/0", &["fd77::/16", "2001:db8::/64"]),
    ("10.77.0.0/16", &["10.77.1.0/24", "10.77.2.16/32"]),
    ("10.77.1.0/24", &["10.77.1.16/31", "10.77.1.17/32"]),
    ("10.77.2.9/24", &["10.77.2.17/30"]),
    ("10.77.1.16/32", &[]),
    ("fd77:0:0:1::/64", &["fd77:0:0:1::10/128"]),
    ("fd77:0:0:2::10/127", &[]),
    ("192.168.77.11/32", &[]),
    ("203.0.113.0/24", &["203.0.113.10/32"]),
    ("2001:db8::/32", &[]),
    ("::ffff:10.77.2.0/120", &[]),
];

/// Label keys and values of pods; "ghost" is never set.
const POD_KEYS: [&str; 3] = ["app", "tier", "ghost"];
const POD_VALUES: [&str; 4] = ["a", "b", "x", "y"];

/// The same of namespaces.
const NAMESPACE_KEYS: [&str; 3] = ["team", "kubernetes.io/metadata.name", "ghost"];
const NAMESPACE_VALUES: [&str; 4] = ["red", "blue", "alpha", "beta"];

/// Numbers that flows use, and their neighbours.
const NUMBERS: [u16; 7] = [53, 79, 80, 81, 443, 3868, 8080];

const NAMES: [&str; 4] = ["http", "dns", "sig", "ghost"];

/// A policy without a name.
#[derive(Clone, Debug)]
pub(super) struct PolicyDraw {
    namespace: &'static str,
    spec: Value,
}

impl PolicyDraw {
    pub(super) fn named(&self, number: usize) -> Value {
        mk_policy(self.namespace, &format!("policy{number}"), &self.spec)
    }
}

pub(super) fn policy() -> impl Strategy<Value = PolicyDraw> {
    let types = select(vec![
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
        json!(["Egress", "Ingress"]),
        json!([]),
        Value::Null,
    ]);
    let spec = (
        weighted(0.6, selector(&POD_KEYS, &POD_VALUES)),
        weighted(0.8, types),
        weighted(0.7, list(rule("from"))),
        weighted(0.7, list(rule("to"))),
    );
    (somewhere(), spec).prop_map(|(namespace, (pods, types, ingress, egress))| {
        let fields =
            [("podSelector", pods), ("policyTypes", types), ("ingress", ingress), ("egress", egress)];
        PolicyDraw { namespace, spec: object(fields) }
    })
}

/// Up to three items; now and then null instead.
fn list(item: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop_oneof![15 => vec(item, 0..=3).prop_map(Value::Array), 1 => Just(Value::Null)]
}

fn rule(peers: &'static str) -> impl Strategy<Value = Value> {
    (weighted(0.8, list(peer())), weighted(0.7, list(port())))
        .prop_map(move |(found, ports)| object([(peers, found), ("ports", ports)]))
}

fn peer() -> impl Strategy<Value = Value> {
    let pods = || selector(&POD_KEYS, &POD_VALUES);
    let namespaces = || selector(&NAMESPACE_KEYS, &NAMESPACE_VALUES);
    prop_oneof![
        4 => pods().prop_map(|pods| json!({"podSelector": pods})),
        3 => namespaces().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        1 => pods().prop_map(|pods| json!({"podSelector": pods, "namespaceSelector": null, "ipBlock": null})),
        1 => namespaces().prop_map(|namespaces| json!({"podSelector": null, "namespaceSelector": namespaces})),
        4 => (pods(), namespaces())
            .prop_map(|(pods, namespaces)| json!({"podSelector": pods, "namespaceSelector": namespaces})),
        4 => block().prop_map(|block| json!({"ipBlock": block})),
    ]
}

fn block() -> impl Strategy<Value = Value> {
    (select(BLOCKS.to_vec()), any::<[bool; 2]>()).prop_map(|((cidr, excepts), taken)| {
        let except: Vec<_> =
            excepts.iter().zip(taken).filter(|(_, taken)| *taken).map(|(except, _)| except).collect();
        if except.is_empty() { json!({"cidr": cidr}) } else { json!({"cidr": cidr, "except": except}) }
    })
}

fn port() -> impl Strategy<Value = Value> {
    let number = select(NUMBERS.to_vec());
    let range = (number.clone(), prop_oneof![5 => Just(0_u16), 4 => 1..400_u16, 1 => Just(10_000)]);
    let place = prop_oneof![
        1 => Just(vec![]),
        3 => number.prop_map(|port| vec![("port", json!(port))]),
        2 => range.prop_map(|(port, more)| vec![("port", json!(port)), ("endPort", json!(port + more))]),
        3 => select(NAMES.to_vec()).prop_map(|name| vec![("port", json!(name))]),
    ];
    let protocol = weighted(0.7, select(vec!["TCP", "UDP", "SCTP"]));
    (place, protocol).prop_map(|(place, protocol)| {
        let protocol = protocol.map(|protocol| ("protocol", json!(protocol)));
        object(place.into_iter().chain(protocol).map(|(field, value)| (field, Some(value))))
    })
}

fn selector(keys: &'static [&str], values: &'static [&str]) -> impl Strategy<Value = Value> + use<> {
    let key = || select(keys.to_vec());
    let value = || select(values.to_vec());
    let labels = vec((key(), value()), 0..=1);
    let labels =
        labels.prop_map(|labels| object(labels.into_iter().map(|(key, value)| (key, Some(json!(value))))));
    let expression = prop_oneof![
        (key(), select(vec!["In", "NotIn"]), vec(value(), 1..=2))
            .prop_map(|(key, operator, values)| json!({"key": key, "operator": operator, "values": values})),
        (key(), select(vec!["Exists", "DoesNotExist"]))
            .prop_map(|(key, operator)| json!({"key": key, "operator": operator})),
    ];
    let expressions = vec(expression, 0..=2).prop_map(Value::Array);
    (weighted(0.5, labels), weighted(0.3, expressions)).prop_map(|(labels, expressions)| {
        object([("matchLabels", labels), ("matchExpressions", expressions)])
    })
}

/// The fields that are there.
fn object(fields: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    let present = fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?)));
    Value::Object(present.collect::<Map<_, _>>())
}

//! Random histories: a cluster that is edited object by object, the way watch events arrive.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::Value;

use super::{
    NAMESPACES, NODES, namespace, node,
    pods::{self, PodDraw},
    policies::{self, PolicyDraw},
};
use crate::objects::identity;

/// One event of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// The object was added, or changed into this.
    Put(Value),
    /// The object is gone; this was its last state.
    Delete(Value),
}

/// An empty cluster with its nodes, and what happens to it.
#[derive(Clone, Debug)]
pub struct History {
    /// In the order of arrival. Only what exists is deleted.
    pub edits: Vec<Edit>,
}

impl History {
    /// The objects after the first `count` edits, by kind, namespace and name.
    #[must_use]
    pub fn objects_after(&self, count: usize) -> Vec<Value> {
        let mut objects = BTreeMap::new();
        for edit in self.edits.iter().take(count) {
            match edit {
                Edit::Put(object) => objects.insert(identity(object), object.clone()),
                Edit::Delete(object) => objects.remove(&identity(object)),
            };
        }
        objects.into_values().collect()
    }
}

/// Histories of up to `length` edits after the nodes have been put. Names and addresses are few, so objects are
/// changed, replaced, and inherit each other's addresses.
pub fn histories(length: usize) -> impl Strategy<Value = History> {
    vec(draw(), 0..=length).prop_map(|draws| {
        let mut writer = Writer::default();
        for facts in &NODES {
            writer.put(node(facts));
        }
        for draw in draws {
            writer.write(draw);
        }
        History { edits: writer.edits }
    })
}

#[derive(Clone, Debug)]
enum Draw {
    Namespace(Value),
    NamespaceGone(&'static str),
    Pod(usize, PodDraw),
    PodGone(usize, &'static str),
    Policy(usize, PolicyDraw),
    PolicyGone(usize, &'static str),
}

fn draw() -> impl Strategy<Value = Draw> {
    let name = || select(NAMESPACES.to_vec());
    let namespaces = NAMESPACES.map(|name| namespace(name).prop_map(move |object| (name, object)));
    let [alpha, beta, gamma] = namespaces;
    let either = prop_oneof![alpha, beta, gamma];
    prop_oneof![
        3 => either.prop_map(|(name, object)| object.map_or(Draw::NamespaceGone(name), Draw::Namespace)),
        8 => (0..5_usize, pods::draw()).prop_map(|(number, pod)| Draw::Pod(number, pod)),
        3 => (0..5_usize, name()).prop_map(|(number, namespace)| Draw::PodGone(number, namespace)),
        4 => (0..4_usize, policies::policy()).prop_map(|(number, policy)| Draw::Policy(number, policy)),
        2 => (0..4_usize, name()).prop_map(|(number, namespace)| Draw::PolicyGone(number, namespace)),
    ]
}

/// Writes edits that could have happened: a pod keeps its identity only as long as the API would let it.
#[derive(Default)]
struct Writer {
    edits: Vec<Edit>,
    alive: BTreeMap<(String, String, String), Value>,
    incarnations: usize,
}

impl Writer {
    fn write(&mut self, draw: Draw) {
        match draw {
            Draw::Namespace(object) => self.put(object),
            Draw::NamespaceGone(name) => self.delete("Namespace", "", name),
            Draw::Pod(number, pod) => self.put_pod(&format!("p{number}"), &pod),
            Draw::PodGone(number, namespace) => self.delete("Pod", namespace, &format!("p{number}")),
            Draw::Policy(number, policy) => self.put(policy.named(number)),
            Draw::PolicyGone(number, namespace) => {
                self.delete("NetworkPolicy", namespace, &format!("policy{number}"));
            }
        }
    }

    fn put(&mut self, object: Value) {
        self.alive.insert(identity(&object), object.clone());
        self.edits.push(Edit::Put(object));
    }

    fn delete(&mut self, kind: &str, namespace: &str, name: &str) {
        let removed = self.alive.remove(&(kind.to_owned(), namespace.to_owned(), name.to_owned()));
        self.edits.extend(removed.map(Edit::Delete));
    }

    /// A pod's node and host network never change and a finished pod never runs again: otherwise the old one is
    /// deleted first and the new one gets an identity and a start of its own.
    fn put_pod(&mut self, name: &str, pod: &PodDraw) {
        let key = ("Pod".to_owned(), pod.namespace.to_owned(), name.to_owned());
        let same = self.alive.get(&key).filter(|old| is_possible_change(old, pod));
        let number = match same {
            Some(old) => {
                old.pointer("/metadata/uid").and_then(Value::as_str).and_then(|uid| uid.parse().ok())
            }
            None => None,
        };
        let number = number.unwrap_or_else(|| {
            self.delete("Pod", pod.namespace, name);
            self.incarnations += 1;
            self.incarnations
        });
        self.put(pod.build(name, &number.to_string(), number));
    }
}

fn is_possible_change(old: &Value, new: &PodDraw) -> bool {
    let finished = |phase: &str| matches!(phase, "Succeeded" | "Failed");
    let text = |path: &str| old.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let host_network = old.pointer("/spec/hostNetwork").is_some();
    let node = NODES.get(new.node).map(|node| node.name);
    (finished(new.phase) || !finished(text("/status/phase")))
        && host_network == new.host_network
        && Some(text("/spec/nodeName")) == node
}

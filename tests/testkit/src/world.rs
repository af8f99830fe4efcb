//! Random clusters, small enough to read and odd enough to matter: three namespaces, two nodes, a handful of pods and
//! policies out of a tiny vocabulary, so that things meet, clash and miss each other by one.
//!
//! Everything comes out as raw JSON, as an API server would send it, and shrinks (proptest). Addresses are those the
//! lab gives its first two nodes and its first outside host, so that a world can be built for real.

mod flows;
mod history;
mod pods;
mod policies;

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::Value;

use crate::{
    naive::{Flow, owner_of},
    objects::{mk_namespace, mk_node},
};

pub use flows::all_flows;
pub use history::{Edit, History, histories};

/// Most things happen in the first namespace, so that policies find pods.
fn somewhere() -> impl Strategy<Value = &'static str> {
    let [alpha, beta, gamma] = NAMESPACES.map(Just);
    prop_oneof![4 => alpha, 3 => beta, 1 => gamma]
}

/// A node of every world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: &'static str,
    /// Its addresses, IPv4 first.
    pub addresses: [&'static str; 2],
    /// Its pod ranges, IPv4 first.
    pub pod_ranges: [&'static str; 2],
}

/// The nodes of every world.
pub const NODES: [NodeFacts; 2] = [
    NodeFacts {
        name: "node-a",
        addresses: ["192.168.77.11", "fd77::11"],
        pod_ranges: ["10.77.1.0/24", "fd77:0:0:1::/64"],
    },
    NodeFacts {
        name: "node-b",
        addresses: ["192.168.77.12", "fd77::12"],
        pod_ranges: ["10.77.2.0/24", "fd77:0:0:2::/64"],
    },
];

/// Addresses that belong to nobody in the cluster.
pub const OUTSIDE: [&str; 2] = ["203.0.113.10", "2001:db8::a"];

/// The namespaces of every world; their objects may be missing.
pub const NAMESPACES: [&str; 3] = ["alpha", "beta", "gamma"];

/// Whether pods may claim the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claims {
    /// Every pod has addresses of its own: such a world can be built.
    Unique,
    /// Addresses are few: pods inherit them, or claim them at the same time.
    Reused,
}

/// A cluster and some new connections to ask about.
#[derive(Clone, Debug)]
pub struct World {
    /// All objects, nodes and namespaces first.
    pub objects: Vec<Value>,
    /// A sample of [`all_flows`].
    pub flows: Vec<Flow>,
}

/// Clusters of up to eight pods and six policies, with 48 connections each.
pub fn worlds(claims: Claims) -> impl Strategy<Value = World> {
    let objects = (namespaces(), pods::pods(claims), vec(policies::policy(), 0..=6));
    (objects, vec(any::<Index>(), 48)).prop_map(|((namespaces, pods, specs), picks)| {
        let mut objects: Vec<Value> = NODES.iter().map(node).collect();
        objects.extend(namespaces);
        objects.extend(pods);
        objects.extend(specs.into_iter().enumerate().map(|(number, policy)| policy.named(number)));
        let flows = sample(&objects, &picks);
        World { objects, flows }
    })
}

/// Three of four touch a pod and are not from it to itself; the others may be anything, transit too.
fn sample(objects: &[Value], picks: &[Index]) -> Vec<Flow> {
    let all = all_flows(objects);
    let places: BTreeSet<_> = all.iter().map(|flow| flow.source).collect();
    let pods: BTreeSet<_> =
        places.into_iter().filter(|address| owner_of(objects, *address).is_some()).collect();
    let touching: Vec<_> = all
        .iter()
        .filter(|flow| flow.source != flow.destination)
        .filter(|flow| pods.contains(&flow.source) || pods.contains(&flow.destination))
        .cloned()
        .collect();
    let pick = |(number, pick): (usize, &Index)| {
        let from = if number % 4 == 0 || touching.is_empty() { &all } else { &touching };
        from.get(pick.index(from.len())).cloned()
    };
    picks.iter().enumerate().filter_map(pick).collect()
}

/// Most namespaces exist; a policy may be there before its namespace's object is.
fn namespaces() -> impl Strategy<Value = Vec<Value>> {
    let each = NAMESPACES.map(namespace);
    each.prop_map(|namespaces| namespaces.into_iter().flatten().collect())
}

fn namespace(name: &'static str) -> impl Strategy<Value = Option<Value>> {
    let team = prop_oneof![Just(None), Just(Some("red")), Just(Some("blue"))];
    let labelled = team.prop_map(move |team| {
        let labels: Vec<_> = team.map(|team| ("team", team)).into_iter().collect();
        mk_namespace(name, &labels)
    });
    prop_oneof![12 => labelled.prop_map(Some), 1 => Just(None)]
}

fn node(facts: &NodeFacts) -> Value {
    mk_node(facts.name, &facts.addresses, &facts.pod_ranges)
}

#[cfg(test)]
mod tests;

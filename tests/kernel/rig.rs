//! The rig every suite stands on: a lab of nodes and pods, and on each node an engine with a backend.
//!
//! Owns the order of things: objects go in as JSON, both engines take them, each node's delta goes through the
//! stager into its own kernel. What is asked of it and compared is the business of [`truth`].
pub mod agents;
pub mod asks;
mod filter;
mod objects;
pub mod programs;
pub mod proxy;
mod sighting;
pub mod stream;
mod town;
mod truth;

use std::collections::BTreeMap;
use std::net::IpAddr;

use podwall_engine::Options;
use podwall_engine::change::Change;
use podwall_engine::ingest;
use podwall_engine::model::{Attachment, Links, Sharing};
use podwall_lab::{Cni, Lab, NodePlan, PodPlan};
use podwall_nftables::Guard;
use podwall_ruleset::{Delta, LinkName, Ruleset};
use podwall_testkit::skip::{Need, ready};
use serde_json::Value;

pub use filter::{Filter, fallback, native, nft, open_backend, try_nft};
pub use objects::{namespace, node, pod, policy};
pub use sighting::{EVERY, openings};
pub use town::{ADMIN, ALL, WEB, serving, town, town_guarded, town_with};
pub use truth::{Actor, Hop, Via};

/// A cluster in namespaces, its objects, and a filter on each node.
pub struct Rig {
    /// One filter a node; before the lab, so that its sockets close first.
    pub filters: BTreeMap<String, Filter>,
    /// Nodes, pods and hosts.
    pub lab: Lab,
    /// Every object as last applied, by kind and name.
    objects: BTreeMap<(String, String), Value>,
    /// Service addresses, by pod.
    services: BTreeMap<String, Vec<IpAddr>>,
    born: u32,
}

impl Rig {
    /// Nodes without pods, filters open but nothing written; the tables of the first nodes guarded as said. `None`,
    /// loudly, where a lab cannot be built.
    pub fn guarded(nodes: &[NodePlan], guards: &[Guard], options: &Options) -> Option<Self> {
        if !ready(&[Need::Root, Need::Program("iptables"), Need::Program("nft")]) {
            return None;
        }
        let mut lab = Lab::new().expect("a lab can be built");
        let mut rig_objects = Vec::new();
        for plan in nodes {
            rig_objects.push(node(lab.add_node(plan.clone()).expect("a node can be added")));
        }
        lab.add_host("outside", &[]).expect("a host can be added");
        let guards = guards.iter().copied().chain(std::iter::repeat(Guard::Auto));
        let open = |(node, guard): (&podwall_lab::Node, Guard)| {
            (node.name().to_owned(), Filter::open(node, guard, options))
        };
        let filters = lab.nodes().zip(guards).map(open).collect();
        let mut rig = Self { filters, lab, objects: BTreeMap::new(), services: BTreeMap::new(), born: 0 };
        rig.learn(&rig_objects);
        Some(rig)
    }

    /// Adds a pod to the lab and its object to what is known; nothing is written yet.
    pub fn add_pod(&mut self, plan: PodPlan, labels: &[(&str, &str)]) {
        let object = self.place_pod(plan, labels);
        self.learn(&[object]);
    }

    /// Adds a pod to the lab only; answers the object the API server will show for it.
    pub fn place_pod(&mut self, plan: PodPlan, labels: &[(&str, &str)]) -> Value {
        self.born += 1;
        let placed = self.lab.add_pod(plan).expect("a pod can be added");
        let mut object = pod(placed, labels);
        object["metadata"]["uid"] = format!("{}#{}", placed.name(), self.born).into();
        self.relink();
        object
    }

    /// Takes a pod out of the lab and out of the cluster.
    pub fn remove_pod(&mut self, name: &str) {
        self.lab.remove_pod(name).expect("the pod is there");
        self.relink();
        self.forget("Pod", name);
    }

    /// Tells every engine what is there, without a commit.
    pub fn learn(&mut self, objects: &[Value]) {
        for object in objects {
            let (change, warnings) = ingest::object(object).expect("a good object").expect("a known kind");
            assert!(warnings.is_empty(), "{object}: {warnings:?}");
            self.change(&change);
            self.objects.insert(identity(object), object.clone());
        }
    }

    /// The same, and commits on every node.
    pub fn apply(&mut self, objects: &[Value]) {
        self.learn(objects);
        self.commit();
    }

    /// Takes an object away, without a commit.
    pub fn forget(&mut self, kind: &str, name: &str) {
        let object = self.objects.remove(&(kind.to_owned(), name.to_owned())).expect("the object is there");
        let (change, _) = ingest::object(&object).expect("a good object").expect("a known kind");
        self.change(&ingest::removal(&change).expect("an object can go"));
    }

    /// Takes an object away and commits.
    pub fn delete(&mut self, kind: &str, name: &str) {
        self.forget(kind, name);
        self.commit();
    }

    /// Edits an object in place and commits.
    pub fn edit(&mut self, kind: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.object(kind, name).clone();
        edit(&mut object);
        self.apply(&[object]);
    }

    /// All objects as last applied.
    pub fn all_objects(&self) -> impl Iterator<Item = &Value> {
        self.objects.values()
    }

    /// Takes every filter away with its rules: somebody else takes over.
    pub fn step_down(&mut self) {
        for mut filter in std::mem::take(&mut self.filters).into_values() {
            let leave = Delta::between(filter.standing(), &Ruleset::default());
            filter.carry_out(&leave);
        }
    }

    /// An object as last applied.
    pub fn object(&self, kind: &str, name: &str) -> &Value {
        &self.objects[&(kind.to_owned(), name.to_owned())]
    }

    /// Applies a policy; `spec` is YAML.
    pub fn policy(&mut self, name: &str, spec: &str) {
        self.apply(&[policy(name, spec)]);
    }

    /// One change to every engine.
    pub fn change(&mut self, change: &Change) {
        self.filters.values_mut().for_each(|filter| filter.engine.apply(change.clone()));
    }

    /// Every node's kernel follows its engine.
    pub fn commit(&mut self) {
        self.filters.values_mut().for_each(|filter| drop(filter.commit()));
    }

    /// Every node's kernel follows its engine, and established flows that are forbidden by now are cut.
    pub fn commit_and_cut(&mut self) -> usize {
        self.filters.values_mut().map(|filter| filter.commit_and_cut().len()).sum()
    }

    /// Empties every node's table of flows, so that nothing asked before lives on.
    pub fn forget_flows(&self) {
        self.lab.nodes().for_each(|node| drop(filter::flows(node.netns(), |_| true)));
    }

    /// Tells each engine how local pods hang on its node, as the agent reads it from routes.
    pub fn relink(&mut self) {
        for (name, filter) in &mut self.filters {
            let cni = self.lab.node(name).expect("every filter has a node").cni();
            let mut links = Links::default();
            for pod in self.lab.pods().filter(|pod| pod.node() == name) {
                let podwall_lab::Attachment::Link(link) = pod.attachment() else { continue };
                let (link, sharing) = match cni {
                    Cni::Routed => (link.as_str(), Sharing::Exclusive),
                    Cni::Bridged => ("cni0", Sharing::Shared),
                };
                let link = LinkName::new(link).expect("the kernel took it");
                for address in pod.addresses() {
                    links.attachments.insert(*address, Attachment { link: link.clone(), sharing });
                }
            }
            filter.engine.apply(Change::Links(links));
        }
    }
}

fn identity(object: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, meta) = (text(&object["kind"]), &object["metadata"]);
    let name = text(&meta["name"]);
    match meta["namespace"].as_str() {
        Some(namespace) => (kind, format!("{namespace}/{name}")),
        None => (kind, name),
    }
}

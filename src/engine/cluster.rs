//! Everything known of the cluster and of the node we stand on. A plain store: it holds, indexes and answers; what
//! follows from it is the business of `resolve` and `compile`.
//!
//! Owns the rule that an address has one owner (policy-semantics W5): claimants are kept by UID, so a late delete of
//! an old pod cannot take the address from the new one, whichever event comes first.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use podwall_ruleset::{ChainName, Deadline, LinkName};

use crate::change::{Change, Freshness};
use crate::lessons::{Lesson, Lessons};
use crate::model::{
    Ban, BanId, Exposure, Labels, Life, Links, Named, Node, NodeName, Pod, PodUid, Policy, PolicyId,
    PolicyKind, Service, Sharing, Text, Tier,
};

/// The store.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pods: BTreeMap<PodUid, Arc<Pod>>,
    by_namespace: BTreeMap<Text, BTreeSet<PodUid>>,
    by_label: BTreeMap<Text, BTreeMap<Text, BTreeSet<PodUid>>>,
    /// Almost always one claimant, so a list and not a set.
    claims: BTreeMap<IpAddr, Vec<PodUid>>,
    waiting: BTreeSet<PodUid>,
    namespaces: BTreeMap<Text, Labels>,
    nodes: BTreeMap<NodeName, Node>,
    policies: BTreeMap<PolicyId, Arc<Policy>>,
    bans: BTreeMap<BanId, Arc<Ban>>,
    services: BTreeMap<Named, Arc<Service>>,
    exposures: BTreeMap<Named, Arc<Exposure>>,
    api_servers: BTreeSet<IpAddr>,
    clock: Deadline,
    lessons: Lessons,
    links: Links,
    link_addresses: BTreeMap<LinkName, BTreeSet<IpAddr>>,
    held: BTreeSet<IpAddr>,
    freshness: Freshness,
    grace_over: bool,
    refused: BTreeSet<ChainName>,
}

impl Cluster {
    /// Takes in a change, and nothing more.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Pod(pod) => self.with_lessons(&pod.uid.clone(), |cluster| cluster.put_pod(pod)),
            Change::PodGone(uid) => self.with_lessons(&uid, |cluster| drop(cluster.drop_pod(&uid))),
            Change::Namespace(name, labels) => drop(self.namespaces.insert(name, labels)),
            Change::NamespaceGone(name) => drop(self.namespaces.remove(&name)),
            Change::Node(node) => drop(self.nodes.insert(node.name.clone(), node)),
            Change::NodeGone(name) => drop(self.nodes.remove(&name)),
            Change::Policy(policy) => drop(self.policies.insert(policy.id.clone(), Arc::new(policy))),
            Change::PolicyGone(id) => drop(self.policies.remove(&id)),
            Change::Ban(ban) => drop(self.bans.insert(ban.id.clone(), Arc::new(ban))),
            Change::BanGone(id) => drop(self.bans.remove(&id)),
            Change::Service(service) => drop(self.services.insert(service.id.clone(), Arc::new(service))),
            Change::ServiceGone(id) => drop(self.services.remove(&id)),
            Change::Exposure(exposure) => {
                drop(self.exposures.insert(exposure.id.clone(), Arc::new(exposure)))
            }
            Change::ExposureGone(id) => drop(self.exposures.remove(&id)),
            Change::ApiServers(addresses) => self.api_servers = addresses,
            Change::Clock(now) => {
                self.clock = self.clock.max(now);
                self.lessons.expire(self.clock);
            }
            Change::Learned(lesson) => self.learn(lesson),
            Change::Links(links) => self.put_links(links),
            Change::AddressHeld(address) if self.owner(address).is_none() => self.hold(address),
            Change::AddressHeld(_) => {}
            Change::AddressFree(address) => self.free(address),
            Change::Watch(freshness) => self.freshness = freshness,
            Change::GraceOver => self.grace_over = true,
            Change::Refused(chains) => self.refused = chains,
        }
    }

    /// A pod learns for itself: whoever has its address next knows nothing of it (W5).
    fn with_lessons(&mut self, uid: &PodUid, change: impl FnOnce(&mut Self)) {
        let of = |cluster: &Self| cluster.pods.get(uid).map(|pod| pod.addresses.clone()).unwrap_or_default();
        let before = of(self);
        change(self);
        for address in before.into_iter().chain(of(self)) {
            let owner = self.owner(address).map(|pod| &pod.uid);
            if self.lessons.owner(address).is_some_and(|taught| Some(taught) != owner) {
                self.lessons.forget(address);
            }
        }
    }

    fn learn(&mut self, lesson: Lesson) {
        if lesson.ends > self.clock && self.owner(lesson.pod).is_some_and(|pod| pod.uid == lesson.owner) {
            self.lessons.keep(lesson);
        }
    }

    fn put_pod(&mut self, mut pod: Pod) {
        // Terminal is final: an event from the past cannot bring a finished pod back (W3).
        let finished = self.pods.get(&pod.uid).is_some_and(|known| known.life == Life::Finished);
        if finished && pod.life != Life::Finished {
            return;
        }
        self.drop_pod(&pod.uid);
        self.share_texts(&mut pod);
        if pod.counts() {
            for address in &pod.addresses {
                self.claims.entry(*address).or_insert_with(|| Vec::with_capacity(1)).push(pod.uid.clone());
            }
        }
        for (key, value) in pod.labels.texts() {
            let values = self.by_label.entry(key.clone()).or_default();
            values.entry(value.clone()).or_default().insert(pod.uid.clone());
        }
        if pod.awaits_address() && pod.node.is_some() {
            self.waiting.insert(pod.uid.clone());
        }
        self.by_namespace.entry(pod.namespace.clone()).or_default().insert(pod.uid.clone());
        self.pods.insert(pod.uid.clone(), Arc::new(pod));
    }

    fn drop_pod(&mut self, uid: &PodUid) -> Option<Arc<Pod>> {
        let pod = self.pods.remove(uid)?;
        self.waiting.remove(uid);
        remove_from(&mut self.by_namespace, &pod.namespace, uid);
        for (key, value) in pod.labels.texts() {
            if let Some(values) = self.by_label.get_mut(key) {
                remove_from(values, value, uid);
                if values.is_empty() {
                    self.by_label.remove(key);
                }
            }
        }
        for address in &pod.addresses {
            if let Some(claimants) = self.claims.get_mut(address) {
                claimants.retain(|claimant| claimant != uid);
                if claimants.is_empty() {
                    self.claims.remove(address);
                }
            }
        }
        Some(pod)
    }

    /// Thousands of pods carry the same few texts; hold each once.
    fn share_texts(&self, pod: &mut Pod) {
        pod.labels = pod.labels.held_as(|(key, value)| match self.by_label.get_key_value(key) {
            None => (key.clone(), value.clone()),
            Some((key, values)) => {
                let value = values.get_key_value(value).map_or(value, |(held, _)| held);
                (key.clone(), value.clone())
            }
        });
        if let Some((namespace, _)) = self.by_namespace.get_key_value(&pod.namespace) {
            pod.namespace = namespace.clone();
        }
        let node = pod.node.as_ref().and_then(|node| self.nodes.get_key_value(node));
        if let Some((node, _)) = node {
            pod.node = Some(node.clone());
        }
    }

    fn put_links(&mut self, links: Links) {
        self.link_addresses.clear();
        for (address, attachment) in &links.attachments {
            self.link_addresses.entry(attachment.link.clone()).or_default().insert(*address);
        }
        self.links = links;
    }

    /// The changes that make this out of nothing, in the order that gives an engine least to do: rules first, so that
    /// each pod is looked at once.
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        let nodes = self.nodes.values().cloned().map(Change::Node);
        let spaces =
            self.namespaces.iter().map(|(name, labels)| Change::Namespace(name.clone(), labels.clone()));
        let policies = self.policies.values().map(|policy| Change::Policy(policy.as_ref().clone()));
        let pods = self.pods.values().map(|pod| Change::Pod(pod.as_ref().clone()));
        let held = self.held.iter().copied().map(Change::AddressHeld);
        let grace = self.grace_over.then_some(Change::GraceOver);
        let host = [Change::Links(self.links.clone()), Change::Watch(self.freshness)];
        let refused = [Change::Refused(self.refused.clone())];
        let barriers = self.barrier_changes();
        let rules = nodes.chain(spaces).chain(policies).chain(refused).chain(barriers);
        rules.chain(pods).chain(self.lesson_changes()).chain(held).chain(host).chain(grace)
    }

    fn lesson_changes(&self) -> impl Iterator<Item = Change> {
        self.lessons.all().map(Change::Learned)
    }

    fn barrier_changes(&self) -> impl Iterator<Item = Change> {
        let first = [Change::Clock(self.clock), Change::ApiServers(self.api_servers.clone())];
        let bans = self.bans.values().map(|ban| Change::Ban(ban.as_ref().clone()));
        let exposures = self.exposures.values().map(|exposure| Change::Exposure(exposure.as_ref().clone()));
        let services = self.services.values().map(|service| Change::Service(service.as_ref().clone()));
        first.into_iter().chain(bans).chain(exposures).chain(services)
    }

    /// Every pod, in order of UID.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// The pod of a UID.
    pub fn pod(&self, uid: &PodUid) -> Option<&Arc<Pod>> {
        self.pods.get(uid)
    }

    /// Pods of a namespace.
    pub fn pods_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_namespace.get(namespace).into_iter().flatten().filter_map(|uid| self.pods.get(uid))
    }

    /// Pods with a label.
    pub fn pods_labelled(&self, key: &str, value: &str) -> impl Iterator<Item = &Arc<Pod>> {
        let uids = self.by_label.get(key).and_then(|values| values.get(value));
        uids.into_iter().flatten().filter_map(|uid| self.pods.get(uid))
    }

    /// Namespaces that hold pods, known or not as objects.
    pub fn inhabited(&self) -> impl Iterator<Item = &Text> {
        self.by_namespace.keys()
    }

    /// Pods bound to a node that have no address yet.
    pub fn waiting(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.waiting.iter().filter_map(|uid| self.pods.get(uid))
    }

    /// The one pod an address belongs to: of several claimants one that is not terminating, then the newest (W5).
    pub fn owner(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        let claimants = self.claims.get(&address)?.iter().filter_map(|uid| self.pods.get(uid));
        claimants.max_by(|a, b| {
            let rank = |pod: &Arc<Pod>| pod.life == Life::Live;
            rank(a).cmp(&rank(b)).then_with(|| a.started.cmp(&b.started)).then_with(|| a.uid.cmp(&b.uid))
        })
    }

    /// Every address somebody owns.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &Arc<Pod>)> {
        self.claims.keys().filter_map(|address| Some((*address, self.owner(*address)?)))
    }

    /// Labels of a namespace; `None` while the object is not known (P3).
    pub fn namespace(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// Names of all known namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &Text> {
        self.namespaces.keys()
    }

    /// A node.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Every known node.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A policy; one of annotations is its pod's.
    pub fn policy(&self, id: &PolicyId) -> Option<&Arc<Policy>> {
        match id.kind {
            PolicyKind::NetworkPolicy | PolicyKind::DomainPolicy => self.policies.get(id),
            PolicyKind::Annotations => {
                let own = self.pods_in(&id.namespace).filter(|pod| pod.name == id.name);
                own.filter_map(|pod| pod.own.as_ref()).next()
            }
        }
    }

    /// Every policy, in order of tier, namespace, name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// Policies of a tier that could have subjects in the namespace.
    pub fn policies_for(&self, tier: Tier, namespace: &Text) -> impl Iterator<Item = &Arc<Policy>> {
        let home = match tier {
            Tier::Namespace => namespace.clone(),
            Tier::Admin | Tier::Baseline => Text::from(""),
        };
        let first =
            PolicyId { tier, namespace: home.clone(), name: Text::from(""), kind: PolicyKind::NetworkPolicy };
        let of_home = move |(id, _): &(&PolicyId, &Arc<Policy>)| id.tier == tier && id.namespace == home;
        self.policies.range(first..).take_while(of_home).map(|(_, policy)| policy)
    }

    /// A ban.
    pub fn ban(&self, id: &BanId) -> Option<&Arc<Ban>> {
        self.bans.get(id)
    }

    /// Every ban, its time over or not.
    pub fn bans(&self) -> impl Iterator<Item = &Arc<Ban>> {
        self.bans.values()
    }

    /// A Service.
    pub fn service(&self, id: &Named) -> Option<&Arc<Service>> {
        self.services.get(id)
    }

    /// Every Service.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// Services of a namespace.
    pub fn services_in(&self, namespace: &Text) -> impl Iterator<Item = &Arc<Service>> {
        in_namespace(&self.services, namespace)
    }

    /// A ServiceExposure.
    pub fn exposure(&self, id: &Named) -> Option<&Arc<Exposure>> {
        self.exposures.get(id)
    }

    /// Every ServiceExposure.
    pub fn exposures(&self) -> impl Iterator<Item = &Arc<Exposure>> {
        self.exposures.values()
    }

    /// ServiceExposures of a namespace.
    pub fn exposures_in(&self, namespace: &Text) -> impl Iterator<Item = &Arc<Exposure>> {
        in_namespace(&self.exposures, namespace)
    }

    /// Addresses of API servers, as far as they are told.
    pub const fn api_servers(&self) -> &BTreeSet<IpAddr> {
        &self.api_servers
    }

    /// What pods learned from DNS.
    pub const fn lessons(&self) -> &Lessons {
        &self.lessons
    }

    /// How late it is.
    pub const fn clock(&self) -> Deadline {
        self.clock
    }

    /// The host's interfaces.
    pub const fn links(&self) -> &Links {
        &self.links
    }

    /// Addresses on an interface.
    pub fn on_link(&self, link: &LinkName) -> impl Iterator<Item = &IpAddr> {
        self.link_addresses.get(link).into_iter().flatten()
    }

    /// Is exactly one pod behind the interface? A host route to any of its addresses says so.
    pub fn is_exclusive(&self, link: &LinkName) -> bool {
        let attachments = self.on_link(link).filter_map(|address| self.links.attachments.get(address));
        attachments.into_iter().any(|attachment| attachment.sharing == Sharing::Exclusive)
    }

    /// Interfaces with exactly one pod behind them.
    pub fn exclusive_links(&self) -> BTreeSet<LinkName> {
        self.link_addresses.keys().filter(|link| self.is_exclusive(link)).cloned().collect()
    }

    /// Keeps a local address shut until its interface is gone or another pod owns it (W8).
    pub fn hold(&mut self, address: IpAddr) {
        self.held.insert(address);
    }

    /// The address need not be kept shut.
    pub fn free(&mut self, address: IpAddr) {
        self.held.remove(&address);
    }

    /// Addresses kept shut.
    pub const fn held(&self) -> &BTreeSet<IpAddr> {
        &self.held
    }

    /// How current our view is.
    pub const fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// Is mid-stream TCP without a flow dropped?
    pub const fn grace_over(&self) -> bool {
        self.grace_over
    }

    /// Chains the kernel refused.
    pub const fn refused(&self) -> &BTreeSet<ChainName> {
        &self.refused
    }
}

fn in_namespace<'a, T>(
    all: &'a BTreeMap<Named, Arc<T>>,
    namespace: &Text,
) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
    let (home, first) =
        (Text::clone(namespace), Named { namespace: Text::clone(namespace), name: Text::from("") });
    all.range(first..).take_while(move |(id, _)| id.namespace == home).map(|(_, object)| object)
}

fn remove_from<K: Ord + Clone, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}

//! The whole ruleset of one node from scratch: the oracle of the deltas.
//!
//! Deliberately plain: it scans everything and keeps nothing. The [`Engine`](crate::Engine) must come to the same
//! bytes step by step.
mod fence;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use podwall_ruleset::{
    ChainName, Family, Key, LinkName, Recorder, RuleId, Ruleset, SetName, SetSpec, Value, Verdict,
};

use crate::change::Freshness;
use crate::cluster::Cluster;
use crate::compile::base::{self, Barriers, BaseRequest};
use crate::compile::seat::{Request, Seat, seats};
use crate::compile::{Compiled, names};
use crate::intervals::Intervals;
use crate::lessons::Lesson;
use crate::model::ban::Mode;
use crate::model::{Direction, NameList, NodeName, Pod, PolicyId};
use crate::options::{Options, PendingMode, PodRanges};
use crate::resolve::{self, Judged, Subject};

use fence::Fence;

/// Something the operator should know about this node as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The API server knows no node of our name: the name is probably wrong.
    NodeUnknown,
    /// `--pod-cidrs auto` cannot tell this node's pods by range: this address contradicts it.
    PodRangeContradicted(IpAddr),
    /// `--pod-cidrs LIST` holds this address, but its pod is another node's.
    PodRangeNotOurs(IpAddr),
    /// `--pod-cidrs auto`, but the node has no podCIDR.
    PodRangeUnknown,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeUnknown => f.write_str("the API server knows no node of this name; check --node-name"),
            Self::PodRangeContradicted(address) => {
                write!(
                    f,
                    "pod address {address} contradicts the node's podCIDRs; name the ranges with --pod-cidrs"
                )
            }
            Self::PodRangeNotOurs(address) => write!(
                f,
                "pod address {address} lies in --pod-cidrs but is another node's; name the ranges of this node alone"
            ),
            Self::PodRangeUnknown => f.write_str(
                "the node has no podCIDR, so new pods have no protection before their first verdict; \
                             name the ranges with --pod-cidrs, or choose --pending off",
            ),
        }
    }
}

/// Where a chain or rule comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// The policies of a policy-set chain.
    pub chains: BTreeMap<ChainName, ChainOrigin>,
    /// The policy and rule of a rule.
    pub rules: BTreeMap<RuleId, RuleOrigin>,
}

/// Where a chain comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainOrigin {
    /// Direction of its subjects.
    pub direction: Direction,
    /// Whether it refuses, or records what it would refuse.
    pub mode: Mode,
    /// Its policies, in order.
    pub policies: Vec<PolicyId>,
}

impl ChainOrigin {
    /// Those of a chain and of all it consists of.
    pub fn all(request: &Request<'_>, compiled: &Compiled) -> BTreeMap<ChainName, Self> {
        let of = |mode| {
            let policies = request.of_mode(mode).into_iter().flat_map(|request| request.governing.policies());
            let policies = policies.map(|policy| policy.id.clone()).collect();
            Self { direction: request.direction(), mode, policies }
        };
        let (enforce, audit) = (of(Mode::Enforce), of(Mode::Audit));
        let origin = |name| if compiled.audits.contains(name) { audit.clone() } else { enforce.clone() };
        compiled.chains.keys().map(|name| (name.clone(), origin(name))).collect()
    }
}

/// Where a rule comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleOrigin {
    /// Its policy.
    pub policy: PolicyId,
    /// Ingress or egress list.
    pub direction: Direction,
    /// Position in that list, from 0.
    pub index: usize,
}

impl Origins {
    /// Notes what chains came from.
    pub fn note(&mut self, cluster: &Cluster, chains: &BTreeMap<ChainName, ChainOrigin>) {
        for (name, origin) in chains {
            let direction = origin.direction;
            for policy in origin.policies.iter().filter_map(|id| cluster.policy(id)) {
                for rule in policy.rules(direction).unwrap_or_default() {
                    let origin = RuleOrigin { policy: policy.id.clone(), direction, index: rule.index };
                    self.rules.insert(rule.id, origin);
                }
            }
            self.chains.insert(name.clone(), origin.clone());
        }
    }
}

/// A node's ruleset with what it came from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the kernel should hold.
    pub ruleset: Ruleset,
    /// What led to it.
    pub origins: Origins,
    /// What the operator should know.
    pub conditions: Vec<Condition>,
}

/// Computes everything for one node.
pub fn plan(cluster: &Cluster, node: &NodeName, options: &Options) -> Plan {
    let locals: Vec<(IpAddr, &Arc<Pod>)> =
        cluster.addresses().filter(|(_, pod)| resolve::local(pod, node)).collect();
    let all = locals.iter().map(|(address, _)| address).chain(cluster.held());
    let (v4, v6): (Vec<&IpAddr>, Vec<&IpAddr>) = all.partition(|address| Family::of(address) == Family::V4);
    let fence = Fence::of(cluster, node, options);
    let request = base_request(cluster, v4.len(), v6.len(), fence.barriers());
    let mut planner =
        Planner { cluster, options, request, recorder: Recorder::default(), origins: Origins::default() };
    planner.fixed();
    planner.fence(fence);
    let mut isolated = Isolated::default();
    for (address, pod) in &locals {
        planner.local(*address, pod, &mut isolated);
    }
    for address in cluster.held() {
        for direction in Direction::BOTH {
            planner.verdict(*address, direction, Verdict::Goto(names::pending()));
        }
        isolated.note(*address, &Verdict::Goto(names::pending()), &Verdict::Goto(names::pending()));
    }
    planner.links(&isolated);
    let mut conditions = node_conditions(cluster, node);
    match pod_ranges(cluster, node, options) {
        Ok(ranges) if armed(cluster, node, options) => planner.arm(&ranges),
        Ok(_) => {}
        Err(condition) => conditions.push(condition),
    }
    Plan { ruleset: planner.recorder.ruleset().clone(), origins: planner.origins, conditions }
}

struct Planner<'a> {
    cluster: &'a Cluster,
    options: &'a Options,
    request: BaseRequest,
    recorder: Recorder,
    origins: Origins,
}

impl Planner<'_> {
    fn fixed(&mut self) {
        for (name, spec) in base::sets(&self.request) {
            self.recorder.put_set(&name, spec);
        }
        for (name, chain) in base::chains(&self.request, self.options) {
            self.recorder.put_chain(&name, chain);
        }
    }

    /// Everything one local address needs.
    fn local(&mut self, address: IpAddr, pod: &Pod, isolated: &mut Isolated) {
        let family = Family::of(&address);
        let judged = Direction::BOTH.map(|direction| Judged::of(self.cluster, pod, direction));
        let [ingress, egress] = seats(family, &judged, self.cluster.refused()).map(|seat| match seat {
            Seat::Fixed(verdict) => verdict,
            Seat::Chain(request) => self.chain(&request),
        });
        isolated.note(address, &ingress, &egress);
        self.verdict(address, Direction::Ingress, ingress);
        self.verdict(address, Direction::Egress, egress);
        self.recorder.put(&names::hairpin(family), Key::Pair(address, address), Value::Member);
    }

    fn chain(&mut self, request: &Request<'_>) -> Verdict {
        let name = request.name();
        if !self.recorder.ruleset().chains.contains_key(&name) {
            let compiled = request.compile(self.options);
            self.origins.note(self.cluster, &ChainOrigin::all(request, &compiled));
            for (set, constant) in &compiled.constants {
                self.recorder.put_set(set, constant.spec);
                for (key, value) in constant.iter() {
                    self.recorder.put(set, key.clone(), value);
                }
            }
            for group in &compiled.groups {
                let (set, spec) = group.set(request.family());
                self.group(group, request.family(), &set, spec);
            }
            for list in &compiled.lists {
                self.learned(list, request.family());
            }
            for (chain, rules) in compiled.chains {
                self.recorder.put_chain(&chain, rules);
            }
        }
        Verdict::Goto(name)
    }

    fn group(&mut self, group: &resolve::Group, family: Family, set: &SetName, spec: SetSpec) {
        if self.recorder.ruleset().sets.contains_key(set) {
            return;
        }
        self.recorder.put_set(set, spec);
        for (address, pod) in self.cluster.addresses().filter(|(a, _)| Family::of(a) == family) {
            if group.covers_namespace(&pod.namespace, self.cluster.namespace(&pod.namespace)) {
                for key in group.keys(pod, address) {
                    self.recorder.put(set, key, Value::Member);
                }
            }
        }
    }

    fn learned(&mut self, list: &NameList, family: Family) {
        let (set, spec) = list.set(family);
        if self.recorder.ruleset().sets.contains_key(&set) {
            return;
        }
        self.recorder.put_set(&set, spec);
        let id = list.id();
        let about = |lesson: &Lesson| lesson.list == id && Family::of(&lesson.pod) == family;
        for lesson in self.cluster.lessons().all().filter(about) {
            self.recorder.put(&set, Key::Pair(lesson.pod, lesson.address), Value::Until(lesson.ends));
        }
    }

    fn verdict(&mut self, address: IpAddr, direction: Direction, verdict: Verdict) {
        let family = Family::of(&address);
        let map = names::verdicts(direction, family, self.request.size(family));
        self.recorder.put(&map, Key::Address(address), Value::Verdict(verdict));
    }

    fn links(&mut self, isolated: &Isolated) {
        for (set, links) in links(self.cluster, isolated) {
            for link in links {
                self.recorder.put(&set, Key::Link(link), Value::Member);
            }
        }
    }

    fn arm(&mut self, ranges: &[IpNetwork]) {
        for family in Family::BOTH {
            for key in range_keys(ranges, family) {
                self.recorder.put(&names::local(family), key, Value::Member);
            }
        }
    }
}

/// Sizes and switches of the fixed part, for so many local addresses of each family (those kept shut included).
pub fn base_request(cluster: &Cluster, v4: usize, v6: usize, barriers: Barriers) -> BaseRequest {
    BaseRequest {
        size4: base::map_size(v4),
        size6: base::map_size(v6),
        grace_over: cluster.grace_over(),
        barriers,
    }
}

/// Who governs the pod in that direction, with what its chain needs to know of it; `None`: open.
pub fn governed(cluster: &Cluster, pod: &Pod, direction: Direction) -> Option<Subject> {
    Judged::of(cluster, pod, direction).enforced
}

/// Does a direction with this verdict let through less than everything that opens a connection?
pub fn isolates(verdict: &Verdict) -> bool {
    verdict.target().is_some_and(|chain| *chain != names::strays() && !names::is_audit(chain))
}

/// Local addresses with a direction that is isolated.
#[derive(Debug, Default)]
pub struct Isolated {
    /// Egress.
    pub egress: BTreeSet<IpAddr>,
    /// Whichever.
    pub any: BTreeSet<IpAddr>,
}

impl Isolated {
    /// An address with its two verdicts.
    pub fn note(&mut self, address: IpAddr, ingress: &Verdict, egress: &Verdict) {
        if isolates(egress) {
            self.egress.insert(address);
        }
        if isolates(egress) || isolates(ingress) {
            self.any.insert(address);
        }
    }
}

/// Every set of interfaces with what is in it: those of pods, those whose one pod is isolated for egress, and those
/// whose many pods have an isolated one among them.
pub fn links(cluster: &Cluster, isolated: &Isolated) -> [(SetName, BTreeSet<LinkName>); 3] {
    let all: BTreeSet<LinkName> =
        cluster.links().attachments.values().map(|attachment| attachment.link.clone()).collect();
    let mut guarded = cluster.exclusive_links();
    let mut shared: BTreeSet<LinkName> = all.difference(&guarded).cloned().collect();
    guarded.retain(|link| cluster.on_link(link).any(|address| isolated.egress.contains(address)));
    shared.retain(|link| cluster.on_link(link).any(|address| isolated.any.contains(address)));
    [(names::pod_links(), all), (names::guarded_links(), guarded), (names::shared_links(), shared)]
}

/// Elements of the armed range set of a family.
pub fn range_keys(ranges: &[IpNetwork], family: Family) -> Vec<Key> {
    Intervals::of_networks(family, ranges).iter().map(|(first, last)| Key::Range(first, last)).collect()
}

/// Is an address of ours without a verdict dropped just now (L7)?
pub fn armed(cluster: &Cluster, node: &NodeName, options: &Options) -> bool {
    match options.pending {
        PendingMode::All => true,
        PendingMode::Off => false,
        PendingMode::Selected => {
            let waits = |pod: &&Arc<Pod>| pod.node.as_ref() == Some(node) && resolve::selected(cluster, pod);
            cluster.freshness() == Freshness::Stale || cluster.waiting().any(|pod| waits(&pod))
        }
    }
}

/// The ranges of this node's pods, or why they cannot be told.
pub fn pod_ranges(
    cluster: &Cluster,
    node: &NodeName,
    options: &Options,
) -> Result<Vec<IpNetwork>, Condition> {
    let ranges = declared_ranges(cluster, node, options)?;
    let misfit =
        |(address, pod): (IpAddr, &Arc<Pod>)| misfit(&ranges, options, address, resolve::local(pod, node));
    match cluster.addresses().find_map(misfit) {
        Some(condition) => Err(condition),
        None => Ok(ranges),
    }
}

/// The ranges as given, before any look at pods.
pub fn declared_ranges(
    cluster: &Cluster,
    node: &NodeName,
    options: &Options,
) -> Result<Vec<IpNetwork>, Condition> {
    match &options.pod_ranges {
        PodRanges::Off => Ok(Vec::new()),
        PodRanges::Auto | PodRanges::List(_) if options.pending == PendingMode::Off => Ok(Vec::new()),
        PodRanges::List(ranges) => Ok(ranges.clone()),
        PodRanges::Auto => match cluster.node(node).map(|node| node.pod_ranges.clone()) {
            Some(ranges) if !ranges.is_empty() => Ok(ranges),
            Some(_) | None => Err(Condition::PodRangeUnknown),
        },
    }
}

/// How an address disagrees with the ranges. Other nodes' pods must lie outside, lest they be shut; local pods must
/// lie inside what the node declares, but an operator may mean some of them only. Families without a range agree.
pub fn misfit(ranges: &[IpNetwork], options: &Options, address: IpAddr, local: bool) -> Option<Condition> {
    let mut family = ranges.iter().filter(|range| Family::of(&range.ip()) == Family::of(&address)).peekable();
    family.peek()?;
    let inside = family.any(|range| range.contains(address));
    match &options.pod_ranges {
        PodRanges::Auto => (inside != local).then_some(Condition::PodRangeContradicted(address)),
        PodRanges::List(_) => (inside && !local).then_some(Condition::PodRangeNotOurs(address)),
        PodRanges::Off => None,
    }
}

/// Is our node there at all?
pub fn node_conditions(cluster: &Cluster, node: &NodeName) -> Vec<Condition> {
    if cluster.node(node).is_some() { Vec::new() } else { vec![Condition::NodeUnknown] }
}

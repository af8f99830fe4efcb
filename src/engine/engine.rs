//! The incremental engine: one change in, the delta of one node's ruleset out, at a cost that follows the change.
//!
//! Everything is centred on addresses, because that is what packets have. A change names the addresses whose owner
//! or meaning it may have altered; each is looked at once for membership (`members`) and, if it is this node's,
//! once for its verdicts (`locals`). The law: the ruleset is always what [`plan`](crate::plan::plan) would compute
//! from the same cluster, byte for byte.
mod barriers;
mod learned;
mod locals;
mod members;
mod reach;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use podwall_ruleset::{ChainName, Deadline, Delta, Family, Key, Protocol, Recorder, Ruleset, SetName, Value};

use crate::change::Change;
use crate::cluster::Cluster;
use crate::compile::base::{self, Barriers, BaseRequest};
use crate::compile::names;
use crate::model::ban::{BanId, Mode, Way};
use crate::model::{Ban, Labels, Named, NodeName, Pod, PodUid, Policy, PolicyId, Text, Tier};
use crate::options::Options;
use crate::plan::{self, ChainOrigin, Condition, Origins, Plan};
use crate::readers::{self, Book};
use crate::recheck::Barred;
use crate::resolve;
use crate::resolve::exposures::Knock;

pub use barriers::BannedSet;
use barriers::State;
use learned::Lessons;
use locals::{LiveChain, Local};
use members::LiveGroup;
use reach::Reach;

/// What changed since the last [`Engine::take`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// From the ruleset then to the ruleset now.
    pub delta: Delta,
    /// Addresses whose established flows must be judged again: something got tighter for flows from or to them. Local
    /// pods' own, or those of peers that a group lost.
    pub tightened: BTreeSet<IpAddr>,
    /// Local addresses whose pod went or was replaced: none of their old flows may live on (F5).
    pub released: BTreeSet<IpAddr>,
    /// Whether all flows must be asked again whether a ban or a guarded door forbids them.
    pub barred: Barred,
}

/// One node's view of the cluster, kept up to date.
#[derive(Debug)]
pub struct Engine {
    node: NodeName,
    options: Options,
    cluster: Cluster,
    recorder: Recorder,
    base: BaseRequest,
    locals: BTreeMap<IpAddr, Local>,
    locals_v6: usize,
    chains: BTreeMap<ChainName, LiveChain>,
    /// What the last chains that went were about: packets they dropped are still told of.
    retired: VecDeque<(ChainName, ChainOrigin)>,
    groups: BTreeMap<SetName, LiveGroup>,
    constants: BTreeMap<SetName, usize>,
    /// Chains that ask for each set of learned addresses.
    learned: BTreeMap<SetName, BTreeSet<ChainName>>,
    reach: Reach,
    ranges: Vec<IpNetwork>,
    misfits: BTreeMap<IpAddr, Condition>,
    tightened: BTreeSet<IpAddr>,
    released: BTreeSet<IpAddr>,
    barriers: State,
}

impl Engine {
    /// An engine for one node, knowing nothing yet. Its ruleset is the fixed part already.
    pub fn new(node: NodeName, options: Options) -> Self {
        let cluster = Cluster::default();
        let base = plan::base_request(&cluster, 0, 0, Barriers::default());
        let barriers = State::new(&options);
        let mut engine = Self {
            node,
            options,
            cluster,
            recorder: Recorder::default(),
            base,
            locals: BTreeMap::new(),
            locals_v6: 0,
            chains: BTreeMap::new(),
            retired: VecDeque::new(),
            groups: BTreeMap::new(),
            constants: BTreeMap::new(),
            learned: BTreeMap::new(),
            reach: Reach::default(),
            ranges: Vec::new(),
            misfits: BTreeMap::new(),
            tightened: BTreeSet::new(),
            released: BTreeSet::new(),
            barriers,
        };
        engine.put_base();
        engine.reread_ranges();
        engine.settle();
        engine
    }

    /// An engine that knows all that a cluster holds.
    pub fn over(cluster: &Cluster, node: NodeName, options: Options) -> Self {
        let mut engine = Self::new(node, options);
        cluster.changes().for_each(|change| engine.apply(change));
        engine
    }

    /// What [`plan`](plan::plan) would answer, in a fraction of the time on a large cluster: it looks for the members
    /// of each group among those who may belong to it.
    pub fn plan(cluster: &Cluster, node: &NodeName, options: &Options) -> Plan {
        let engine = Self::over(cluster, node.clone(), options.clone());
        let (origins, conditions) = (engine.origins(), engine.conditions());
        Plan { ruleset: engine.ruleset().clone(), origins, conditions }
    }

    /// Takes in one change. Any number may follow each other before [`take`](Self::take).
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Pod(pod) => self.pod(pod),
            Change::PodGone(uid) => self.pod_gone(&uid),
            Change::Namespace(name, labels) => self.namespace(name, Some(labels)),
            Change::NamespaceGone(name) => self.namespace(name, None),
            Change::Policy(policy) => self.policy(policy),
            Change::PolicyGone(id) => self.policy_gone(&id),
            Change::Node(node) if self.cluster.node(&node.name) == Some(&node) => {}
            Change::Node(node) => self.node_told(node.name.clone(), Change::Node(node)),
            Change::NodeGone(name) => self.node_told(name.clone(), Change::NodeGone(name)),
            Change::ApiServers(addresses) => self.api_servers(addresses),
            Change::Ban(ban) => self.ban(ban),
            Change::BanGone(id) => self.ban_gone(id),
            Change::Clock(now) => self.clock(now),
            Change::Learned(lesson) => self.learn(lesson),
            Change::Service(service) => self.service(service),
            Change::ServiceGone(id) => self.service_gone(&id),
            Change::Exposure(exposure) => self.exposure(exposure),
            Change::ExposureGone(id) => self.exposure_gone(id),
            Change::Links(_) => {
                self.cluster.apply(change);
                self.sync_links();
            }
            Change::AddressHeld(address) | Change::AddressFree(address) => {
                self.cluster.apply(change);
                self.refresh_local(address);
            }
            Change::Watch(_) => self.cluster.apply(change),
            Change::GraceOver => {
                self.cluster.apply(change);
                self.rebase();
            }
            Change::Refused(chains) => self.refused(chains),
        }
        self.settle();
    }

    /// The delta since the last call, and whose flows it concerns.
    pub fn take(&mut self) -> Update {
        Update {
            delta: self.recorder.take_delta(),
            tightened: std::mem::take(&mut self.tightened),
            released: std::mem::take(&mut self.released),
            barred: std::mem::take(&mut self.barriers.tighter),
        }
    }

    /// The ruleset as it should be now.
    pub const fn ruleset(&self) -> &Ruleset {
        self.recorder.ruleset()
    }

    /// All that is known.
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The node it works for.
    pub const fn node(&self) -> &NodeName {
        &self.node
    }

    /// What the operator chose.
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// Number of local pod addresses, those kept shut included.
    pub fn local_addresses(&self) -> usize {
        self.locals.len()
    }

    /// What the operator should know.
    pub fn conditions(&self) -> Vec<Condition> {
        let mut conditions = plan::node_conditions(&self.cluster, &self.node);
        conditions.extend(self.range_condition());
        conditions
    }

    /// When the next ban ends, or what a pod learned: a [`Change::Clock`] is due then.
    pub fn next_end(&self) -> Option<Deadline> {
        [self.barriers.next_end(), self.cluster.lessons().next_end()].into_iter().flatten().min()
    }

    /// Is the address never banned (decision B1)?
    pub fn spares(&self, address: IpAddr) -> bool {
        self.barriers.spares(address)
    }

    /// Is the ban in force on this node just now: meant here, and not over?
    pub fn enforces(&self, ban: &BanId) -> bool {
        self.barriers.enforces(ban)
    }

    /// The sets of bans there are, to be asked whose an element is.
    pub fn banned_sets(&self) -> BTreeMap<SetName, BannedSet<'_>> {
        self.barriers.sets()
    }

    /// The bans that hold an address on this node just now, in one direction.
    pub fn banned_by(&self, address: IpAddr, way: Way) -> BTreeSet<BanId> {
        self.barriers.holders_of(address, way)
    }

    /// The bans that refuse an address in a chain of theirs.
    pub fn banned_in(&self, chain: &ChainName, address: IpAddr) -> BTreeSet<BanId> {
        self.barriers.holders_in(chain, address)
    }

    /// The exposures that guard the door in a chain of theirs.
    pub fn guarded_by(&self, chain: &ChainName, knock: &Knock) -> BTreeSet<Named> {
        self.choosing(self.barriers.behind(chain, knock))
    }

    /// The exposures whose doors a chain of theirs keeps.
    pub fn kept_by(&self, chain: &ChainName) -> BTreeSet<Named> {
        self.choosing(self.barriers.kept_by(chain))
    }

    /// Does the kernel refuse rules that the ban needs on this node just now?
    pub fn kernel_refuses(&self, ban: &Ban) -> bool {
        self.barriers.is_refused(ban, self.cluster.refused())
    }

    fn choosing(&self, services: Vec<&Named>) -> BTreeSet<Named> {
        let services = services.into_iter().filter_map(|id| self.cluster.service(id));
        let choosing = services.flat_map(|service| {
            let all = self.cluster.exposures_in(&service.id.namespace);
            all.filter(|exposure| exposure.chooses(service)).map(|exposure| exposure.id.clone())
        });
        choosing.collect()
    }

    /// What the node's DNS proxy must know.
    pub fn book(&self) -> Book {
        readers::book(&self.cluster, self.locals.keys().copied(), &self.node, &self.options)
    }

    /// Where every chain and rule now in the ruleset comes from.
    pub fn origins(&self) -> Origins {
        let mut origins = Origins::default();
        for chain in self.chains.values() {
            chain.note(&self.cluster, &mut origins);
        }
        origins
    }

    /// What a policy-set chain is about, though it may have gone not long ago.
    pub fn chain_origin(&self, chain: &str) -> Option<&ChainOrigin> {
        let named = self.chains.get(chain).and_then(|live| live.origin(chain));
        let part = || self.chains.values().find_map(|live| live.origin(chain));
        let retired = || self.retired.iter().rev().find(|(name, _)| name.as_str() == chain);
        named.or_else(part).or_else(|| retired().map(|(_, origin)| origin))
    }

    /// The bans that refuse an address in the manner of this chain, and whether it only looks on.
    pub fn banned_at(&self, chain: &str, source: IpAddr, destination: IpAddr) -> Option<(Mode, Vec<BanId>)> {
        self.barriers.banned_at(chain, source, destination)
    }

    /// The Services whose door this is and whose keeper is this chain, and whether it only looks on.
    pub fn guarded_at(
        &self,
        chain: &str,
        address: IpAddr,
        at: (Protocol, u16),
    ) -> Option<(Mode, Vec<Named>)> {
        self.barriers.guarded_at(chain, address, at)
    }

    fn pod(&mut self, pod: Pod) {
        let old = self.cluster.pod(&pod.uid).cloned();
        if old.as_deref() == Some(&pod) {
            return;
        }
        let mut addresses: BTreeSet<IpAddr> = pod.addresses.iter().copied().collect();
        addresses.extend(old.iter().flat_map(|old| old.addresses.iter().copied()));
        let uid = pod.uid.clone();
        self.with_owners(addresses, Change::Pod(pod));
        let new = self.cluster.pod(&uid).cloned();
        self.host_ports_changed(&[old, new]);
    }

    fn pod_gone(&mut self, uid: &PodUid) {
        let Some(old) = self.cluster.pod(uid).cloned() else { return };
        self.with_owners(old.addresses.iter().copied().collect(), Change::PodGone(uid.clone()));
        self.host_ports_changed(&[Some(old)]);
    }

    /// Takes in a change of pods, then looks at each address it may concern.
    fn with_owners(&mut self, addresses: BTreeSet<IpAddr>, change: Change) {
        let before: Vec<(IpAddr, Option<Arc<Pod>>)> =
            addresses.into_iter().map(|address| (address, self.cluster.owner(address).cloned())).collect();
        let known: Vec<(IpAddr, Lessons)> =
            before.iter().map(|(address, _)| (*address, self.cluster.lessons().of(*address))).collect();
        self.cluster.apply(change);
        for (address, known) in known {
            self.relearn(address, &known);
        }
        for (address, old) in before {
            let new = self.cluster.owner(address).cloned();
            if new.is_some() {
                self.cluster.free(address);
            }
            self.refresh_members(address, old.as_deref(), new.as_deref());
            self.refresh_fit(address, new.as_deref());
            self.refresh_local(address);
        }
    }

    fn node_told(&mut self, name: NodeName, change: Change) {
        let old = self.cluster.node(&name).map(|node| node.addresses.clone()).unwrap_or_default();
        self.cluster.apply(change);
        self.reread_ranges();
        self.node_changed(&name, &old);
    }

    fn namespace(&mut self, name: Text, labels: Option<Labels>) {
        let old = self.cluster.namespace(&name).cloned();
        if old == labels {
            return;
        }
        self.cluster.apply(match labels {
            Some(labels) => Change::Namespace(name.clone(), labels),
            None => Change::NamespaceGone(name.clone()),
        });
        self.recover_namespace(&name, old.as_ref());
        self.refresh_subjects(&name, None);
    }

    fn policy(&mut self, policy: Policy) {
        let old = self.cluster.policy(&policy.id).cloned();
        if old.as_deref() == Some(&policy) {
            return;
        }
        let id = policy.id.clone();
        self.cluster.apply(Change::Policy(policy));
        self.policy_changed(&id, old);
    }

    fn policy_gone(&mut self, id: &PolicyId) {
        let Some(old) = self.cluster.policy(id).cloned() else { return };
        self.cluster.apply(Change::PolicyGone(id.clone()));
        self.policy_changed(id, Some(old));
    }

    fn policy_changed(&mut self, id: &PolicyId, old: Option<Arc<Policy>>) {
        let either: Vec<Arc<Policy>> = old.into_iter().chain(self.cluster.policy(id).cloned()).collect();
        match id.tier {
            Tier::Namespace => self.refresh_subjects(&id.namespace, Some(&either)),
            Tier::Admin | Tier::Baseline => {
                let namespaces: Vec<Text> = self.cluster.inhabited().cloned().collect();
                namespaces.iter().for_each(|namespace| self.refresh_subjects(namespace, Some(&either)));
            }
        }
    }

    /// Looks again at the local pods of a namespace, or only at those one of the policies selects.
    fn refresh_subjects(&mut self, namespace: &str, selecting: Option<&[Arc<Policy>]>) {
        let selected = |pod: &Pod| match selecting {
            None => true,
            Some(policies) => policies.iter().any(|policy| policy.subject.pods.matches(&pod.labels)),
        };
        let pods = self.cluster.pods_in(namespace);
        let subjects = pods.filter(|pod| resolve::local(pod, &self.node) && selected(pod));
        let addresses: Vec<IpAddr> = subjects.flat_map(|pod| pod.addresses.iter().copied()).collect();
        addresses.into_iter().for_each(|address| self.refresh_local(address));
    }

    fn refused(&mut self, chains: BTreeSet<ChainName>) {
        let addresses: Vec<IpAddr> = self.locals.keys().copied().collect();
        self.cluster.apply(Change::Refused(chains));
        addresses.into_iter().for_each(|address| self.refresh_local(address));
    }

    fn put_base(&mut self) {
        for (name, spec) in base::sets(&self.base) {
            self.recorder.put_set(&name, spec);
        }
        let chains = base::chains(&self.base, &self.options);
        for (name, chain) in &chains {
            if self.recorder.ruleset().chains.get(name).map(AsRef::as_ref) != Some(chain) {
                self.recorder.put_chain(name, chain.clone());
            }
        }
        for name in base::passing_chains() {
            if !chains.contains_key(&name) {
                self.recorder.drop_chain(&name);
            }
        }
    }

    /// Follows the size of the node and the end of the grace period.
    fn rebase(&mut self) {
        let v4 = self.locals.len() - self.locals_v6;
        let wanted = plan::base_request(&self.cluster, v4, self.locals_v6, self.barriers.barriers());
        if wanted == self.base {
            return;
        }
        let old = std::mem::replace(&mut self.base, wanted);
        self.put_base();
        for family in Family::BOTH {
            if old.size(family) != wanted.size(family) {
                self.move_verdicts(family, old.size(family));
            }
        }
    }

    /// What depends on the whole rather than on one address.
    fn settle(&mut self) {
        self.rewrite_barriers();
        self.rebase();
        let usable =
            self.range_condition().is_none() && plan::armed(&self.cluster, &self.node, &self.options);
        for family in Family::BOTH {
            let wanted: BTreeSet<Key> = if usable {
                plan::range_keys(&self.ranges, family).into_iter().collect()
            } else {
                BTreeSet::new()
            };
            self.sync_set(&names::local(family), &wanted);
        }
    }

    fn sync_set(&mut self, name: &SetName, wanted: &BTreeSet<Key>) {
        let Some(set) = self.recorder.ruleset().sets.get(name) else { return };
        let stale: Vec<Key> =
            set.iter().map(|(key, _)| key).filter(|key| !wanted.contains(key)).cloned().collect();
        let missing: Vec<Key> = wanted.iter().filter(|key| set.get(key).is_none()).cloned().collect();
        for key in stale {
            self.recorder.take(name, &key);
        }
        for key in missing {
            self.recorder.put(name, key, Value::Member);
        }
    }

    fn reread_ranges(&mut self) {
        self.ranges = plan::declared_ranges(&self.cluster, &self.node, &self.options).unwrap_or_default();
        let misfit = |(address, pod): (IpAddr, &Arc<Pod>)| Some((address, self.misfit(address, pod)?));
        self.misfits = self.cluster.addresses().filter_map(misfit).collect();
    }

    fn refresh_fit(&mut self, address: IpAddr, owner: Option<&Pod>) {
        match owner.and_then(|pod| self.misfit(address, pod)) {
            Some(condition) => drop(self.misfits.insert(address, condition)),
            None => drop(self.misfits.remove(&address)),
        }
    }

    fn misfit(&self, address: IpAddr, owner: &Pod) -> Option<Condition> {
        plan::misfit(&self.ranges, &self.options, address, resolve::local(owner, &self.node))
    }

    fn range_condition(&self) -> Option<Condition> {
        let declared = plan::declared_ranges(&self.cluster, &self.node, &self.options);
        declared.err().or_else(|| self.misfits.first_key_value().map(|(_, condition)| condition.clone()))
    }
}

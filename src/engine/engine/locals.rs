//! The addresses of this node: which chain judges each, and what is kept shut.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use podwall_ruleset::{ChainName, Family, Key, Set, SetName, Value, Verdict};

use crate::cluster::Cluster;
use crate::compile::seat::{Request, Seat, seats};
use crate::compile::{Compiled, names};
use crate::model::ban::Mode;
use crate::model::{Direction, Pod, PodUid, Tier};
use crate::plan::{self, ChainOrigin, Origins};
use crate::resolve::{self, Judged};

use super::Engine;

/// How many chains that went are remembered.
const RETIRED: usize = 64;

/// One address of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Local {
    /// `None`: its pod is gone and it is kept shut.
    owner: Option<PodUid>,
    ingress: Verdict,
    egress: Verdict,
}

impl Local {
    pub(super) fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        [&self.ingress, &self.egress].into_iter()
    }

    const fn verdict(&self, direction: Direction) -> &Verdict {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    fn isolated(&self) -> bool {
        self.verdicts().any(plan::isolates)
    }
}

/// A policy-set chain in use.
#[derive(Debug)]
pub(super) struct LiveChain {
    /// Addresses it judges.
    pub(super) users: BTreeSet<IpAddr>,
    /// All chains it consists of, itself included.
    parts: BTreeMap<ChainName, ChainOrigin>,
    groups: Vec<SetName>,
    lists: Vec<SetName>,
    constants: Vec<SetName>,
}

impl LiveChain {
    fn enforcing(&self) -> impl Iterator<Item = &ChainOrigin> {
        self.parts.values().filter(|origin| origin.mode == Mode::Enforce)
    }

    /// Does a part of it refuse anything? Whom an audited policy loses is cut off from nobody.
    pub(super) fn refuses(&self) -> bool {
        self.enforcing().next().is_some()
    }

    /// Only rules of the cluster tiers can deny somebody or pass him on: there a new peer may be a lost one.
    pub(super) fn may_deny_peers(&self) -> bool {
        self.enforcing().flat_map(|origin| &origin.policies).any(|id| id.tier != Tier::Namespace)
    }

    /// What a part of it is about.
    pub(super) fn origin(&self, part: &str) -> Option<&ChainOrigin> {
        self.parts.iter().find(|(name, _)| name.as_str() == part).map(|(_, origin)| origin)
    }

    pub(super) fn note(&self, cluster: &Cluster, origins: &mut Origins) {
        origins.note(cluster, &self.parts);
    }
}

impl Engine {
    /// Brings one address up to date, whatever happened to it.
    pub(super) fn refresh_local(&mut self, address: IpAddr) {
        let old = self.locals.get(&address).cloned();
        let owner = self.cluster.owner(address).filter(|pod| resolve::local(pod, &self.node)).cloned();
        let new = match &owner {
            Some(pod) => Some(self.judge(address, pod)),
            None => self.shut(address, old.as_ref()),
        };
        if old == new {
            return;
        }
        self.note_flows(address, old.as_ref(), new.as_ref());
        self.put_local(address, new.clone());
        self.put_verdicts(address, new.as_ref());
        self.put_hairpin(address, owner.is_some());
        self.leave_chains(address, old.as_ref(), new.as_ref());
        self.guard_link(address);
    }

    fn put_local(&mut self, address: IpAddr, local: Option<Local>) {
        let before = match local {
            Some(local) => self.locals.insert(address, local).is_some(),
            None => self.locals.remove(&address).is_some(),
        };
        let now = self.locals.contains_key(&address);
        if Family::of(&address) == Family::V6 {
            self.locals_v6 = self.locals_v6 + usize::from(now) - usize::from(before);
        }
    }

    fn judge(&mut self, address: IpAddr, pod: &Arc<Pod>) -> Local {
        let judged = Direction::BOTH.map(|direction| Judged::of(&self.cluster, pod, direction));
        let seats = seats(Family::of(&address), &judged, self.cluster.refused());
        let [ingress, egress] = seats.map(|seat| match seat {
            Seat::Fixed(verdict) => verdict,
            Seat::Chain(request) => self.enter_chain(address, &request),
        });
        Local { owner: Some(pod.uid.clone()), ingress, egress }
    }

    /// An isolated pod is gone: its address stays shut until its interface is gone or it has a new owner (W8).
    fn shut(&mut self, address: IpAddr, old: Option<&Local>) -> Option<Local> {
        let orphaned = old.is_some_and(|old| old.owner.is_some() && old.isolated());
        if orphaned && self.cluster.owner(address).is_none() {
            self.cluster.hold(address);
        }
        let pending = Verdict::Goto(names::pending());
        let shut = self.cluster.held().contains(&address);
        shut.then(|| Local { owner: None, ingress: pending.clone(), egress: pending })
    }

    fn note_flows(&mut self, address: IpAddr, old: Option<&Local>, new: Option<&Local>) {
        match (old, new) {
            (Some(old), Some(new)) if old.owner == new.owner => {
                let tighter = |direction| {
                    new.verdict(direction) != old.verdict(direction) && plan::isolates(new.verdict(direction))
                };
                if Direction::BOTH.into_iter().any(tighter) {
                    self.tightened.insert(address);
                }
            }
            (Some(_), _) => drop(self.released.insert(address)),
            // What the pod opened before we knew it was never judged (W7).
            (None, Some(new)) if new.isolated() => drop(self.tightened.insert(address)),
            (None, Some(_) | None) => {}
        }
    }

    fn enter_chain(&mut self, address: IpAddr, request: &Request<'_>) -> Verdict {
        let name = request.name();
        if !self.chains.contains_key(&name) {
            let compiled = request.compile(&self.options);
            self.add_chain(&name, request, compiled);
        }
        if let Some(live) = self.chains.get_mut(&name) {
            live.users.insert(address);
        }
        Verdict::Goto(name)
    }

    fn add_chain(&mut self, name: &ChainName, request: &Request<'_>, compiled: Compiled) {
        let mut constants = Vec::new();
        for (set, constant) in &compiled.constants {
            self.keep_constant(set, constant);
            constants.push(set.clone());
        }
        let groups =
            compiled.groups.iter().map(|group| self.join_group(group, request.family(), name)).collect();
        let lists = compiled.lists.iter().map(|list| self.join_list(list, request.family(), name)).collect();
        let parts = ChainOrigin::all(request, &compiled);
        let live = LiveChain { users: BTreeSet::new(), parts, groups, lists, constants };
        for (part, chain) in compiled.chains {
            self.recorder.put_chain(&part, chain);
        }
        self.chains.insert(name.clone(), live);
    }

    /// Leaves the chains the address no longer uses; the last one out takes the chain along.
    fn leave_chains(&mut self, address: IpAddr, old: Option<&Local>, new: Option<&Local>) {
        for direction in Direction::BOTH {
            let target =
                |local: Option<&Local>| local.and_then(|local| local.verdict(direction).target().cloned());
            let (was, is) = (target(old), target(new));
            let Some(name) = was.filter(|was| Some(was) != is.as_ref()) else { continue };
            let Some(live) = self.chains.get_mut(&name) else { continue };
            live.users.remove(&address);
            if live.users.is_empty() {
                self.drop_chain(&name);
            }
        }
    }

    fn drop_chain(&mut self, name: &ChainName) {
        let Some(live) = self.chains.remove(name) else { return };
        for part in live.parts.keys() {
            self.recorder.drop_chain(part);
        }
        for set in &live.groups {
            self.leave_group(set, name);
        }
        for set in &live.lists {
            self.leave_list(set, name);
        }
        for set in &live.constants {
            self.release_constant(set);
        }
        self.retired.extend(live.parts);
        let surplus = self.retired.len().saturating_sub(RETIRED);
        drop(self.retired.drain(..surplus));
    }

    /// One more looks at a set that never changes.
    pub(super) fn keep_constant(&mut self, name: &SetName, set: &Set) {
        *self.constants.entry(name.clone()).or_default() += 1;
        self.recorder.put_set(name, set.spec);
        for (key, value) in set.iter() {
            self.recorder.put(name, key.clone(), value);
        }
    }

    /// One less; the last takes the set along.
    pub(super) fn release_constant(&mut self, name: &SetName) {
        let Some(users) = self.constants.get_mut(name) else { return };
        *users -= 1;
        if *users == 0 {
            self.constants.remove(name);
            self.recorder.drop_set(name);
        }
    }

    fn put_verdicts(&mut self, address: IpAddr, local: Option<&Local>) {
        let family = Family::of(&address);
        for direction in Direction::BOTH {
            let map = names::verdicts(direction, family, self.base.size(family));
            let key = Key::Address(address);
            match local {
                Some(local) => self.recorder.put(&map, key, Value::Verdict(local.verdict(direction).clone())),
                None => self.recorder.take(&map, &key),
            }
        }
    }

    fn put_hairpin(&mut self, address: IpAddr, owned: bool) {
        let (set, key) = (names::hairpin(Family::of(&address)), Key::Pair(address, address));
        if owned {
            self.recorder.put(&set, key, Value::Member);
        } else {
            self.recorder.take(&set, &key);
        }
    }

    /// The verdict maps of a family got another size: fill the new ones, drop the old.
    pub(super) fn move_verdicts(&mut self, family: Family, old_size: u32) {
        let locals: Vec<(IpAddr, Local)> = self
            .locals
            .iter()
            .filter(|(address, _)| Family::of(address) == family)
            .map(|(address, local)| (*address, local.clone()))
            .collect();
        for (address, local) in locals {
            self.put_verdicts(address, Some(&local));
        }
        for direction in Direction::BOTH {
            self.recorder.drop_set(&names::verdicts(direction, family, old_size));
        }
    }

    /// Interfaces changed: every set of interfaces anew.
    pub(super) fn sync_links(&mut self) {
        let mut isolated = plan::Isolated::default();
        for (address, local) in &self.locals {
            isolated.note(*address, &local.ingress, &local.egress);
        }
        for (set, links) in plan::links(&self.cluster, &isolated) {
            self.sync_set(&set, &links.into_iter().map(Key::Link).collect());
        }
    }

    /// One address changed: is its interface one of an isolated pod?
    fn guard_link(&mut self, address: IpAddr) {
        let Some(attachment) = self.cluster.links().attachments.get(&address) else { return };
        let link = attachment.link.clone();
        let exclusive = self.cluster.is_exclusive(&link);
        let shut = |address: &IpAddr| {
            self.locals.get(address).is_some_and(|local| {
                plan::isolates(&local.egress) || (!exclusive && plan::isolates(&local.ingress))
            })
        };
        let guarded = self.cluster.on_link(&link).any(shut);
        let set = if exclusive { names::guarded_links() } else { names::shared_links() };
        if guarded {
            self.recorder.put(&set, Key::Link(link), Value::Member);
        } else {
            self.recorder.take(&set, &Key::Link(link));
        }
    }
}

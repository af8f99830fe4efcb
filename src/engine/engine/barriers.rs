//! Bans and doors of Services, kept up to date: each change touches the addresses and doors it is about.
mod behind;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use podwall_ruleset::{Chain, ChainName, Deadline, Family, Key, Set, SetName, SetSpec, Value};

use crate::change::Change;
use crate::compile::bans::{self, Present};
use crate::compile::base::Barriers;
use crate::compile::{exposures, names};
use crate::model::{Ban, BanId, Exposure, Named, NodeName, Pod, Service, Text};
use crate::options::Options;
use crate::recheck::Barred;
use crate::resolve::bans::{Kind, Manner, Pen, Place, Spared, Touched, manners};
use crate::resolve::exposures::{self as openings, Door, Guard};

use super::Engine;

/// What is asked of every new packet beside the policies of pods.
#[derive(Debug, Default)]
pub(super) struct State {
    place: Place,
    spared: Spared,
    /// How many nodes have each address.
    nodes: BTreeMap<IpAddr, usize>,
    pens: BTreeMap<Manner, Pen>,
    /// In which manners each ban is enforced now.
    admitted: BTreeMap<BanId, Vec<Manner>>,
    /// When which of them ends.
    ends: BTreeSet<(Deadline, BanId)>,
    banned: Present,
    doors: BTreeMap<Named, BTreeSet<(Door, Guard)>>,
    /// How many Services hold each door.
    holders: BTreeMap<(Guard, Door), usize>,
    guarded: exposures::Present,
    /// What was there when the rules were written last.
    written: (Present, exposures::Present, BTreeSet<ChainName>),
    chains: BTreeMap<ChainName, Chain>,
    constants: BTreeMap<SetName, Set>,
    /// Somebody is refused who was not before.
    pub(super) tighter: Barred,
}

/// A set of bans.
#[derive(Debug, Clone, Copy)]
pub struct BannedSet<'p> {
    pen: &'p Pen,
    kind: Kind,
}

impl<'p> BannedSet<'p> {
    /// The bans that an element stands for; several that overlap share it (decision B2).
    pub fn behind(&self, key: &Key) -> BTreeSet<&'p BanId> {
        self.pen.behind(self.kind, key)
    }
}

impl State {
    pub(super) fn new(options: &Options) -> Self {
        Self { spared: Spared::of_networks(&options.never_banned), ..Self::default() }
    }

    pub(super) fn barriers(&self) -> Barriers {
        let (arrivals, departures) = bans::barriers(&self.written.0);
        Barriers { arrivals, departures, exposed: !self.guarded.is_empty() }
    }

    /// When the next ban ends.
    pub(super) fn next_end(&self) -> Option<Deadline> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Is the address never banned?
    pub(super) fn spares(&self, address: IpAddr) -> bool {
        self.spared.holds(address)
    }

    /// Is the ban in force just now?
    pub(super) fn enforces(&self, ban: &BanId) -> bool {
        self.admitted.contains_key(ban)
    }
}

impl Engine {
    pub(super) fn ban(&mut self, ban: Ban) {
        if self.cluster.ban(&ban.id).is_some_and(|known| **known == ban) {
            return;
        }
        let id = ban.id.clone();
        self.release_ban(&id);
        self.cluster.apply(Change::Ban(ban));
        self.admit_ban(&id);
    }

    pub(super) fn ban_gone(&mut self, id: BanId) {
        self.release_ban(&id);
        self.cluster.apply(Change::BanGone(id));
    }

    pub(super) fn clock(&mut self, now: Deadline) {
        self.forget_ended(now);
        let now = self.cluster.clock();
        while let Some((_, id)) = self.barriers.ends.first().filter(|(end, _)| *end <= now).cloned() {
            self.release_ban(&id);
        }
    }

    fn admit_ban(&mut self, id: &BanId) {
        let Some(ban) = self.cluster.ban(id).cloned() else { return };
        let manners = manners(&ban, &self.barriers.place, self.cluster.clock());
        if manners.is_empty() {
            return;
        }
        for manner in &manners {
            let touched = self.barriers.pens.entry(manner.clone()).or_default().admit(&ban, manner.way);
            self.write_pen(manner, &touched);
        }
        self.barriers.ends.extend(ban.ends.map(|end| (end, id.clone())));
        self.barriers.admitted.insert(id.clone(), manners);
    }

    fn release_ban(&mut self, id: &BanId) {
        let Some(manners) = self.barriers.admitted.remove(id) else { return };
        let Some(ban) = self.cluster.ban(id).cloned() else { return };
        if let Some(end) = ban.ends {
            self.barriers.ends.remove(&(end, id.clone()));
        }
        for manner in &manners {
            let Some(pen) = self.barriers.pens.get_mut(manner) else { continue };
            let touched = pen.retire(&ban, manner.way);
            self.write_pen(manner, &touched);
            if self.barriers.pens.get(manner).is_some_and(Pen::is_empty) {
                self.barriers.pens.remove(manner);
            }
        }
    }

    /// Brings the sets of a manner up to date where they may have changed.
    fn write_pen(&mut self, manner: &Manner, touched: &Touched) {
        for address in &touched.singles {
            let pen = self.barriers.pens.get(manner);
            let value = pen.and_then(|pen| pen.single(*address, &self.barriers.spared));
            let set = bans::set(manner, Family::of(address), Kind::Singles);
            self.hold(&set, &Key::Address(*address), value);
        }
        for (family, kind) in &touched.blocks {
            let pen = self.barriers.pens.get(manner);
            let ranges = pen.map(|pen| pen.ranges(*family, *kind, &self.barriers.spared));
            self.fill(&bans::set(manner, *family, *kind), &ranges.unwrap_or_default());
        }
        let singles = touched.singles.iter().map(|address| (Family::of(address), Kind::Singles));
        let sets: BTreeSet<(Family, Kind)> = singles.chain(touched.blocks.iter().copied()).collect();
        for (family, kind) in sets {
            let (name, _) = bans::set(manner, family, kind);
            let entry = (manner.clone(), family, kind);
            if self.recorder.ruleset().sets.contains_key(&name) {
                self.barriers.banned.insert(entry);
            } else {
                self.barriers.banned.remove(&entry);
            }
        }
    }

    /// One element of a set that is there while it holds something.
    fn hold(&mut self, (name, spec): &(SetName, SetSpec), key: &Key, value: Option<Value>) {
        let Some(value) = value else {
            self.recorder.take(name, key);
            return self.drop_if_empty(name);
        };
        let new = self.recorder.ruleset().sets.get(name).is_none_or(|set| set.get(key).is_none());
        if new {
            self.barriers.tighter = Barred::Tighter;
        }
        self.recorder.put_set(name, *spec);
        self.recorder.put(name, key.clone(), value);
    }

    /// All elements of such a set.
    fn fill(&mut self, (name, spec): &(SetName, SetSpec), wanted: &BTreeSet<Key>) {
        self.recorder.put_set(name, *spec);
        let held = self.recorder.ruleset().sets.get(name);
        if wanted.iter().any(|key| held.is_none_or(|set| set.get(key).is_none())) {
            self.barriers.tighter = Barred::Tighter;
        }
        self.sync_set(name, wanted);
        self.drop_if_empty(name);
    }

    fn drop_if_empty(&mut self, name: &SetName) {
        if self.recorder.ruleset().sets.get(name).is_some_and(|set| set.is_empty()) {
            self.recorder.drop_set(name);
        }
    }

    /// A node came, changed or went: who is spared, which bans are meant here, who is inside.
    pub(super) fn node_changed(&mut self, name: &NodeName, old: &[IpAddr]) {
        let new = self.cluster.node(name).map(|node| node.addresses.clone()).unwrap_or_default();
        for address in &new {
            *self.barriers.nodes.entry(*address).or_default() += 1;
        }
        for address in old {
            if let Some(count) = self.barriers.nodes.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.barriers.nodes.remove(address);
                }
            }
        }
        let either: BTreeSet<IpAddr> = new.into_iter().chain(old.iter().copied()).collect();
        self.respare(&either);
        for address in &either {
            self.know_node(*address);
        }
        if *name == self.node {
            self.place_changed();
        }
    }

    pub(super) fn api_servers(&mut self, addresses: BTreeSet<IpAddr>) {
        let either = self.cluster.api_servers() | &addresses;
        self.cluster.apply(Change::ApiServers(addresses));
        self.respare(&either);
    }

    fn place_changed(&mut self) {
        let place = Place::of(&self.cluster, &self.node);
        if place == self.barriers.place {
            return;
        }
        self.barriers.place = place;
        let all: Vec<BanId> = self.cluster.bans().map(|ban| ban.id.clone()).collect();
        for id in &all {
            self.release_ban(id);
            self.admit_ban(id);
        }
    }

    /// Looks at addresses again that may have become spared, or ceased to be.
    fn respare(&mut self, addresses: &BTreeSet<IpAddr>) {
        let of_node = |address: &IpAddr| self.barriers.nodes.contains_key(address);
        let spared = |address: &IpAddr| of_node(address) || self.cluster.api_servers().contains(address);
        let (now, no_longer): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) =
            addresses.iter().partition(|address| spared(address));
        let changed = self.barriers.spared.change(&now, &no_longer);
        let pens = self.barriers.pens.iter().filter(|_| !changed.is_empty());
        let concerned: Vec<(Manner, Touched)> =
            pens.map(|(manner, pen)| (manner.clone(), pen.among(&changed))).collect();
        for (manner, touched) in concerned {
            self.write_pen(&manner, &touched);
        }
    }

    pub(super) fn service(&mut self, service: Service) {
        let id = service.id.clone();
        self.cluster.apply(Change::Service(service));
        self.refresh_doors(&id);
    }

    pub(super) fn service_gone(&mut self, id: &Named) {
        self.cluster.apply(Change::ServiceGone(id.clone()));
        self.refresh_doors(id);
    }

    pub(super) fn exposure(&mut self, exposure: Exposure) {
        let namespace = Text::clone(&exposure.id.namespace);
        self.cluster.apply(Change::Exposure(exposure));
        self.refresh_namespace(&namespace);
    }

    pub(super) fn exposure_gone(&mut self, id: Named) {
        let namespace = Text::clone(&id.namespace);
        self.cluster.apply(Change::ExposureGone(id));
        self.refresh_namespace(&namespace);
    }

    /// A pod came, changed or went: the node may answer for other ports.
    pub(super) fn host_ports_changed(&mut self, pods: &[Option<std::sync::Arc<Pod>>]) {
        let namespaces: BTreeSet<Text> = pods
            .iter()
            .flatten()
            .filter(|pod| !pod.host_ports.is_empty() && pod.node.as_ref() == Some(&self.node))
            .map(|pod| Text::clone(&pod.namespace))
            .collect();
        namespaces.iter().for_each(|namespace| self.refresh_namespace(namespace));
    }

    fn refresh_namespace(&mut self, namespace: &Text) {
        let services: Vec<Named> =
            self.cluster.services_in(namespace).map(|service| service.id.clone()).collect();
        services.iter().for_each(|service| self.refresh_doors(service));
    }

    fn refresh_doors(&mut self, id: &Named) {
        let service = self.cluster.service(id);
        let new =
            service.map(|service| openings::doors(&self.cluster, &self.node, service)).unwrap_or_default();
        let old = self.barriers.doors.remove(id).unwrap_or_default();
        for (door, guard) in new.difference(&old) {
            self.barriers.holders.entry((guard.clone(), *door)).and_modify(|count| *count += 1).or_insert(1);
            self.write_door(door, guard);
        }
        for (door, guard) in old.difference(&new) {
            let entry = (guard.clone(), *door);
            if let Some(count) = self.barriers.holders.get_mut(&entry) {
                *count -= 1;
                if *count == 0 {
                    self.barriers.holders.remove(&entry);
                }
            }
            self.write_door(door, guard);
        }
        if !new.is_empty() {
            self.barriers.doors.insert(id.clone(), new);
        }
    }

    fn write_door(&mut self, door: &Door, guard: &Guard) {
        let (doors, key) = exposures::key(door);
        let set = exposures::set(guard, doors);
        let held = self.barriers.holders.contains_key(&(guard.clone(), *door));
        self.hold(&set, &key, held.then_some(Value::Member));
        let entry = (guard.clone(), doors);
        if self.recorder.ruleset().sets.contains_key(&set.0) {
            self.barriers.guarded.insert(entry);
        } else {
            self.barriers.guarded.remove(&entry);
        }
    }

    /// The rules, if there is something else to ask than when they were written last.
    pub(super) fn rewrite_barriers(&mut self) {
        let refused = self.cluster.refused().clone();
        let banned = bans::enforceable(&self.barriers.banned, &refused);
        let wanted = (banned, self.barriers.guarded.clone(), refused);
        if wanted == self.barriers.written {
            return;
        }
        let (banned, guarded, refused) = &self.barriers.written;
        // Sets that stood unasked, because the kernel had refused their chains, may be asked from now on; doors whose
        // keeper it refuses are shut.
        let same_doors = wanted.1.is_subset(guarded) && (wanted.1.is_empty() || wanted.2 == *refused);
        if !(wanted.0.is_subset(banned) && same_doors) {
            self.barriers.tighter = Barred::Tighter;
        }
        let bans::BanRules { mut chains, mut constants } = bans::rules(&wanted.0, &self.options);
        let doors = exposures::rules(&wanted.1, &wanted.2, &self.options);
        chains.extend(doors.chains);
        constants.extend(doors.constants);
        match (self.barriers.written.1.is_empty(), wanted.1.is_empty()) {
            (true, false) => self.know_inside(),
            (false, true) => self.forget_inside(),
            (true, true) | (false, false) => {}
        }
        self.exchange_constants(constants);
        for (name, chain) in &chains {
            if self.barriers.chains.get(name) != Some(chain) {
                self.recorder.put_chain(name, chain.clone());
            }
        }
        let old = std::mem::replace(&mut self.barriers.chains, chains);
        for name in old.keys().filter(|name| !self.barriers.chains.contains_key(*name)) {
            self.recorder.drop_chain(name);
        }
        self.barriers.written = wanted;
    }

    /// Whoever is inside the cluster is asked at no door: every pod of it, and every node.
    fn know_inside(&mut self) {
        for family in Family::BOTH {
            self.join_group(&exposures::pods(), family, &names::exposed());
            let (name, spec) = exposures::nodes(family);
            self.recorder.put_set(&name, spec);
        }
        let nodes: Vec<IpAddr> = self.barriers.nodes.keys().copied().collect();
        nodes.into_iter().for_each(|address| self.know_node(address));
    }

    fn forget_inside(&mut self) {
        for family in Family::BOTH {
            let (pods, _) = exposures::pods().set(family);
            self.leave_group(&pods, &names::exposed());
            self.recorder.drop_set(&names::nodes(family));
        }
    }

    /// An address that is a node's now, or no longer.
    fn know_node(&mut self, address: IpAddr) {
        let (name, key) = (names::nodes(Family::of(&address)), Key::Address(address));
        if !self.recorder.ruleset().sets.contains_key(&name) {
            return;
        }
        if self.barriers.nodes.contains_key(&address) {
            self.recorder.put(&name, key, Value::Member);
        } else {
            self.recorder.take(&name, &key);
            self.barriers.tighter = Barred::Tighter;
        }
    }

    fn exchange_constants(&mut self, constants: BTreeMap<SetName, Set>) {
        for (name, set) in &constants {
            if !self.barriers.constants.contains_key(name) {
                self.keep_constant(name, set);
            }
        }
        let old = std::mem::replace(&mut self.barriers.constants, constants);
        let gone: Vec<SetName> =
            old.into_keys().filter(|name| !self.barriers.constants.contains_key(name)).collect();
        gone.iter().for_each(|name| self.release_constant(name));
    }
}

//! Bans and guarded doors of one node from scratch.
use std::collections::{BTreeMap, BTreeSet};

use podwall_ruleset::{ChainName, Family, Key, Set, SetName, SetSpec, Value};

use crate::cluster::Cluster;
use crate::compile::bans::{self, BanRules};
use crate::compile::base::Barriers;
use crate::compile::exposures::{self, DoorRules};
use crate::model::NodeName;
use crate::options::Options;
use crate::resolve::bans::{Kind, Spared, pens};
use crate::resolve::exposures::all_doors;

use super::Planner;

/// What is asked of every new packet beside the policies of pods.
#[derive(Default)]
pub(super) struct Fence {
    barriers: Barriers,
    sets: BTreeMap<SetName, (SetSpec, BTreeMap<Key, Value>)>,
    bans: BanRules,
    doors: DoorRules,
}

impl Fence {
    pub(super) fn of(cluster: &Cluster, node: &NodeName, options: &Options) -> Self {
        let mut fence = Self::default();
        let (spared, mut present) = (Spared::of(cluster, &options.never_banned), BTreeSet::new());
        for (manner, pen) in pens(cluster, node) {
            for (family, kind) in
                Family::BOTH.into_iter().flat_map(|family| Kind::ALL.map(|kind| (family, kind)))
            {
                let elements: BTreeMap<Key, Value> = match kind {
                    Kind::Singles => pen.singles(family, &spared).collect(),
                    Kind::Blocks | Kind::Wide => members(pen.ranges(family, kind, &spared)).collect(),
                };
                if !elements.is_empty() {
                    let (name, spec) = bans::set(&manner, family, kind);
                    fence.sets.insert(name, (spec, elements));
                    present.insert((manner.clone(), family, kind));
                }
            }
        }
        let present = bans::enforceable(&present, cluster.refused());
        fence.bans = bans::rules(&present, options);
        let (arrivals, departures) = bans::barriers(&present);
        fence.barriers = Barriers { arrivals, departures, exposed: false };
        fence.guard(cluster, node, options);
        fence
    }

    fn guard(&mut self, cluster: &Cluster, node: &NodeName, options: &Options) {
        let mut present = BTreeSet::new();
        for (door, guard) in all_doors(cluster, node).into_values().flatten() {
            let (doors, key) = exposures::key(&door);
            let (name, spec) = exposures::set(&guard, doors);
            self.sets.entry(name).or_insert_with(|| (spec, BTreeMap::new())).1.insert(key, Value::Member);
            present.insert((guard, doors));
        }
        self.barriers.exposed = !present.is_empty();
        self.doors = exposures::rules(&present, cluster.refused(), options);
        for family in Family::BOTH.into_iter().filter(|_| !present.is_empty()) {
            let (name, spec) = exposures::nodes(family);
            self.sets.insert(name, (spec, members(exposures::node_keys(cluster, family)).collect()));
        }
    }

    pub(super) const fn barriers(&self) -> Barriers {
        self.barriers
    }
}

fn members(keys: BTreeSet<Key>) -> impl Iterator<Item = (Key, Value)> {
    keys.into_iter().map(|key| (key, Value::Member))
}

impl Planner<'_> {
    pub(super) fn fence(&mut self, fence: Fence) {
        if fence.barriers.exposed {
            for family in Family::BOTH {
                let (set, spec) = exposures::pods().set(family);
                self.group(&exposures::pods(), family, &set, spec);
            }
        }
        for (name, (spec, elements)) in fence.sets {
            self.set(&name, spec, elements.into_iter());
        }
        for (name, set) in fence.bans.constants.into_iter().chain(fence.doors.constants) {
            self.constant(&name, &set);
        }
        let chains = fence.bans.chains.into_iter().chain(fence.doors.chains);
        chains.for_each(|(name, chain): (ChainName, _)| self.recorder.put_chain(&name, chain));
    }

    fn constant(&mut self, name: &SetName, set: &Set) {
        self.set(name, set.spec, set.iter().map(|(key, value)| (key.clone(), value)));
    }

    fn set(&mut self, name: &SetName, spec: SetSpec, elements: impl Iterator<Item = (Key, Value)>) {
        self.recorder.put_set(name, spec);
        elements.for_each(|(key, value)| self.recorder.put(name, key, value));
    }
}

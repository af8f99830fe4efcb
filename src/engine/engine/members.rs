//! Who is in which group. A group lives as long as a chain of this node points to it.
use std::collections::BTreeSet;
use std::net::IpAddr;

use podwall_ruleset::{ChainName, Family, Key, SetName, SetSpec, Value};

use crate::model::{Pod, Text};
use crate::resolve::Group;

use super::Engine;
use super::locals::LiveChain;

/// A group with a set in the kernel.
#[derive(Debug)]
pub(super) struct LiveGroup {
    group: Group,
    family: Family,
    /// Chains that look at it.
    pub(super) users: BTreeSet<ChainName>,
}

impl Engine {
    /// The address went from one pod to another (or its pod changed): what is it a member of now?
    pub(super) fn refresh_members(&mut self, address: IpAddr, old: Option<&Pod>, new: Option<&Pod>) {
        let nothing = BTreeSet::new();
        let covering =
            |pod: Option<&Pod>| pod.and_then(|pod| self.covering.get(&pod.namespace)).unwrap_or(&nothing);
        let (before, after) = (covering(old), covering(new));
        let mut edits = Vec::new();
        // Usually one and the same set of groups; most of them have nothing to do with the pod.
        for set in before.union(after) {
            let Some(live) = self.groups.get(set).filter(|live| live.family == Family::of(&address)) else {
                continue;
            };
            let keys = |pod: Option<&Pod>, covering: &BTreeSet<SetName>| match pod {
                Some(pod) if covering.contains(set) => live.group.keys(pod, address),
                Some(_) | None => Vec::new(),
            };
            let (was, is) = (keys(old, before), keys(new, after));
            if was != is {
                edits.push((set.clone(), was, is));
            }
        }
        for (set, was, is) in edits {
            self.exchange(&set, &was, &is);
        }
    }

    fn exchange(&mut self, set: &SetName, was: &[Key], is: &[Key]) {
        for key in was.iter().filter(|key| !is.contains(key)) {
            self.recorder.take(set, key);
            self.tighten_users(set, |_| true);
        }
        for key in is.iter().filter(|key| !was.contains(key)) {
            self.recorder.put(set, key.clone(), Value::Member);
            self.tighten_users(set, LiveChain::may_deny_peers);
        }
    }

    /// Every pod with such a chain that looks at the set.
    fn tighten_users(&mut self, set: &SetName, concerned: impl Fn(&LiveChain) -> bool) {
        let Some(live) = self.groups.get(set) else { return };
        let chains =
            live.users.iter().filter_map(|chain| self.chains.get(chain)).filter(|chain| concerned(chain));
        self.tightened.extend(chains.flat_map(|chain| chain.users.iter().copied()));
    }

    /// A namespace got its first pod: find the groups that look into it.
    pub(super) fn cover_namespace(&mut self, namespace: &Text) {
        if !self.covering.contains_key(namespace) {
            let sets = self.sets_covering(namespace);
            self.covering.insert(namespace.clone(), sets);
        }
    }

    fn sets_covering(&self, namespace: &Text) -> BTreeSet<SetName> {
        let labels = self.cluster.namespace(namespace);
        let covers = |live: &LiveGroup| live.group.covers_namespace(namespace, labels);
        self.groups.iter().filter(|(_, live)| covers(live)).map(|(set, _)| set.clone()).collect()
    }

    /// Labels of a namespace changed: groups may have begun or ceased to look into it.
    pub(super) fn recover_namespace(&mut self, namespace: &Text) {
        let Some(was) = self.covering.get(namespace).cloned() else { return };
        let is = self.sets_covering(namespace);
        for set in was.difference(&is) {
            let keys = self.keys_of_namespace(set, namespace);
            self.exchange(set, &keys, &[]);
        }
        for set in is.difference(&was) {
            let keys = self.keys_of_namespace(set, namespace);
            self.exchange(set, &[], &keys);
        }
        self.covering.insert(namespace.clone(), is);
    }

    /// All keys the owners of addresses in a namespace bring to a group.
    fn keys_of_namespace(&self, set: &SetName, namespace: &str) -> Vec<Key> {
        let Some(live) = self.groups.get(set) else { return Vec::new() };
        let mut keys = Vec::new();
        for pod in self.cluster.pods_in(namespace).filter(|pod| pod.counts()) {
            for address in pod.addresses.iter().filter(|address| Family::of(address) == live.family) {
                if self.cluster.owner(*address).is_some_and(|owner| owner.uid == pod.uid) {
                    keys.extend(live.group.keys(pod, *address));
                }
            }
        }
        keys
    }

    /// A chain begins to look at a group.
    pub(super) fn join_group(&mut self, group: &Group, family: Family, chain: &ChainName) -> SetName {
        let (set, spec) = group.set(family);
        if !self.groups.contains_key(&set) {
            self.add_group(group, family, &set, spec);
        }
        if let Some(live) = self.groups.get_mut(&set) {
            live.users.insert(chain.clone());
        }
        set
    }

    fn add_group(&mut self, group: &Group, family: Family, set: &SetName, spec: SetSpec) {
        let live = LiveGroup { group: group.clone(), family, users: BTreeSet::new() };
        self.groups.insert(set.clone(), live);
        self.recorder.put_set(set, spec);
        let namespaces: Vec<Text> = self.cluster.inhabited().cloned().collect();
        for namespace in namespaces {
            if !group.covers_namespace(&namespace, self.cluster.namespace(&namespace)) {
                continue;
            }
            self.covering.entry(namespace.clone()).or_default().insert(set.clone());
            for key in self.keys_of_namespace(set, &namespace) {
                self.recorder.put(set, key, Value::Member);
            }
        }
    }

    /// A chain no longer looks at a group; the last one takes the set along.
    pub(super) fn leave_group(&mut self, set: &SetName, chain: &ChainName) {
        let Some(live) = self.groups.get_mut(set) else { return };
        live.users.remove(chain);
        if live.users.is_empty() {
            self.groups.remove(set);
            self.recorder.drop_set(set);
            for sets in self.covering.values_mut() {
                sets.remove(set);
            }
        }
    }
}

//! Who is in which group. A group lives as long as a chain of this node points to it.
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use podwall_ruleset::{ChainName, Family, Key, SetName, SetSpec, Value};

use crate::cluster::Cluster;
use crate::compile::names;
use crate::model::{Labels, Pod, Text};
use crate::recheck::Barred;
use crate::resolve::Group;

use super::Engine;
use super::locals::LiveChain;
use super::reach::Anchor;

/// A group with a set in the kernel.
#[derive(Debug)]
pub(super) struct LiveGroup {
    group: Group,
    family: Family,
    /// Where it hangs in the reach.
    anchors: Vec<Anchor>,
    /// Chains that look at it.
    pub(super) users: BTreeSet<ChainName>,
}

impl LiveGroup {
    /// What the pod brings to the group through one of its addresses.
    fn keys(&self, cluster: &Cluster, pod: &Pod, address: IpAddr) -> Vec<Key> {
        if self.group.covers_namespace(&pod.namespace, cluster.namespace(&pod.namespace)) {
            self.group.keys(pod, address)
        } else {
            Vec::new()
        }
    }

    /// The pods among which all its members are.
    fn candidates<'a>(&'a self, cluster: &'a Cluster) -> Box<dyn Iterator<Item = &'a Arc<Pod>> + 'a> {
        match self.anchors.first() {
            None => Box::new(std::iter::empty()),
            Some(Anchor::Home(home) | Anchor::HomeLabel(home, ..)) => Box::new(cluster.pods_in(home)),
            Some(Anchor::Label(..)) => Box::new(self.anchors.iter().flat_map(|anchor| match anchor {
                Anchor::Label(key, value) => cluster.pods_labelled(key, value).collect(),
                Anchor::HomeLabel(..) | Anchor::Home(_) | Anchor::SpaceLabel(..) | Anchor::Anything => vec![],
            })),
            Some(Anchor::SpaceLabel(..) | Anchor::Anything) => {
                let covered = |name: &&Text| self.group.covers_namespace(name, cluster.namespace(name));
                Box::new(cluster.inhabited().filter(covered).flat_map(|name| cluster.pods_in(name)))
            }
        }
    }
}

impl Engine {
    /// The address went from one pod to another (or its pod changed): what is it a member of now?
    pub(super) fn refresh_members(&mut self, address: IpAddr, old: Option<&Pod>, new: Option<&Pod>) {
        let (cluster, reach) = (&self.cluster, &self.reach);
        let possible = |pod| reach.of(pod, cluster.namespace(&pod.namespace));
        let sets: BTreeSet<&SetName> = [old, new].into_iter().flatten().flat_map(possible).collect();
        let mut edits = Vec::new();
        for set in sets {
            let Some(live) = self.groups.get(set).filter(|live| live.family == Family::of(&address)) else {
                continue;
            };
            let keys =
                |pod: Option<&Pod>| pod.map(|pod| live.keys(cluster, pod, address)).unwrap_or_default();
            let (was, is) = (keys(old), keys(new));
            if was != is {
                edits.push((set.clone(), was, is));
            }
        }
        for (set, was, is) in edits {
            self.exchange(&set, &was, &is);
        }
    }

    fn exchange(&mut self, set: &SetName, was: &[Key], is: &[Key]) {
        let left: Vec<&Key> = was.iter().filter(|key| !is.contains(key)).collect();
        let joined: Vec<&Key> = is.iter().filter(|key| !was.contains(key)).collect();
        left.iter().for_each(|key| self.recorder.take(set, key));
        joined.iter().for_each(|key| self.recorder.put(set, (*key).clone(), Value::Member));
        self.tighten(set, &left, LiveChain::refuses);
        self.tighten(set, &joined, LiveChain::may_deny_peers);
        if !left.is_empty() {
            self.tighten_doors(set);
        }
    }

    /// Whoever is no longer inside the cluster is asked at its doors.
    fn tighten_doors(&mut self, set: &SetName) {
        if self.groups.get(set).is_some_and(|live| live.users.contains(&names::exposed())) {
            self.barriers.tighter = Barred::Tighter;
        }
    }

    /// Only flows between these peers and the pods with such a chain that looks at the set can be concerned: whichever
    /// are fewer are named.
    fn tighten(&mut self, set: &SetName, peers: &[&Key], concerned: impl Fn(&LiveChain) -> bool) {
        let Some(live) = self.groups.get(set) else { return };
        let chains =
            live.users.iter().filter_map(|chain| self.chains.get(chain)).filter(|chain| concerned(chain));
        let users: BTreeSet<IpAddr> = chains.flat_map(|chain| chain.users.iter().copied()).collect();
        let peers: BTreeSet<IpAddr> = peers.iter().filter_map(|key| key.address()).collect();
        self.tightened.extend(if users.len() < peers.len() { users } else { peers });
    }

    /// Labels of a namespace changed: groups may have begun or ceased to look into it.
    pub(super) fn recover_namespace(&mut self, namespace: &Text, old: Option<&Labels>) {
        let new = self.cluster.namespace(namespace);
        let covers = |live: &LiveGroup, labels| live.group.covers_namespace(namespace, labels);
        let moved = self.groups.iter().filter(|(_, live)| covers(live, old) != covers(live, new));
        let (joined, left): (Vec<_>, Vec<_>) = moved.partition(|(_, live)| covers(live, new));
        let names = |groups: Vec<(&SetName, &LiveGroup)>| -> Vec<SetName> {
            groups.into_iter().map(|(set, _)| set.clone()).collect()
        };
        let (joined, left) = (names(joined), names(left));
        for set in left {
            let keys = self.keys_of_namespace(&set, namespace);
            self.exchange(&set, &keys, &[]);
        }
        for set in joined {
            let keys = self.keys_of_namespace(&set, namespace);
            self.exchange(&set, &[], &keys);
        }
    }

    /// All keys the owners of addresses in a namespace bring to a group.
    fn keys_of_namespace(&self, set: &SetName, namespace: &str) -> Vec<Key> {
        let Some(live) = self.groups.get(set) else { return Vec::new() };
        self.keys_of(live, self.cluster.pods_in(namespace))
    }

    /// All keys the pods bring to a group, where they own their addresses; whether it covers them is not asked.
    fn keys_of<'a>(&self, live: &LiveGroup, pods: impl Iterator<Item = &'a Arc<Pod>>) -> Vec<Key> {
        let mut keys = Vec::new();
        for pod in pods.filter(|pod| pod.counts()) {
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
        let anchors = self.reach.add(group, set);
        let live = LiveGroup { group: group.clone(), family, anchors, users: BTreeSet::new() };
        self.recorder.put_set(set, spec);
        let covered =
            |pod: &&Arc<Pod>| group.covers_namespace(&pod.namespace, self.cluster.namespace(&pod.namespace));
        let keys = self.keys_of(&live, live.candidates(&self.cluster).filter(covered));
        for key in keys {
            self.recorder.put(set, key, Value::Member);
        }
        self.groups.insert(set.clone(), live);
    }

    /// A chain no longer looks at a group; the last one takes the set along.
    pub(super) fn leave_group(&mut self, set: &SetName, chain: &ChainName) {
        let Some(live) = self.groups.get_mut(set) else { return };
        live.users.remove(chain);
        if live.users.is_empty() {
            self.reach.remove(&live.anchors, set);
            self.groups.remove(set);
            self.recorder.drop_set(set);
        }
    }
}

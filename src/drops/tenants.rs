//! Who had an address when: addresses are used again within seconds, and a record is read after its packet.
//!
//! The cluster knows who has an address now. Here is kept, for a bounded time and number, who had it before, and since
//! when those have it who came not long ago.
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use podwall_engine::change::OfPod;
use podwall_engine::model::{Pod, PodUid};
use podwall_engine::{Change, Cluster};

use super::places::Places;

/// How long those who left are remembered: longer than any record waits.
const MEMORY: SignedDuration = SignedDuration::from_mins(5);
/// How many of them.
const MOST: usize = 4096;
/// What the kernel still does with an address after its pod was told gone, and what was sent before a new pod's
/// address was told, is a matter of moments.
const SLACK: SignedDuration = SignedDuration::from_secs(30);

/// Who had which address.
#[derive(Debug, Default)]
pub struct Tenants {
    /// When those came who came not long ago.
    arrived: BTreeMap<IpAddr, Vec<(PodUid, Timestamp)>>,
    arrivals: VecDeque<(Timestamp, IpAddr)>,
    left: BTreeMap<IpAddr, Vec<Former>>,
    leavings: VecDeque<(Timestamp, IpAddr)>,
    places: Places,
}

/// Somebody who had an address.
#[derive(Debug, Clone)]
struct Former {
    pod: Arc<Pod>,
    from: Timestamp,
    to: Timestamp,
}

/// Whose an address was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenant {
    /// This pod's, for certain.
    Known(Arc<Pod>),
    /// This pod's, unless another one is told of within moments.
    Likely(Arc<Pod>),
    /// Nobody's that we know.
    Nobody,
}

impl Tenants {
    /// Takes note of a change before the cluster does. `beginning`: all is being read for the first time, so nobody
    /// comes just now.
    pub fn note(&mut self, change: &Change, cluster: &Cluster, now: Timestamp, beginning: Beginning) {
        self.forget(now);
        self.places.note(change, cluster);
        match change.of_pod() {
            Some(OfPod::Is(pod)) => self.pod(pod, cluster, now, beginning),
            Some(OfPod::Gone(uid)) => {
                if let Some(old) = cluster.pod(uid) {
                    old.addresses.iter().for_each(|address| self.leave(*address, old, now));
                }
            }
            None => {}
        }
    }

    fn pod(&mut self, pod: &Pod, cluster: &Cluster, now: Timestamp, beginning: Beginning) {
        let old = cluster.pod(&pod.uid);
        let had: &[IpAddr] = old.filter(|old| old.counts()).map_or(&[], |old| &old.addresses);
        let has: &[IpAddr] = if pod.counts() { &pod.addresses } else { &[] };
        if let Some(old) = old {
            had.iter().filter(|address| !has.contains(address)).for_each(|gone| self.leave(*gone, old, now));
        }
        match beginning {
            Beginning::Over => {
                for address in has.iter().filter(|address| !had.contains(address)) {
                    self.arrive(*address, &pod.uid, now);
                }
            }
            Beginning::Reading => {}
        }
        // So short a life that we only hear of its end.
        let brief = !pod.counts() && old.is_none_or(|old| old.addresses.is_empty());
        if brief && pod.network == podwall_engine::model::Network::Own && beginning == Beginning::Over {
            let known = Arc::new(pod.clone());
            pod.addresses.iter().for_each(|address| self.leave(*address, &known, now));
        }
    }

    /// Who has an address that is no pod's own.
    pub(super) const fn places(&self) -> &Places {
        &self.places
    }

    /// Whose the address was at that time.
    pub fn at(&self, cluster: &Cluster, address: IpAddr, at: Timestamp) -> Tenant {
        let owner = cluster.owner(address);
        if let Some(owner) = owner
            && self.since(address, owner).is_none_or(|since| since <= at)
        {
            return Tenant::Known(Arc::clone(owner));
        }
        let former = self.left.get(&address).into_iter().flatten();
        if let Some(then) = former.clone().rev().find(|former| former.from <= at && at <= former.to) {
            return Tenant::Known(Arc::clone(&then.pod));
        }
        // Nobody was known to have it: it may be the next one's, whose address was told late, ...
        if let Some(owner) = owner.filter(|owner| started(owner).is_none_or(|started| started <= at)) {
            return Tenant::Known(Arc::clone(owner));
        }
        // ... or the last one's, who was told gone early.
        let last = former.filter(|former| former.to <= at && at.duration_since(former.to) <= SLACK);
        match last.max_by_key(|former| former.to) {
            Some(last) => Tenant::Likely(Arc::clone(&last.pod)),
            None => owner.cloned().map_or(Tenant::Nobody, Tenant::Likely),
        }
    }

    fn since(&self, address: IpAddr, pod: &Pod) -> Option<Timestamp> {
        let arrived = self.arrived.get(&address)?.iter();
        arrived.filter(|(uid, _)| *uid == pod.uid).map(|(_, since)| *since).next_back()
    }

    fn arrive(&mut self, address: IpAddr, uid: &PodUid, now: Timestamp) {
        self.arrived.entry(address).or_default().push((uid.clone(), now));
        self.arrivals.push_back((now, address));
    }

    fn leave(&mut self, address: IpAddr, pod: &Arc<Pod>, now: Timestamp) {
        // Who was never told to have come, has been here since it started, or always.
        let from = self.since(address, pod).or_else(|| started(pod)).unwrap_or(Timestamp::MIN);
        let formers = self.left.entry(address).or_default();
        if formers.iter().any(|former| former.pod.uid == pod.uid) {
            return;
        }
        formers.push(Former { pod: Arc::clone(pod), from, to: now });
        self.leavings.push_back((now, address));
    }

    fn forget(&mut self, now: Timestamp) {
        let old = |at: Timestamp| now.duration_since(at) > MEMORY;
        while let Some((at, address)) = self.arrivals.front().copied()
            && (old(at) || self.arrivals.len() > MOST)
        {
            self.arrivals.pop_front();
            drop_from(&mut self.arrived, &address, |(_, since)| *since <= at);
        }
        while let Some((at, address)) = self.leavings.front().copied()
            && (old(at) || self.leavings.len() > MOST)
        {
            self.leavings.pop_front();
            drop_from(&mut self.left, &address, |former| former.to <= at);
        }
    }
}

/// Is everything being read for the first time?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// It is.
    Reading,
    /// It was.
    Over,
}

/// The kubelet took it on then, in whole seconds: its address came later.
fn started(pod: &Pod) -> Option<Timestamp> {
    pod.started.as_deref()?.parse().ok()
}

fn drop_from<T>(lists: &mut BTreeMap<IpAddr, Vec<T>>, address: &IpAddr, old: impl Fn(&T) -> bool) {
    if let Some(list) = lists.get_mut(address) {
        list.retain(|one| !old(one));
        if list.is_empty() {
            lists.remove(address);
        }
    }
}

#[cfg(test)]
mod tests;

//! This node's pods against this host's network: which interface each address hangs on, and when the address of a
//! gone pod may be let go.
//!
//! Pure but for the time it is given. Only addresses of local pods are looked up: a host route to anything else (a
//! VPN peer, a metadata service) must not make its interface a pod's.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use podwall_engine::Change;
use podwall_engine::change::OfPod;
use podwall_engine::model::{Attachment, Life, Links, Network, NodeName, Pod, PodUid, Sharing};
use podwall_ruleset::LinkName;
use tokio::time::Instant;

use super::view::{Hanging, View};

/// How long the address of a gone pod stays shut where no interface of its own tells that it is gone (W8): longer
/// than kubelet's default grace period would matter only for pods deleted by force.
const LINGER: Duration = Duration::from_secs(30);

/// How long an interface of its own must be gone before the address is let go: routing daemons take routes away and
/// put them back at once.
const FLAP: Duration = Duration::from_secs(1);

/// How long a live pod may have no interface before that is worth a word: its route follows its address within
/// moments, and after a reboot its address is known before it runs.
const UNSEEN: Duration = Duration::from_secs(30);

/// The local pods and their links.
#[derive(Debug)]
pub struct Locals {
    node: NodeName,
    pods: BTreeMap<PodUid, Local>,
    view: Arc<View>,
    links: Links,
    /// Addresses of live pods that hang on no interface known to be of pods.
    unseen: BTreeMap<IpAddr, Unseen>,
    lingering: BTreeMap<IpAddr, Linger>,
    /// Something came since the last look; most changes in a large cluster are about other nodes.
    fresh: bool,
}

#[derive(Debug)]
struct Local {
    addresses: Vec<IpAddr>,
    life: Life,
}

#[derive(Debug, Clone, Copy)]
struct Linger {
    since: Instant,
    /// It had an interface of its own, whose end is the address's end.
    exclusive: bool,
    /// Since when that has been gone.
    gone: Option<Instant>,
}

impl Linger {
    const fn new(since: Instant) -> Self {
        Self { since, exclusive: false, gone: None }
    }

    /// Whether an interface of its own is there just now.
    fn look(&mut self, is_there: bool, now: Instant) {
        self.exclusive |= is_there;
        self.gone = if is_there { None } else { self.gone.or(Some(now)) };
    }

    /// When the address may be let go; `None`: while its interface stands.
    fn end(&self) -> Option<Instant> {
        let pause = if self.exclusive { FLAP } else { LINGER };
        let from = if self.exclusive { self.gone } else { Some(self.since) };
        from.map(|from| from + pause)
    }
}

/// An address whose interface is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unseen {
    since: Instant,
    /// The bridge it is on, if that leads out of the node too.
    bridge: Option<LinkName>,
}

impl Locals {
    /// No pods and no links yet.
    pub fn new(node: NodeName) -> Self {
        let (pods, unseen, lingering) = Default::default();
        Self { node, pods, view: Arc::default(), links: Links::default(), unseen, lingering, fresh: true }
    }

    /// Takes note of a pod that came, changed or went.
    pub fn object(&mut self, change: &Change) {
        match change.of_pod() {
            Some(OfPod::Is(pod)) if self.is_local(pod) => {
                self.fresh = true;
                let local = Local { addresses: pod.addresses.clone(), life: pod.life };
                self.pods.insert(pod.uid.clone(), local);
            }
            Some(OfPod::Is(Pod { uid, .. }) | OfPod::Gone(uid)) => {
                self.fresh |= self.pods.remove(uid).is_some();
            }
            None => {}
        }
    }

    /// The host's network is as given.
    pub fn view(&mut self, view: Arc<View>) {
        self.view = view;
        self.fresh = true;
    }

    /// What the engine must hear; `held` are the addresses it keeps shut.
    pub fn settle(&mut self, held: &BTreeSet<IpAddr>, now: Instant) -> Vec<Change> {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh {
            self.note_unseen(now);
        } else if held.is_empty() && self.lingering.is_empty() {
            return Vec::new();
        }
        let before = std::mem::take(&mut self.links);
        self.links = self.attached(held);
        let mut changes = Vec::new();
        if self.links != before {
            changes.push(Change::Links(self.links.clone()));
        }
        self.lingering.retain(|address, _| held.contains(address));
        for address in held {
            let linger = self.lingering.entry(*address).or_insert(Linger::new(now));
            linger.exclusive |= is_exclusive(before.attachments.get(address));
            linger.look(is_exclusive(self.links.attachments.get(address)), now);
            if linger.end().is_some_and(|end| now >= end) {
                changes.push(Change::AddressFree(*address));
            }
        }
        changes
    }

    /// When to settle again even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.lingering.values().filter_map(Linger::end).min()
    }

    /// A live pod whose packets podwall may not get to see, or cannot tell from others', in words.
    pub fn unseen(&self, now: Instant) -> Option<String> {
        let (address, unseen) = self.unseen.iter().find(|(_, unseen)| now >= unseen.since + UNSEEN)?;
        Some(match &unseen.bridge {
            Some(bridge) => format!(
                "pod address {address} hangs on bridge {bridge}, which carries a default route too: what its pods \
                 forge passes for the outside's; give pods a bridge of their own"
            ),
            None => format!(
                "no interface of this host leads to pod address {address}: its packets may pass by the rules \
                 (macvlan, ipvlan and a datapath of its own do; routes belong into the main table)"
            ),
        })
    }

    /// Number of local pods that are judged.
    pub fn count(&self) -> usize {
        self.pods.len()
    }

    /// The bridge and the sysctl that let pods' traffic pass by our rules.
    pub fn bypass(&self) -> Option<(LinkName, &'static str)> {
        let attached = self.links.attachments.iter().map(|(address, attachment)| (address, &attachment.link));
        let outward =
            self.unseen.iter().filter_map(|(address, unseen)| Some((address, unseen.bridge.as_ref()?)));
        self.view.bypass(attached.chain(outward))
    }

    /// The bridge on which VLAN-tagged frames pass by our rules.
    pub fn tag_bypass(&self) -> Option<LinkName> {
        let outward = self.unseen.values().filter_map(|unseen| unseen.bridge.as_ref());
        self.view
            .tag_bypass(self.links.attachments.values().map(|attachment| &attachment.link).chain(outward))
    }

    /// Services are in IPVS mode.
    pub fn ipvs(&self) -> bool {
        self.view.ipvs
    }

    fn is_local(&self, pod: &Pod) -> bool {
        pod.node.as_ref() == Some(&self.node) && pod.network == Network::Own && pod.life != Life::Finished
    }

    fn note_unseen(&mut self, now: Instant) {
        let live = self.pods.values().filter(|pod| pod.life == Life::Live);
        let unseen = live.flat_map(|pod| &pod.addresses).filter_map(|address| {
            let bridge = match self.view.hanging(*address) {
                Hanging::On(_) => return None,
                Hanging::Outward(bridge) => Some(bridge),
                Hanging::Nowhere => None,
            };
            let since = self.unseen.get(address).map_or(now, |before| before.since);
            Some((*address, Unseen { since, bridge }))
        });
        self.unseen = unseen.collect();
    }

    fn attached(&self, held: &BTreeSet<IpAddr>) -> Links {
        let addresses = self.pods.values().flat_map(|pod| &pod.addresses).chain(held);
        let attachments = addresses.filter_map(|address| match self.view.hanging(*address) {
            Hanging::On(attachment) => Some((*address, attachment)),
            Hanging::Outward(_) | Hanging::Nowhere => None,
        });
        Links { attachments: attachments.collect() }
    }
}

fn is_exclusive(attachment: Option<&Attachment>) -> bool {
    attachment.is_some_and(|attachment| attachment.sharing == Sharing::Exclusive)
}

#[cfg(test)]
mod tests;

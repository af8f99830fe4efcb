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
use podwall_engine::model::{Attachment, Life, Links, Network, NodeName, Pod, PodUid, Sharing};
use podwall_ruleset::LinkName;
use tokio::time::Instant;

use super::view::{Hanging, View};

/// How long the address of a gone pod stays shut where no interface of its own tells that it is gone (W8): longer
/// than kubelet's default grace period would matter only for pods deleted by force.
const LINGER: Duration = Duration::from_secs(30);

/// The local pods and their links.
#[derive(Debug)]
pub struct Locals {
    node: NodeName,
    pods: BTreeMap<PodUid, Vec<IpAddr>>,
    view: Arc<View>,
    links: Links,
    lingering: BTreeMap<IpAddr, Linger>,
    /// Something came since the last look; most changes in a large cluster are about other nodes.
    fresh: bool,
}

#[derive(Debug, Clone, Copy)]
struct Linger {
    since: Instant,
    /// It had an interface of its own, whose end is the address's end.
    exclusive: bool,
}

impl Locals {
    /// No pods and no links yet.
    pub fn new(node: NodeName) -> Self {
        let (pods, lingering) = (BTreeMap::new(), BTreeMap::new());
        Self { node, pods, view: Arc::default(), links: Links::default(), lingering, fresh: true }
    }

    /// Takes note of a pod that came, changed or went.
    pub fn object(&mut self, change: &Change) {
        match change {
            Change::Pod(pod) if self.is_local(pod) => {
                self.fresh = true;
                self.pods.insert(pod.uid.clone(), pod.addresses.clone());
            }
            Change::Pod(Pod { uid, .. }) | Change::PodGone(uid) => {
                self.fresh |= self.pods.remove(uid).is_some();
            }
            Change::Namespace(..)
            | Change::NamespaceGone(_)
            | Change::Node(_)
            | Change::NodeGone(_)
            | Change::Policy(_)
            | Change::PolicyGone(_)
            | Change::Links(_)
            | Change::AddressFree(_)
            | Change::Watch(_)
            | Change::GraceOver
            | Change::Refused(_) => {}
        }
    }

    /// The host's network is as given.
    pub fn view(&mut self, view: Arc<View>) {
        self.view = view;
        self.fresh = true;
    }

    /// What the engine must hear; `held` are the addresses it keeps shut.
    pub fn settle(&mut self, held: &BTreeSet<IpAddr>, now: Instant) -> Vec<Change> {
        if !std::mem::take(&mut self.fresh) && held.is_empty() && self.lingering.is_empty() {
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
            let was_exclusive = is_exclusive(before.attachments.get(address));
            let linger =
                self.lingering.entry(*address).or_insert(Linger { since: now, exclusive: was_exclusive });
            let has_link = is_exclusive(self.links.attachments.get(address));
            linger.exclusive |= has_link;
            if !has_link && (linger.exclusive || now >= linger.since + LINGER) {
                changes.push(Change::AddressFree(*address));
            }
        }
        changes
    }

    /// When to settle again even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let timed = self.lingering.values().filter(|linger| !linger.exclusive);
        timed.map(|linger| linger.since + LINGER).min()
    }

    /// Number of local pods that are judged.
    pub fn count(&self) -> usize {
        self.pods.len()
    }

    /// The bridge and the sysctl that let pods' traffic pass by our rules.
    pub fn bypass(&self) -> Option<(LinkName, &'static str)> {
        self.view.bypass(&self.links.attachments)
    }

    /// The bridge on which VLAN-tagged frames pass by our rules.
    pub fn tag_bypass(&self) -> Option<LinkName> {
        self.view.tag_bypass(self.links.attachments.values())
    }

    /// Services are in IPVS mode.
    pub fn ipvs(&self) -> bool {
        self.view.ipvs
    }

    fn is_local(&self, pod: &Pod) -> bool {
        pod.node.as_ref() == Some(&self.node) && pod.network == Network::Own && pod.life != Life::Finished
    }

    fn attached(&self, held: &BTreeSet<IpAddr>) -> Links {
        let addresses = self.pods.values().flatten().chain(held);
        let attachments = addresses.filter_map(|address| match self.view.hanging(*address) {
            Hanging::On(attachment) => Some((*address, attachment)),
            Hanging::Nowhere => None,
        });
        Links { attachments: attachments.collect() }
    }
}

fn is_exclusive(attachment: Option<&Attachment>) -> bool {
    attachment.is_some_and(|attachment| attachment.sharing == Sharing::Exclusive)
}

#[cfg(test)]
mod tests;

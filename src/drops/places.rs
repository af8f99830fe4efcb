//! Whose an address is that is no pod's own: a node's, a Service's, or nobody's that we know.
//!
//! Whoever sends packets chooses their addresses, so thousands may have to be looked up in a second; and clusters have
//! thousands of nodes and Services. So they are found by address, and each change touches what it is about.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use podwall_engine::model::{Life, Named, Network, Node, NodeName, Pod, PodUid, Service};
use podwall_engine::{Change, Cluster};
use podwall_ruleset::Protocol;

/// Where everybody is who is no pod with an address of its own.
#[derive(Debug, Default)]
pub(super) struct Places {
    nodes: BTreeMap<IpAddr, BTreeSet<NodeName>>,
    services: BTreeMap<IpAddr, BTreeSet<Named>>,
    /// Pods of their node's own network, by the ports they say they have.
    ports: BTreeMap<(NodeName, Protocol, u16), BTreeSet<PodUid>>,
    /// Who has which range for pods, by the length of its prefix and its first address.
    ranges: BTreeMap<u8, BTreeMap<IpAddr, BTreeSet<NodeName>>>,
}

impl Places {
    /// Takes note of a change before the cluster does.
    pub(super) fn note(&mut self, change: &Change, cluster: &Cluster) {
        match change {
            Change::Pod(pod) => {
                let old = cluster.pod(&pod.uid);
                old.into_iter().for_each(|old| self.close(old));
                // Terminal is final, and what is older than that is no news (W3).
                if old.is_none_or(|old| old.life != Life::Finished) {
                    self.open(pod);
                }
            }
            Change::PodGone(uid) => cluster.pod(uid).into_iter().for_each(|old| self.close(old)),
            Change::Node(node) => {
                cluster.node(&node.name).into_iter().for_each(|old| self.remove_node(old));
                self.add_node(node);
            }
            Change::NodeGone(name) => cluster.node(name).into_iter().for_each(|old| self.remove_node(old)),
            Change::Service(service) => {
                cluster.service(&service.id).into_iter().for_each(|old| self.remove_service(old));
                self.add_service(service);
            }
            Change::ServiceGone(id) => {
                cluster.service(id).into_iter().for_each(|old| self.remove_service(old));
            }
            Change::Namespace(..)
            | Change::NamespaceGone(_)
            | Change::Policy(_)
            | Change::PolicyGone(_)
            | Change::Ban(_)
            | Change::BanGone(_)
            | Change::Exposure(_)
            | Change::ExposureGone(_)
            | Change::ApiServers(_)
            | Change::Clock(_)
            | Change::Learned(_)
            | Change::Links(_)
            | Change::AddressHeld(_)
            | Change::AddressFree(_)
            | Change::Watch(_)
            | Change::GraceOver
            | Change::Refused(_) => {}
        }
    }

    /// The node with this address.
    pub(super) fn node(&self, address: IpAddr) -> Option<&NodeName> {
        self.nodes.get(&address)?.first()
    }

    /// The Service with this address.
    pub(super) fn service(&self, address: IpAddr) -> Option<&Named> {
        self.services.get(&address)?.first()
    }

    /// Is it in a range that some node has for its pods?
    pub(super) fn is_for_pods(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|(length, ranges)| {
            IpNetwork::new(address, *length).is_ok_and(|network| ranges.contains_key(&network.network()))
        })
    }

    /// The one pod of a node's own network that says it has the port. Several, or none: it may be anybody on the node.
    pub(super) fn behind(
        &self,
        cluster: &Cluster,
        node: &NodeName,
        (protocol, port): (Protocol, u16),
    ) -> Option<Arc<Pod>> {
        let mut pods = self.ports.get(&(node.clone(), protocol, port))?.iter();
        match (pods.next(), pods.next()) {
            (Some(only), None) => cluster.pod(only).cloned(),
            (None | Some(_), _) => None,
        }
    }

    fn open(&mut self, pod: &Pod) {
        for place in ports(pod) {
            self.ports.entry(place).or_default().insert(pod.uid.clone());
        }
    }

    fn close(&mut self, pod: &Pod) {
        ports(pod).for_each(|place| take(&mut self.ports, &place, &pod.uid));
    }

    fn add_node(&mut self, node: &Node) {
        for address in &node.addresses {
            self.nodes.entry(*address).or_default().insert(node.name.clone());
        }
        for range in &node.pod_ranges {
            let ranges = self.ranges.entry(range.prefix()).or_default();
            ranges.entry(range.network()).or_default().insert(node.name.clone());
        }
    }

    fn remove_node(&mut self, node: &Node) {
        node.addresses.iter().for_each(|address| take(&mut self.nodes, address, &node.name));
        for range in &node.pod_ranges {
            if let Some(ranges) = self.ranges.get_mut(&range.prefix()) {
                take(ranges, &range.network(), &node.name);
                if ranges.is_empty() {
                    self.ranges.remove(&range.prefix());
                }
            }
        }
    }

    fn add_service(&mut self, service: &Service) {
        for address in service.inside.iter().chain(&service.addresses) {
            self.services.entry(*address).or_default().insert(service.id.clone());
        }
    }

    fn remove_service(&mut self, service: &Service) {
        let all = service.inside.iter().chain(&service.addresses);
        all.for_each(|address| take(&mut self.services, address, &service.id));
    }
}

/// Where a pod of its node's own network says it is.
fn ports(pod: &Pod) -> impl Iterator<Item = (NodeName, Protocol, u16)> + '_ {
    let here = pod.network == Network::Host && pod.life != Life::Finished;
    let node = pod.node.iter().filter(move |_| here);
    node.flat_map(|node| pod.host_ports.iter().map(|port| (node.clone(), port.protocol, port.host_port)))
}

fn take<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;

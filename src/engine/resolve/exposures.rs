//! Which doors Services have on this node, and who may come in by each (decision B3).
//!
//! Owns that several exposures of one Service add up, and that an audited one only counts where none is enforced:
//! nothing is refused by it, so what is refused must not depend on it.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use podwall_ruleset::packet::Transport;
use podwall_ruleset::{Family, Protocol};

use crate::cluster::Cluster;
use crate::intervals::Intervals;
use crate::model::ban::Mode;
use crate::model::service::{Exposure, HostPort, Service, ServicePort, Target};
use crate::model::{Life, Named, NodeName};

/// A way into the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// This port of any address of the node.
    Local(Protocol, u16),
    /// This port of this address, whosever it is.
    At(IpAddr, Protocol, u16),
}

/// What somebody asks a door for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knock {
    /// The address that was asked.
    pub address: IpAddr,
    /// Protocol and port.
    pub transport: Transport,
    /// Is it one of the node's own?
    pub local: bool,
}

impl Knock {
    /// Is it at this door?
    pub fn is_at(&self, door: &Door) -> bool {
        let asked = self.transport.port().map(|port| (self.transport.protocol(), port));
        match door {
            Door::Local(protocol, port) => self.local && asked == Some((*protocol, *port)),
            Door::At(address, protocol, port) => {
                self.address == *address && asked == Some((*protocol, *port))
            }
        }
    }
}

/// Who may come in by a door: of those outside, these addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guard {
    /// Whether the others are refused.
    pub mode: Mode,
    v4: Intervals,
    v6: Intervals,
}

impl Guard {
    /// Addresses of a family that may.
    pub const fn allowed(&self, family: Family) -> &Intervals {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn of(exposures: &[&Arc<Exposure>], mode: Mode, port: &ServicePort) -> Self {
        let spoken =
            exposures.iter().flat_map(|exposure| &exposure.allow).filter(|allow| allow.speaks_of(port));
        let blocks: Vec<_> = spoken.flat_map(|allow| &allow.from).collect();
        let of = |family| Intervals::of_blocks(family, blocks.iter().copied());
        Self { mode, v4: of(Family::V4), v6: of(Family::V6) }
    }
}

/// The doors of a Service that are guarded on this node; none while no exposure chooses it.
pub fn doors(cluster: &Cluster, node: &NodeName, service: &Service) -> BTreeSet<(Door, Guard)> {
    let choosing: Vec<&Arc<Exposure>> =
        cluster.exposures_in(&service.id.namespace).filter(|exposure| exposure.chooses(service)).collect();
    let (enforced, audited): (Vec<_>, Vec<_>) =
        choosing.into_iter().partition(|exposure| exposure.mode == Mode::Enforce);
    let (mode, deciding) =
        if enforced.is_empty() { (Mode::Audit, audited) } else { (Mode::Enforce, enforced) };
    if deciding.is_empty() {
        return BTreeSet::new();
    }
    let host_ports = host_ports(cluster, node, service);
    let mut found = BTreeSet::new();
    for port in &service.ports {
        let guard = Guard::of(&deciding, mode, port);
        let at = service.addresses.iter().map(|address| Door::At(*address, port.protocol, port.port));
        let local = port.node_port.map(|number| Door::Local(port.protocol, number));
        let host = host_ports.iter().filter(|host| leads_to(host, port)).map(|host| match host.address {
            Some(address) => Door::At(address, host.protocol, host.host_port),
            None => Door::Local(host.protocol, host.host_port),
        });
        found.extend(at.chain(local).chain(host).map(|door| (door, guard.clone())));
    }
    found
}

/// Ports of this node that lead to pods behind the Service.
fn host_ports(cluster: &Cluster, node: &NodeName, service: &Service) -> Vec<HostPort> {
    let Some(pods) = &service.pods else { return Vec::new() };
    let here = cluster.pods_in(&service.id.namespace).filter(|pod| {
        pod.node.as_ref() == Some(node) && pod.life != Life::Finished && pods.matches(&pod.labels)
    });
    here.flat_map(|pod| pod.host_ports.iter().cloned()).collect()
}

/// Is the pod's port the one the Service sends to?
fn leads_to(host: &HostPort, port: &ServicePort) -> bool {
    host.protocol == port.protocol
        && match &port.target {
            Target::Number(number) => host.port == *number,
            Target::Named(name) => host.name.as_ref() == Some(name),
        }
}

/// The guarded doors of every Service, from scratch.
pub fn all_doors(cluster: &Cluster, node: &NodeName) -> BTreeMap<Named, BTreeSet<(Door, Guard)>> {
    let of = |service: &Arc<Service>| (service.id.clone(), doors(cluster, node, service));
    cluster.services().map(of).filter(|(_, doors)| !doors.is_empty()).collect()
}

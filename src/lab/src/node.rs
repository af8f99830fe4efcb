//! A node: a namespace that forwards between the wire and its pods, the way a CNI plugin wires them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::{
    LabError, Netns,
    link::{self, Cable},
    sysctl,
};

/// What a bridging node calls its bridge, after the CNI plugin of that name.
pub(crate) const BRIDGE: &str = "cni0";

/// How a node's pods are wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cni {
    /// A veth pair and a host route for each pod; pods see a link-local gateway and no neighbours (as Calico).
    Routed,
    /// All pods of the node on one bridge, whose address is their gateway (as the CNI bridge plugin or flannel).
    Bridged,
}

/// What a node shall look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    pub(crate) name: String,
    pub(crate) cni: Cni,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) pod_ranges: Vec<IpNetwork>,
}

impl NodePlan {
    /// A node with routed pods. Without further words it gets addresses and a pod range of both families.
    #[must_use]
    pub fn routed(name: &str) -> Self {
        Self::new(name, Cni::Routed)
    }

    /// A node with bridged pods.
    #[must_use]
    pub fn bridged(name: &str) -> Self {
        Self::new(name, Cni::Bridged)
    }

    /// A node of either kind.
    #[must_use]
    pub fn new(name: &str, cni: Cni) -> Self {
        Self { name: name.to_owned(), cni, addresses: Vec::new(), pod_ranges: Vec::new() }
    }

    /// Gives the node this address; at most one of each family. Any given address replaces the invented ones.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// Gives the node this pod range; at most one of each family. Any given range replaces the invented ones.
    #[must_use]
    pub fn pod_range(mut self, range: IpNetwork) -> Self {
        self.pod_ranges.push(range);
        self
    }

    /// Fills what was not given: 192.168.77.11 and fd77::11 with 10.77.1.0/24 and fd77:0:0:1::/64 for the first node.
    pub(crate) fn completed(mut self, number: u8) -> Self {
        let families = if sysctl::has_ipv6() { 2 } else { 1 };
        if self.addresses.is_empty() {
            let v4 = IpAddr::from(Ipv4Addr::new(192, 168, 77, number.saturating_add(10)));
            let v6 = IpAddr::from(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number) + 0x10));
            self.addresses.extend([v4, v6].into_iter().take(families));
        }
        if self.pod_ranges.is_empty() {
            let v4 = IpNetwork::new(Ipv4Addr::new(10, 77, number, 0).into(), 24);
            let v6 = IpNetwork::new(Ipv6Addr::new(0xfd77, 0, 0, u16::from(number), 0, 0, 0, 0).into(), 64);
            self.pod_ranges.extend([v4, v6].into_iter().flatten().take(families));
        }
        self
    }
}

/// A node as it stands.
#[derive(Debug)]
pub struct Node {
    plan: NodePlan,
    netns: Netns,
    /// Host part of the next invented pod address; 1 is the bridge's own.
    next_host: u16,
}

/// One free place on the wire.
pub(crate) struct Wired<'a> {
    pub(crate) netns: &'a Netns,
    pub(crate) link: &'a str,
}

impl Wired<'_> {
    pub(crate) fn cable<'a>(&'a self, guest: &'a Netns) -> Cable<'a> {
        Cable { gateway: self.netns, link: self.link, guest }
    }
}

impl Node {
    pub(crate) fn attach(wire: &Wired<'_>, plan: NodePlan) -> Result<Self, LabError> {
        let netns = Netns::new()?;
        netns.run(sysctl::forward)??;
        link::route_guest(&wire.cable(&netns), &plan.addresses, &plan.pod_ranges)?;
        let node = Self { plan, netns, next_host: 2 };
        match node.plan.cni {
            Cni::Routed => {}
            Cni::Bridged => link::add_bridge(&node.netns, BRIDGE, &node.gateways())?,
        }
        Ok(node)
    }

    /// The name given to it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Where its firewall belongs, and where host-network pods live.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its own addresses.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.plan.addresses
    }

    /// The ranges its pods' addresses come from.
    #[must_use]
    pub fn pod_ranges(&self) -> &[IpNetwork] {
        &self.plan.pod_ranges
    }

    /// How its pods are wired.
    #[must_use]
    pub fn cni(&self) -> Cni {
        self.plan.cni
    }

    /// Whether packets between pods on this node's bridge pass the IP filters (br_netfilter), per family. Without
    /// it they bypass every rule in `forward`.
    pub fn filter_bridged(&self, filter: BridgeFilter) -> Result<(), LabError> {
        let (v4, v6) = match filter {
            BridgeFilter::On => ("1", "1"),
            BridgeFilter::Ipv4Only => ("1", "0"),
            BridgeFilter::Off => ("0", "0"),
        };
        self.netns.set_sysctl("net/bridge/bridge-nf-call-iptables", v4)?;
        self.netns.set_sysctl("net/bridge/bridge-nf-call-ip6tables", v6)
    }

    /// The bridge's addresses, with the length of the pod subnet: the first host of each range.
    pub(crate) fn gateways(&self) -> Vec<IpNetwork> {
        let ranges = self.plan.pod_ranges.iter();
        ranges.filter_map(|range| IpNetwork::new(nth_host(range, 1)?, range.prefix()).ok()).collect()
    }

    /// One address of each pod range that was never invented before.
    pub(crate) fn next_addresses(&mut self) -> Result<Vec<IpAddr>, LabError> {
        let host = self.next_host;
        self.next_host = host.saturating_add(1);
        let exhausted = |range: &IpNetwork| LabError::Exhausted {
            node: self.plan.name.clone(),
            range: range.to_string(),
        };
        self.plan
            .pod_ranges
            .iter()
            .map(|range| nth_host(range, host).ok_or_else(|| exhausted(range)))
            .collect()
    }

    /// The length of the subnet a bridged pod's address belongs to; a foreign address stands alone.
    pub(crate) fn subnet_of(&self, address: IpAddr) -> IpNetwork {
        let range = self.plan.pod_ranges.iter().find(|range| range.contains(address));
        range.and_then(|range| IpNetwork::new(address, range.prefix()).ok()).unwrap_or_else(|| address.into())
    }
}

/// What br_netfilter shall hand to the IP filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeFilter {
    /// Both families.
    On,
    /// IPv4 only.
    Ipv4Only,
    /// Nothing.
    Off,
}

fn nth_host(range: &IpNetwork, host: u16) -> Option<IpAddr> {
    let address = match range.network() {
        IpAddr::V4(v4) => IpAddr::from(Ipv4Addr::from_bits(v4.to_bits() + u32::from(host))),
        IpAddr::V6(v6) => IpAddr::from(Ipv6Addr::from_bits(v6.to_bits() + u128::from(host))),
    };
    range.contains(address).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_pod_addresses_stay_inside_the_range() {
        let range: IpNetwork = "10.0.0.0/30".parse().unwrap();
        assert_eq!(nth_host(&range, 3), Some("10.0.0.3".parse().unwrap()));
        assert_eq!(nth_host(&range, 4), None);
    }
}

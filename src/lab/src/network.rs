//! The whole: a wire, nodes and hosts on it, pods behind the nodes.
//!
//! The wire is a namespace too, a router that connects everybody and filters nothing. Everything goes when the
//! [`Lab`] is dropped: nothing has a name outside this process.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{Host, LabError, Netns, Node, NodePlan, Pod, PodPlan, node::Wired, sysctl};

/// A network of nodes, pods and hosts; see the crate's own page for an example.
#[derive(Debug)]
pub struct Lab {
    // Servers before the namespaces they are in; the wire last.
    pods: BTreeMap<String, Pod>,
    hosts: BTreeMap<String, Host>,
    nodes: BTreeMap<String, Node>,
    wire: Netns,
    links: u32,
}

impl Lab {
    /// An empty network. Needs root.
    pub fn new() -> Result<Self, LabError> {
        let wire = Netns::new()?;
        wire.run(sysctl::forward)??;
        Ok(Self { pods: BTreeMap::new(), hosts: BTreeMap::new(), nodes: BTreeMap::new(), wire, links: 0 })
    }

    /// Adds a node. All nodes reach each other and each other's pods.
    pub fn add_node(&mut self, plan: NodePlan) -> Result<&Node, LabError> {
        let name = vacant("node", &self.nodes, &plan.name)?;
        let number = u8::try_from(self.nodes.len() + 1).unwrap_or(u8::MAX);
        let link = self.next_link("node");
        let node = Node::attach(&Wired { netns: &self.wire, link: &link }, plan.completed(number))?;
        Ok(self.nodes.entry(name).or_insert(node))
    }

    /// Adds a machine outside the cluster, with documentation addresses (RFC 5737, RFC 3849) unless some are given.
    pub fn add_host(&mut self, name: &str, addresses: &[IpAddr]) -> Result<&Host, LabError> {
        let name = vacant("host", &self.hosts, name)?;
        let number = u8::try_from(self.hosts.len() + 10).unwrap_or(u8::MAX);
        let link = self.next_link("host");
        let invented = [
            IpAddr::from(Ipv4Addr::new(203, 0, 113, number)),
            IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number))),
        ];
        let families =
            if sysctl::has_ipv6() { invented.as_slice() } else { invented.get(..1).unwrap_or_default() };
        let addresses = if addresses.is_empty() { families } else { addresses };
        let host = Host::attach(&Wired { netns: &self.wire, link: &link }, &name, addresses)?;
        Ok(self.hosts.entry(name).or_insert(host))
    }

    /// Adds a pod. When this returns, its servers answer on all its addresses.
    pub fn add_pod(&mut self, mut plan: PodPlan) -> Result<&Pod, LabError> {
        let name = vacant("pod", &self.pods, &plan.name)?;
        let link = self.next_link("pod");
        let first = || self.nodes.keys().next().cloned().unwrap_or_default();
        let node = plan.node.clone().unwrap_or_else(first);
        let Some(node) = self.nodes.get_mut(&node) else {
            return Err(LabError::Unknown { kind: "node", name: node });
        };
        if plan.host_network {
            plan.addresses = node.addresses().to_vec();
        } else if plan.addresses.is_empty() {
            plan.addresses = node.next_addresses()?;
        }
        let pod = Pod::attach(node, link, plan)?;
        Ok(self.pods.entry(name).or_insert(pod))
    }

    /// Removes a pod: its server stops, its link disappears from the node, its addresses are free.
    pub fn remove_pod(&mut self, name: &str) -> Result<(), LabError> {
        let pod = self.pods.remove(name).ok_or_else(|| unknown("pod", name))?;
        let node = found("node", &self.nodes, pod.node())?;
        pod.detach(node)
    }

    /// Gives a running pod one more address, on which everything it serves is served too.
    pub fn add_address(&mut self, pod: &str, address: IpAddr) -> Result<(), LabError> {
        let pod = self.pods.get_mut(pod).ok_or_else(|| unknown("pod", pod))?;
        pod.add_address(found("node", &self.nodes, pod.node())?, address)
    }

    /// What every node and host hangs on: the router between them.
    #[must_use]
    pub const fn wire(&self) -> &Netns {
        &self.wire
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Result<&Node, LabError> {
        found("node", &self.nodes, name)
    }

    /// A pod by name.
    pub fn pod(&self, name: &str) -> Result<&Pod, LabError> {
        found("pod", &self.pods, name)
    }

    /// A pod by name, to change what it serves.
    pub fn pod_mut(&mut self, name: &str) -> Result<&mut Pod, LabError> {
        self.pods.get_mut(name).ok_or_else(|| unknown("pod", name))
    }

    /// A host by name.
    pub fn host(&self, name: &str) -> Result<&Host, LabError> {
        found("host", &self.hosts, name)
    }

    /// All nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// All pods by name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// All hosts by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// Interface names are short (15 characters) and used once.
    fn next_link(&mut self, kind: &str) -> String {
        self.links += 1;
        format!("{kind}{}", self.links)
    }
}

fn vacant<T>(kind: &'static str, all: &BTreeMap<String, T>, name: &str) -> Result<String, LabError> {
    if all.contains_key(name) {
        return Err(LabError::Taken { kind, name: name.to_owned() });
    }
    Ok(name.to_owned())
}

fn found<'a, T>(kind: &'static str, all: &'a BTreeMap<String, T>, name: &str) -> Result<&'a T, LabError> {
    all.get(name).ok_or_else(|| unknown(kind, name))
}

fn unknown(kind: &'static str, name: &str) -> LabError {
    LabError::Unknown { kind, name: name.to_owned() }
}

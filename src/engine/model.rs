//! The cluster in podwall's own words. No Kubernetes type passes beyond `ingest`; what is here is valid.
pub mod ban;
pub mod domain;
pub mod policy;
pub mod port;
pub mod selector;
pub mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use podwall_ruleset::{LinkName, Protocol};

use service::HostPort;

pub use ban::{Ban, BanId};
pub use domain::{DomainName, ListId, NameList, NamePattern};
pub use policy::{
    Action, Direction, DnsServer, IpBlock, Peer, Peers, Policy, PolicyId, PolicyKind, PolicyRule, Tier,
};
pub use port::{PortMatch, PortSpec, Ports};
pub use selector::{Labels, PeerSelector, Requirement, Scope, Selector};
pub use service::{Exposure, Named, Service};

/// Shared text: names and labels are held once and pointed to.
pub type Text = Arc<str>;

/// What tells two pods apart, even of one name (policy-semantics W5). Manifests without UIDs get `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(pub Text);

/// A node's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(pub Text);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self(Arc::from(name))
    }
}

/// How far along a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// Pending, running or unknown.
    Live,
    /// Asked to stop; still a full subject and peer (W4).
    Terminating,
    /// Succeeded or failed: its address may be somebody else's already (W3).
    Finished,
}

/// Whose network a pod lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Its own.
    Own,
    /// The node's: neither subject nor peer (H1).
    Host,
}

/// A port a container declares under a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name.
    pub name: Text,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Who.
    pub uid: PodUid,
    /// Namespace.
    pub namespace: Text,
    /// Name.
    pub name: Text,
    /// Labels.
    pub labels: Labels,
    /// Node it is bound to.
    pub node: Option<NodeName>,
    /// Whose network.
    pub network: Network,
    /// At most one address of each family.
    pub addresses: Vec<IpAddr>,
    /// How far along.
    pub life: Life,
    /// `status.startTime`, RFC 3339 in UTC, which orders as text.
    pub started: Option<Text>,
    /// Named ports of containers and sidecars, sorted.
    pub ports: Vec<NamedPort>,
    /// Ports its node answers for, sorted.
    pub host_ports: Vec<HostPort>,
    /// What its own annotations ask for, which govern it alone.
    pub own: Option<Arc<Policy>>,
    /// What made it, for people.
    pub workload: Option<Workload>,
}

/// What makes pods: a Deployment, a DaemonSet, a Job, ...
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// Its kind.
    pub kind: Text,
    /// Its name, in the namespace of its pods.
    pub name: Text,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl Pod {
    /// Subject and peer: own network, at least one address, not finished (W1).
    pub fn counts(&self) -> bool {
        self.network == Network::Own && !self.addresses.is_empty() && self.life != Life::Finished
    }

    /// Bound to a node and not finished, but without an address yet: what `pending` waits for (L7).
    pub fn awaits_address(&self) -> bool {
        self.network == Network::Own && self.addresses.is_empty() && self.life != Life::Finished
    }

    /// The numbers a name stands for on this pod; several when containers share the name (O10).
    pub fn named(&self, name: &str, protocol: Protocol) -> impl Iterator<Item = u16> {
        self.ports.iter().filter(move |p| &*p.name == name && p.protocol == protocol).map(|p| p.port)
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Labels.
    pub labels: Labels,
    /// Addresses, names left out.
    pub addresses: Vec<IpAddr>,
    /// Pod ranges.
    pub pod_ranges: Vec<IpNetwork>,
    /// What the node calls some of its interfaces together.
    pub link_groups: BTreeMap<Text, BTreeSet<LinkName>>,
}

/// How a local pod address hangs on the node, as the host's routes tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The interface packets to the address leave by.
    pub link: LinkName,
    /// One pod on the interface (a host route to it), or many (a bridge).
    pub sharing: Sharing,
}

/// How many pods an interface carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One: its traffic can only be its own.
    Exclusive,
    /// Many: an address can be borrowed from a neighbour.
    Shared,
}

/// What the node itself knows, the API server does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// Where local pod addresses hang.
    pub attachments: BTreeMap<IpAddr, Attachment>,
}

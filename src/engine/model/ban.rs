//! Bans: addresses that may not talk to the nodes and pods of the cluster.
use std::collections::BTreeSet;
use std::fmt;

use ipnetwork::IpNetwork;
use podwall_ruleset::{Deadline, LinkName, PortRange, Protocol};

use super::Text;
use super::selector::Selector;

/// Which ban.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BanId {
    /// Of which kind of object.
    pub kind: BanKind,
    /// Empty for cluster-wide kinds.
    pub namespace: Text,
    /// Name.
    pub name: Text,
}

/// The kinds of objects that ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BanKind {
    /// `podwall.dev`.
    Ban,
    /// `k8s.sers.dev`, of kubetables.
    Ktban,
}

impl BanKind {
    /// As the API server calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ban => "Ban",
            Self::Ktban => "Ktban",
        }
    }
}

impl fmt::Display for BanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind.as_str())?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Which.
    pub id: BanId,
    /// UID; empty when the object came from a file.
    pub uid: Text,
    /// Who; sorted, each once, none with bits beyond its prefix.
    pub addresses: Vec<IpNetwork>,
    /// Which way connections are banned.
    pub ways: BTreeSet<Way>,
    /// Which protocols and ports; `None`: all, none: nothing.
    pub ports: Option<BTreeSet<BanPort>>,
    /// On which nodes; `None`: all.
    pub nodes: Option<Selector>,
    /// By which interfaces; `None`: any.
    pub links: Option<BanLinks>,
    /// When it ends; `None`: never.
    pub ends: Option<Deadline>,
    /// What the banned side notices.
    pub action: BanAction,
    /// Whether packets are refused.
    pub mode: Mode,
    /// Whether wide blocks cover the ports of administrators.
    pub management: Management,
}

/// Which way a connection is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// By the banned addresses.
    In,
    /// By nodes and pods.
    Out,
}

impl Way {
    /// The other way.
    pub const fn opposite(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

/// A protocol, and ports of it on either side; `None`: any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BanPort {
    /// The protocol.
    pub protocol: Protocol,
    /// On the side of the node or pod.
    pub local: Option<PortRange>,
    /// On the side of the banned addresses.
    pub remote: Option<PortRange>,
}

/// Interfaces: any of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanLinks {
    /// By name.
    pub names: BTreeSet<LinkName>,
    /// By what a node calls them together.
    pub groups: BTreeSet<Text>,
}

/// What the banned side notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BanAction {
    /// Nothing.
    Drop,
    /// A refusal.
    Reject,
}

/// Whether packets are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// They are.
    Enforce,
    /// They pass, counted and recorded.
    Audit,
}

/// Whether wide blocks cover the ports of administrators (decision B1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Management {
    /// They do not.
    Spare,
    /// They do.
    Ban,
}

//! Policies of every kind in one shape: tier, subject, rules in order.
//!
//! NetworkPolicies and DomainPolicies are of tier namespace: accept rules only, union, isolation. The admin and baseline
//! tiers evaluate rules in order and know deny and pass (policy-semantics section 12).
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use podwall_ruleset::{Digest, RuleId};

use super::Text;
use super::ban::Mode;
use super::domain::NameList;
use super::port::Ports;
use super::selector::PeerSelector;

/// The ordered bands of the network-policy-api.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Before everything; rules in order of priority.
    Admin,
    /// NetworkPolicy: union of accepts, isolation.
    Namespace,
    /// After everything, for pods no NetworkPolicy isolates in that direction.
    Baseline,
}

/// Seen from the subject pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// Which policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId {
    /// Its band.
    pub tier: Tier,
    /// Empty for cluster-wide policies.
    pub namespace: Text,
    /// Name.
    pub name: Text,
    /// Of which kind of object.
    pub kind: PolicyKind,
}

/// The kinds of objects that policies come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// `networking.k8s.io`, and what is judged like it.
    NetworkPolicy,
    /// `podwall.dev`.
    DomainPolicy,
    /// Annotations of the pod of that name, which say what a DomainPolicy for it alone would.
    Annotations,
}

impl PolicyKind {
    /// As the API server calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::DomainPolicy => "DomainPolicy",
            Self::Annotations => "Pod",
        }
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            PolicyKind::NetworkPolicy => {}
            PolicyKind::DomainPolicy => f.write_str("DomainPolicy ")?,
            PolicyKind::Annotations => f.write_str("annotations of pod ")?,
        }
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which.
    pub id: PolicyId,
    /// UID; empty when it came from a file.
    pub uid: Text,
    /// Digest of UID and content: two policies with one digest mean the same.
    pub digest: Digest,
    /// Lower goes first; 0 in the namespace tier.
    pub priority: i32,
    /// Whether it is enforced, or only what it would refuse is recorded.
    pub mode: Mode,
    /// Whom it governs.
    pub subject: PeerSelector,
    /// `None`: says nothing about ingress. In the namespace tier, `Some` isolates.
    pub ingress: Option<Vec<PolicyRule>>,
    /// The same for egress.
    pub egress: Option<Vec<PolicyRule>>,
}

impl Policy {
    /// The rules of a direction, if the policy speaks of it.
    pub fn rules(&self, direction: Direction) -> Option<&[PolicyRule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// Identity in the kernel and in drop reports.
    pub id: RuleId,
    /// Position in the policy's list, from 0.
    pub index: usize,
    /// What a match means.
    pub action: Action,
    /// Who is at the other end.
    pub peers: Peers,
    /// Which destination ports.
    pub ports: Ports,
}

/// What a matching rule decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Let it through.
    Accept,
    /// Drop it silently.
    Deny,
    /// On to the next tier.
    Pass,
}

/// The other end of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// Anybody: pods, nodes, the world.
    Any,
    /// One of these; an empty list matches nobody.
    List(Vec<Peer>),
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Pods by namespace and label.
    Pods(PeerSelector),
    /// Addresses.
    Block(IpBlock),
    /// Addresses the subject learned for these names.
    Names(NameList),
    /// The node's own DNS proxy, by which the subject asks these servers.
    DnsProxy(BTreeSet<DnsServer>),
    /// What could not be understood: matches nobody.
    Never,
}

/// Who answers questions for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DnsServer {
    /// The cluster's own.
    Cluster,
    /// This one.
    At(IpAddr),
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("the cluster's DNS"),
            Self::At(address) => write!(f, "{address}"),
        }
    }
}

/// Addresses of a CIDR, less some (policy-semantics section 4). Host bits are masked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpBlock {
    /// The block.
    pub cidr: IpNetwork,
    /// What is taken out of this block only.
    pub except: Vec<IpNetwork>,
}

impl IpBlock {
    /// Is the address in the block and in no exception?
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(address) && !self.except.iter().any(|hole| hole.contains(address))
    }
}

impl Peer {
    /// The selector, if it is one.
    pub const fn selector(&self) -> Option<&PeerSelector> {
        match self {
            Self::Pods(selector) => Some(selector),
            Self::Block(_) | Self::Names(_) | Self::DnsProxy(_) | Self::Never => None,
        }
    }

    /// The names, if it is some.
    pub const fn names(&self) -> Option<&NameList> {
        match self {
            Self::Names(list) => Some(list),
            Self::Pods(_) | Self::Block(_) | Self::DnsProxy(_) | Self::Never => None,
        }
    }

    /// The servers asked by the node's proxy, if it is that.
    pub const fn dns_proxy(&self) -> Option<&BTreeSet<DnsServer>> {
        match self {
            Self::DnsProxy(servers) => Some(servers),
            Self::Pods(_) | Self::Block(_) | Self::Names(_) | Self::Never => None,
        }
    }

    /// The block, if it is one.
    pub const fn block(&self) -> Option<&IpBlock> {
        match self {
            Self::Block(block) => Some(block),
            Self::Pods(_) | Self::Names(_) | Self::DnsProxy(_) | Self::Never => None,
        }
    }
}

//! Destination ports of a rule (policy-semantics section 5).
use podwall_ruleset::{PortRange, Protocol};

use super::Text;

/// Protocol and port entries of one rule up to which each is a rule of its own (76 ns each, `nftables.md` 2.2);
/// more share one set lookup.
pub const FEW_PORTS: usize = 4;

/// The ports of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Any port of any protocol, ICMP and the rest included.
    Any,
    /// One of these; an empty list matches nothing.
    List(Vec<PortMatch>),
}

/// One item of `ports`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortMatch {
    /// The protocol; the default was filled in already.
    pub protocol: Protocol,
    /// Which of its ports.
    pub port: PortSpec,
}

/// How a port is given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortSpec {
    /// By number; no number is [`PortRange::ALL`].
    Range(PortRange),
    /// By name, resolved on the destination pod (O5).
    Named(Text),
    /// What could not be understood: matches nothing.
    Never,
}

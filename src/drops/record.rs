//! One dropped packet, as far as anybody told us of it.
//!
//! Owns the type that every source of drops ends in and every reader of drops starts from.
use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;
use podwall_ruleset::Protocol;

/// One packet that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When, by the clock of the node.
    pub at: Timestamp,
    /// Its source address.
    pub source: IpAddr,
    /// Its destination address; of the same family.
    pub destination: IpAddr,
    /// What it carried.
    pub carried: Carried,
    /// The interface it arrived by; none for what the node itself sends.
    pub arrived_by: Option<String>,
    /// The interface it would have left by; none where that was not known yet.
    pub leaving_by: Option<String>,
    /// Who dropped it.
    pub cause: Cause,
}

/// The part of a transport header that tells flows apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carried {
    /// TCP, UDP, SCTP, UDP-Lite or DCCP.
    Ports {
        /// Which of them.
        protocol: Protocol,
        /// From this port.
        source: u16,
        /// To this port.
        destination: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Which of them.
        protocol: Protocol,
        /// The message's type.
        kind: u8,
        /// The message's code.
        code: u8,
    },
    /// Any other protocol, or a fragment that holds no transport header.
    Other(Protocol),
}

/// Who dropped a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A rule of ours, by what its log prefix says after our name: the chain it stands in.
    Ours(String),
    /// Another firewall, by the prefix of its log line as it stands there.
    Theirs(String),
}

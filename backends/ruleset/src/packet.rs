//! A packet as the filter sees it, for the simulator.
use std::net::IpAddr;

use crate::ids::LinkName;
use crate::matching::{ConnState, Protocol};
use crate::ruleset::Hook;

/// One packet at one hook, before source NAT; after destination NAT, but for the prerouting hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Where it is judged: forward for pods' traffic, input for a pod talking to its own node, prerouting for what
    /// arrives, output for what the node itself sends.
    pub hook: Hook,
    /// Source address.
    pub source: IpAddr,
    /// Destination address; same family.
    pub destination: IpAddr,
    /// What it carries.
    pub transport: Transport,
    /// Where from, for protocols that have ports.
    pub source_port: u16,
    /// What conntrack says.
    pub state: ConnState,
    /// Does it travel in the direction of the flow's first packet?
    pub original_direction: bool,
    /// Did destination NAT change where its flow goes?
    pub translated: bool,
    /// Interface of arrival, if it matters.
    pub input_link: Option<LinkName>,
    /// Interface it leaves by, if that is known and matters.
    pub output_link: Option<LinkName>,
    /// Is the destination an address of this host?
    pub local: bool,
    /// Does the route back to the source leave by the interface of arrival?
    pub reverse_path: bool,
    /// Routers it may still pass (IPv6).
    pub hop_limit: u8,
    /// Is its first chunk an INIT (SCTP)?
    pub init: bool,
    /// Is the destination the broadcast address of a network of this host?
    pub broadcast: bool,
}

/// Where clients send from who do not care: some port beyond the low ones.
const SOURCE_PORT: u16 = 40_000;

/// What senders start at who do not care (`IPV6_DEFAULT_HOPLIMIT`).
const HOP_LIMIT: u8 = 64;

/// The part of the transport header that rules look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP to a port, opening a connection (SYN alone) or not.
    Tcp {
        /// Destination port.
        port: u16,
        /// SYN alone of FIN, SYN, RST, ACK.
        opening: bool,
    },
    /// UDP to a port.
    Udp(u16),
    /// SCTP to a port.
    Sctp(u16),
    /// ICMP of a type.
    Icmp(u8),
    /// ICMPv6 of a type.
    Icmpv6(u8),
    /// Any other protocol; without ports.
    Other(Protocol),
}

impl Transport {
    /// The protocol number.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Tcp { .. } => Protocol::TCP,
            Self::Udp(_) => Protocol::UDP,
            Self::Sctp(_) => Protocol::SCTP,
            Self::Icmp(_) => Protocol::ICMP,
            Self::Icmpv6(_) => Protocol::ICMPV6,
            Self::Other(protocol) => protocol,
        }
    }

    /// The destination port, for protocols that have one.
    pub const fn port(self) -> Option<u16> {
        match self {
            Self::Tcp { port, .. } | Self::Udp(port) | Self::Sctp(port) => Some(port),
            Self::Icmp(_) | Self::Icmpv6(_) | Self::Other(_) => None,
        }
    }
}

impl Packet {
    /// The first packet of a flow through the forward hook, its source genuine. What is from an address to itself was
    /// sent elsewhere, then: otherwise it never leaves who sends it.
    pub fn opening(source: IpAddr, destination: IpAddr, transport: Transport) -> Self {
        Self {
            hook: Hook::Forward,
            source,
            destination,
            transport,
            source_port: SOURCE_PORT,
            state: ConnState::New,
            original_direction: true,
            translated: source == destination,
            input_link: None,
            output_link: None,
            local: false,
            reverse_path: true,
            hop_limit: HOP_LIMIT,
            init: true,
            broadcast: false,
        }
    }
}

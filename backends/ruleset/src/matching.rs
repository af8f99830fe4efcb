//! What a rule looks at. Owns the closed list of questions a packet can be asked; both backends and the
//! simulator match on it exhaustively, so a new question does not compile until all three can answer it.
use std::fmt;

use ipnetwork::IpNetwork;

use crate::ids::{LinkName, SetName};

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `NFPROTO_IPV4`.
    V4,
    /// `NFPROTO_IPV6`.
    V6,
}

impl Family {
    /// Both, in the order everything is written.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: &std::net::IpAddr) -> Self {
        match address {
            std::net::IpAddr::V4(_) => Self::V4,
            std::net::IpAddr::V6(_) => Self::V6,
        }
    }

    /// `4` or `6`, as names of chains and sets carry it.
    pub const fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }
}

/// A transport protocol number (IANA, `IPPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// `IPPROTO_ICMP`.
    pub const ICMP: Self = Self(1);
    /// `IPPROTO_TCP`.
    pub const TCP: Self = Self(6);
    /// `IPPROTO_UDP`.
    pub const UDP: Self = Self(17);
    /// `IPPROTO_ICMPV6`.
    pub const ICMPV6: Self = Self(58);
    /// `IPPROTO_SCTP`.
    pub const SCTP: Self = Self(132);
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("icmp"),
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::ICMPV6 => f.write_str("ipv6-icmp"),
            Self::SCTP => f.write_str("sctp"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

/// Destination ports `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port, zero included: what "a protocol without a port" means.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// One port.
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// `first..=last`; `None` when the ends are swapped.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Is the port inside?
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// One end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Source address.
    Source,
    /// Destination address, after destination NAT.
    Destination,
}

/// What conntrack says of a packet (`enum nf_ct_ext`/`NF_CT_STATE_BIT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnState {
    /// First packet of a flow.
    New,
    /// A flow seen in both directions, or a reply.
    Established,
    /// Belongs to another flow: an ICMP error, or a helper's expectation.
    Related,
    /// Does not fit its flow.
    Invalid,
    /// Not tracked at all (neighbour discovery, `notrack`).
    Untracked,
}

/// The key of a set lookup: which fields of the packet, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lookup {
    /// One address of a family.
    Address(Family, Side),
    /// Source address . destination address.
    Pair(Family),
    /// Address . protocol . destination port.
    Endpoint(Family, Side),
    /// Protocol . destination port.
    Service,
    /// The interface the packet arrived on.
    InputLink,
    /// The interface the packet leaves by; not known before routing.
    OutputLink,
}

/// One question; a rule matches when all of its questions are answered yes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    /// The packet is of this family. Implied by every lookup and prefix of a family.
    Family(Family),
    /// The looked-up key is in the set.
    In(Lookup, SetName),
    /// The address lies in the prefix (host bits are zero).
    Prefix(Side, IpNetwork),
    /// The transport protocol is this one.
    Protocol(Protocol),
    /// The protocol is this one and the destination port lies in the range. TCP, UDP, SCTP, DCCP and UDP-Lite
    /// keep it in the same two bytes.
    Port(Protocol, PortRange),
    /// The same for the source port.
    SourcePort(Protocol, PortRange),
    /// ICMPv6 with a type in `first..=last`.
    Icmpv6Type(u8, u8),
    /// IPv6 with this hop limit; with 255 it has passed no router (RFC 5082).
    HopLimit(u8),
    /// To everybody on a link: 255.255.255.255, or the broadcast address of a network of this host.
    Broadcast,
    /// To an address of this host.
    Local,
    /// Conntrack says one of these; sorted, without repeats, not empty.
    State(Vec<ConnState>),
    /// The packet travels in the direction of the flow's first packet.
    OriginalDirection,
    /// Destination NAT changed where the flow goes (`IPS_DST_NAT`).
    Translated,
    /// TCP, and of FIN, SYN, RST and ACK not exactly SYN alone is set: no client opens a connection so.
    TcpNotOpening,
    /// SCTP, and its first chunk is no INIT: no client opens an association so, though conntrack takes a HEARTBEAT
    /// for the first packet of a flow too.
    SctpNotOpening,
    /// Arrived on this interface.
    InputLink(LinkName),
    /// The route back to the source does not leave by the interface of arrival (strict reverse path filter).
    ReversePathMissing,
}

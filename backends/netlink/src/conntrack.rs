//! The kernel's table of flows: reading it and deleting exact entries (linux/netfilter/nfnetlink_conntrack.h).
//!
//! Shared by both backends. A flow is named by its original tuple with its zone and its id together: the id keeps
//! us from deleting a new flow that took over the addresses and ports of the one we judged.
use std::net::IpAddr;

use crate::attribute::Writer;
use crate::errno::Errno;
use crate::error::Error;
use crate::message::{Flags, Header, Kind, Subsystem};
use crate::socket::{Consistency, Socket};

mod codec;

/// `IPCTNL_MSG_CT_GET`.
const GET: u8 = 1;
/// `IPCTNL_MSG_CT_DELETE`.
const DELETE: u8 = 2;
/// `IPCTNL_MSG_CT_NEW`: what a dump answers with.
const NEW: u8 = 0;

/// Layer 3 of a flow (`AF_INET`, `AF_INET6`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Layer3 {
    /// `AF_INET`.
    V4 = 2,
    /// `AF_INET6`.
    V6 = 10,
}

/// What tells flows between the same two addresses apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer4 {
    /// TCP, UDP, SCTP, DCCP, UDP-Lite.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP and ICMPv6.
    Icmp {
        /// `icmp_type`.
        kind: u8,
        /// `icmp_code`.
        code: u8,
        /// Identifier of an echo.
        id: u16,
    },
    /// Nothing but the protocol.
    None,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// `IPPROTO_*`.
    pub protocol: u8,
    /// Ports, or what the protocol has instead.
    pub layer4: Layer4,
    /// The zone, where it holds for this direction only (`CTA_TUPLE_ZONE`).
    pub zone: Option<u16>,
}

/// `IPS_*` bits (linux/netfilter/nf_conntrack_common.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Status(pub u32);

impl Status {
    /// `IPS_SEEN_REPLY`.
    pub const SEEN_REPLY: Self = Self(1 << 1);
    /// `IPS_ASSURED`.
    pub const ASSURED: Self = Self(1 << 2);
    /// `IPS_SRC_NAT`.
    pub const SOURCE_NAT: Self = Self(1 << 4);
    /// `IPS_DST_NAT`.
    pub const DESTINATION_NAT: Self = Self(1 << 5);

    /// All bits of the other are set.
    pub const fn holds(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// IPv4 or IPv6.
    pub layer3: Layer3,
    /// The zone of both directions (`CTA_ZONE`); absent means zone 0 or a zone of one direction.
    pub zone: Option<u16>,
    /// `CTA_ID`: a keyed hash over the entry's address in memory and its tuples.
    pub id: u32,
    /// As the first packet came.
    pub original: Tuple,
    /// As replies come, after all translation: its source is where the first packet really went.
    pub reply: Tuple,
    /// What is known of it.
    pub status: Status,
    /// Seconds until the entry expires if nothing more is seen; absent for offloaded flows.
    pub timeout: Option<u32>,
    /// `CTA_MARK`; 0 when none.
    pub mark: u32,
}

/// How a deletion went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Deleted.
    Done,
    /// It had gone already, or its tuple belongs to a newer flow by now.
    AlreadyGone,
}

/// The seam: what the agent needs of a table of flows.
pub trait Flows: Send {
    /// Visits every flow of both families, one at a time, so that memory does not grow with the table. Flows that
    /// come or go meanwhile may be missed: new ones were judged by the rules that stand now.
    fn list(&mut self, visit: &mut dyn FnMut(Flow)) -> Result<(), Error>;

    /// Deletes exactly this flow.
    fn delete(&mut self, flow: &Flow) -> Result<Removal, Error>;
}

/// The kernel's conntrack table, in the network namespace of the thread that opened it.
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Opens a socket of its own: dumps are long and must not hold up commits.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open()? })
    }
}

impl Flows for Conntrack {
    fn list(&mut self, visit: &mut dyn FnMut(Flow)) -> Result<(), Error> {
        let header = Header::new(Kind::of(Subsystem::Conntrack, GET), Flags::NONE, 0);
        let dumped = self.socket.dump(
            "listing flows",
            header,
            |_| {},
            |message| {
                if message.kind.within(Subsystem::Conntrack) == Some(NEW) {
                    let (family, attributes) = message.netfilter()?;
                    if let Some(flow) = codec::read(family, attributes)? {
                        visit(flow);
                    }
                }
                Ok(())
            },
        )?;
        match dumped {
            // A resized hash table makes the kernel walk it again from where it stood: nothing to repeat.
            Consistency::Whole | Consistency::Interrupted => Ok(()),
        }
    }

    fn delete(&mut self, flow: &Flow) -> Result<Removal, Error> {
        let header = Header::new(Kind::of(Subsystem::Conntrack, DELETE), Flags::NONE, flow.layer3 as u8);
        let fill = |writer: &mut Writer| codec::write_name(flow, writer);
        match self.socket.request("deleting a flow", header, fill, |_| Ok(())) {
            Ok(()) => Ok(Removal::Done),
            Err(error) if error.refusal().is_some_and(|refusal| refusal.errno == Errno::ENOENT) => {
                Ok(Removal::AlreadyGone)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;

//! Messages: `struct nlmsghdr`, then for netfilter `struct nfgenmsg`, then attributes.
use std::ops::BitOr;

use crate::attribute::{Attributes, Writer};
use crate::error::Malformed;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct nfgenmsg`.
const NETFILTER: usize = 4;

/// `nlmsg_flags` (linux/netlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// `NLM_F_REQUEST`.
    pub const REQUEST: Self = Self(0x01);
    /// `NLM_F_ACK`.
    pub const ACK: Self = Self(0x04);
    /// `NLM_F_DUMP_INTR`: what is dumped changed meanwhile.
    pub const DUMP_INTERRUPTED: Self = Self(0x10);
    /// `NLM_F_CAPPED`: the refused message is not echoed.
    pub const CAPPED: Self = Self(0x100);
    /// `NLM_F_ACK_TLVS`.
    pub const ACK_TLVS: Self = Self(0x200);
    /// `NLM_F_DUMP`.
    pub const DUMP: Self = Self(0x300);
    /// `NLM_F_CREATE`.
    pub const CREATE: Self = Self(0x400);
    /// `NLM_F_APPEND`.
    pub const APPEND: Self = Self(0x800);

    /// All bits of the other are set.
    pub const fn holds(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Part of netfilter a message is for (`NFNL_SUBSYS_*`, linux/netfilter/nfnetlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Subsystem {
    /// `NFNL_SUBSYS_NONE`: the batch's own messages.
    Batch = 0,
    /// `NFNL_SUBSYS_CTNETLINK`.
    Conntrack = 1,
    /// `NFNL_SUBSYS_ULOG`.
    Log = 4,
    /// `NFNL_SUBSYS_NFTABLES`.
    Nftables = 10,
}

/// `nlmsg_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub u16);

impl Kind {
    /// `NLMSG_ERROR`.
    pub const ERROR: Self = Self(2);
    /// `NLMSG_DONE`.
    pub const DONE: Self = Self(3);
    /// `NLMSG_OVERRUN`.
    pub const OVERRUN: Self = Self(4);
    /// `NFNL_MSG_BATCH_BEGIN`.
    pub const BATCH_BEGIN: Self = Self(0x10);
    /// `NFNL_MSG_BATCH_END`.
    pub const BATCH_END: Self = Self(0x11);

    /// A message of a subsystem.
    pub const fn of(subsystem: Subsystem, message: u8) -> Self {
        Self((subsystem as u16) << 8 | message as u16)
    }

    /// The message number, if the message is one of the subsystem.
    pub const fn within(self, subsystem: Subsystem) -> Option<u8> {
        let [high, low] = self.0.to_be_bytes();
        if high as u16 == subsystem as u16 { Some(low) } else { None }
    }
}

/// What precedes the attributes of a message we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Type.
    pub kind: Kind,
    /// `NLM_F_REQUEST` is added.
    pub flags: Flags,
    /// `nfgen_family`.
    pub family: u8,
    /// `res_id`, in host order: the subsystem of a batch, the group of a log.
    pub resource: u16,
}

impl Header {
    /// A message of a subsystem.
    pub const fn new(kind: Kind, flags: Flags, family: u8) -> Self {
        Self { kind, flags, family, resource: 0 }
    }
}

impl Writer {
    /// Appends one message.
    pub fn message(&mut self, header: Header, sequence: u32, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        let [r0, r1] = header.resource.to_be_bytes();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&header.kind.0.to_ne_bytes());
        self.bytes.extend_from_slice(&(header.flags | Flags::REQUEST).0.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0, 0, 0, 0, header.family, 0, r0, r1]);
        fill(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or_else(|_| {
            self.spoil();
            0
        });
        if let Some(slot) = self.bytes.get_mut(start..start + 4) {
            slot.copy_from_slice(&length.to_ne_bytes());
        }
    }
}

/// One message, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Type.
    pub kind: Kind,
    /// Flags.
    pub flags: Flags,
    /// The sequence number of the request it answers.
    pub sequence: u32,
    /// The netlink port of whoever caused it; the kernel's own answers carry ours.
    pub port: u32,
    /// All after the header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// `nfgen_family` and the attributes after `struct nfgenmsg`.
    pub fn netfilter(&self) -> Result<(u8, Attributes<'a>), Malformed> {
        let (header, attributes) = self.payload.split_first_chunk::<NETFILTER>().ok_or(Malformed)?;
        let [family, ..] = *header;
        Ok((family, Attributes::new(attributes)))
    }
}

/// Messages one after another, as one datagram holds them.
#[derive(Debug, Clone, Copy)]
pub struct Messages<'a> {
    bytes: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Reads from the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn split(&self) -> Option<(Message<'a>, &'a [u8])> {
        let (header, _) = self.bytes.split_first_chunk::<HEADER>()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let message = Message {
            kind: Kind(u16::from_ne_bytes([k0, k1])),
            flags: Flags(u16::from_ne_bytes([f0, f1])),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            payload: self.bytes.get(HEADER..length)?,
        };
        Some((message, self.bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let Some((message, rest)) = self.split() else {
            self.bytes = &[];
            return Some(Err(Malformed));
        };
        self.bytes = rest;
        Some(Ok(message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_its_header_family_resource_and_attributes() {
        let mut writer = Writer::default();
        let header = Header::new(Kind::of(Subsystem::Nftables, 16), Flags::ACK, 1);
        writer.message(Header { resource: 10, ..header }, 0x0102, |message| message.put_be32(1, 7));
        assert_eq!(
            writer.bytes(),
            [28, 0, 0, 0, 16, 10, 5, 0, 2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 10, 8, 0, 1, 0, 0, 0, 0, 7]
        );
        let message = Messages::new(writer.bytes()).next().unwrap().unwrap();
        assert_eq!(message.kind.within(Subsystem::Nftables), Some(16));
        assert_eq!(message.kind.within(Subsystem::Conntrack), None);
        let (family, mut attributes) = message.netfilter().unwrap();
        assert_eq!((family, attributes.next().unwrap().unwrap().be32()), (1, Ok(7)));
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_reader_panic_or_loop(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(16), Just(20), any::<u8>()], 0..600)
        ) {
            let read = Messages::new(&bytes).flatten().inspect(|message| {
                let _ = message.netfilter().map(|(_, attributes)| attributes.count());
                let _ = crate::errno::Refusal::read(message);
            });
            prop_assert!(read.count() <= bytes.len());
        }
    }
}

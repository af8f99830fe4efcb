//! Packets that rules hand to user space (`NFLOG`; linux/netfilter/nfnetlink_log.h).
//!
//! One reader a group and network namespace. The kernel numbers what it logs, so whatever does not fit the socket's
//! queue is counted exactly from the gap in the numbers. Reading slowly costs records, never packets.
use std::borrow::Cow;
use std::time::Duration;

use crate::attribute::Writer;
use crate::error::Error;
use crate::message::{Flags, Header, Kind, Subsystem};
use crate::socket::{Receipt, Socket};

mod codec;

/// `NFULNL_MSG_PACKET`.
const PACKET: u8 = 0;
/// `NFULNL_MSG_CONFIG`.
const CONFIG: u8 = 1;
/// How long the kernel may gather packets before it sends them, in hundredths of a second: nobody who watches notices,
/// and a flood wakes the reader twenty times a second.
const GATHER: u32 = 5;
/// Packets after which it sends at once.
const GATHER_PACKETS: u32 = 128;
/// Bytes it gathers them in: half of what the socket reads at a time.
const GATHER_BYTES: u32 = 64 << 10;

/// Room for what was not read yet: in a flood, more of it would only be older.
const QUEUE: usize = 1 << 20;

/// One packet as it was logged, borrowed from the socket's buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged<'a> {
    /// What the rule says of itself.
    pub prefix: Cow<'a, str>,
    /// Index of the interface of arrival; of a bridge's port rather than the bridge.
    pub arrived_by: Option<u32>,
    /// Index of the interface it would have left by; likewise.
    pub leaving_by: Option<u32>,
    /// The packet from its IP header on, as far as it was copied.
    pub packet: &'a [u8],
    /// Its number among those of the group.
    pub sequence: Option<u32>,
}

/// What came of one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// Packets handed on.
    pub packets: u64,
    /// Packets that were logged and never reached us.
    pub lost: u64,
    /// Messages that cannot be read.
    pub malformed: u64,
}

/// The reader of one group, in the network namespace of the thread that opened it.
pub struct Nflog {
    socket: Socket,
    next: Option<u32>,
}

impl Nflog {
    /// Becomes the reader of a group; each packet is copied up to `copy` bytes. Refused (`EPERM`) without
    /// CAP_NET_ADMIN, and while another program reads the group.
    pub fn open(group: u16, copy: u32) -> Result<Self, Error> {
        let mut socket = Socket::with_queue(QUEUE)?;
        let kind = Kind::of(Subsystem::Log, CONFIG);
        let header = Header { resource: group, ..Header::new(kind, Flags::NONE, 0) };
        let fill = |writer: &mut Writer| codec::write_config(copy, writer);
        socket.request("becoming the reader of an NFLOG group", header, fill, |_| Ok(()))?;
        Ok(Self { socket, next: None })
    }

    /// Waits for packets, at most `patience`, and hands on those that come together.
    pub fn next(&mut self, patience: Duration, visit: &mut dyn FnMut(&Logged<'_>)) -> Result<Heard, Error> {
        let (mut heard, mut next) = (Heard::default(), self.next);
        let listened = self.socket.listen(patience, |message| {
            if message.kind.within(Subsystem::Log) != Some(PACKET) {
                return Ok(());
            }
            let read = message.netfilter().and_then(|(_, attributes)| codec::read(attributes));
            let Ok(logged) = read else {
                heard.malformed += 1;
                return Ok(());
            };
            heard.packets += 1;
            heard.lost += u64::from(gap(&mut next, logged.sequence));
            visit(&logged);
            Ok(())
        });
        self.next = next;
        match listened {
            Ok(Receipt::Heard | Receipt::Quiet) => Ok(heard),
            // How many, the next number tells.
            Err(Error::Lost { .. }) => Ok(heard),
            Err(error) => Err(error),
        }
    }
}

/// How many numbers were left out before this one.
fn gap(next: &mut Option<u32>, sequence: Option<u32>) -> u32 {
    let Some(sequence) = sequence else { return 0 };
    let missing = next.map_or(0, |next| sequence.wrapping_sub(next));
    *next = Some(sequence.wrapping_add(1));
    // A number from the past is no gap.
    if missing > u32::MAX / 2 { 0 } else { missing }
}

#[cfg(test)]
mod tests;

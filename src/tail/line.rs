//! One line of a log, and the packet it tells of.
//!
//! Pure. Reads what the kernel prints for a dropped packet (`net/netfilter/nf_log_syslog.c`; ulogd's LOGEMU prints the
//! same), whichever firewall asked for it, in IPv4 and IPv6, with whatever log prefix, under whatever a log daemon puts
//! before it. Nothing that follows `[` is read: there the kernel prints the packet an ICMP error quotes, whose ports
//! are not those of the error.
mod head;
mod packet;

use jiff::Timestamp;

use crate::drops::record::{Cause, Record};
use crate::tail::stamp::layout::Layout;
use crate::tail::stamp::{self, Clock};
use head::Spoken;
use packet::Packet;

/// Which lines are drops, and how they are stamped.
#[derive(Debug, Clone, Default)]
pub struct Grammar {
    /// Whose lines count.
    pub prefixes: Prefixes,
    /// A form of time tried before those everybody knows.
    pub layout: Option<Layout>,
}

/// The log prefixes that mark a drop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Prefixes {
    /// Every packet that is logged.
    #[default]
    Any,
    /// One of these.
    These(Vec<Prefix>),
}

/// A log prefix, as words: how many spaces end it does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Vec<String>);

impl From<&str> for Prefix {
    fn from(text: &str) -> Self {
        Self(text.split_whitespace().map(str::to_owned).collect())
    }
}

impl Prefix {
    /// Does it say nothing?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is a prefix this one, or does it hold these words in a row? Only the kernel may add words to ours.
    fn fits(&self, words: &[&str], spoken: Spoken) -> bool {
        match spoken {
            Spoken::Kernel => words.windows(self.0.len().max(1)).any(|window| *window == *self.0),
            Spoken::Nobody => *words == *self.0,
        }
    }
}

/// Why a line tells of no drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It tells of no packet.
    NoPacket,
    /// Of a packet, under a prefix nobody asked for.
    OtherPrefix,
    /// Another program than the kernel said it.
    NotTheKernel,
    /// It does not say when, or in a way nobody knows.
    NoTime,
    /// It tells of something that is not IP: ARP, say.
    NotIp,
    /// A field of the packet is missing or makes no sense.
    Broken(&'static str),
}

impl Grammar {
    /// Reads a line of a log file.
    pub fn line(&self, line: &str, clock: &Clock) -> Result<Record, Unread> {
        let (head, body) = packet::find(line).ok_or(Unread::NoPacket)?;
        let (stamp, rest) = stamp::read(head, self.layout.as_ref(), clock).ok_or(Unread::NoTime)?;
        let said = head::said(stamp, rest).ok_or(Unread::NotTheKernel)?;
        let told = self.cause(said.prefix, said.spoken).or_else(|| {
            // No host is named, as some templates have it: then all of it is the prefix.
            let prefix = stamp::skip_uptime(rest);
            self.cause(prefix, Spoken::Nobody).filter(|_| matches!(said.spoken, Spoken::Nobody))
        });
        let cause = told.ok_or(Unread::OtherPrefix)?;
        record(stamp.at(), body, cause)
    }

    /// Reads what the kernel said at a moment that is known from elsewhere.
    pub fn message(&self, message: &str, at: Timestamp) -> Result<Record, Unread> {
        let (head, body) = packet::find(message).ok_or(Unread::NoPacket)?;
        let prefix = stamp::skip_uptime(head);
        let cause = self.cause(prefix, Spoken::Kernel).ok_or(Unread::OtherPrefix)?;
        record(at, body, cause)
    }

    fn cause(&self, prefix: &str, spoken: Spoken) -> Option<Cause> {
        let words: Vec<&str> = prefix.split_whitespace().collect();
        match &self.prefixes {
            Prefixes::Any => {}
            Prefixes::These(wanted) => {
                wanted.iter().find(|wanted| wanted.fits(&words, spoken))?;
            }
        }
        Some(Cause::Theirs(words.join(" ")))
    }
}

fn record(at: Timestamp, body: &str, cause: Cause) -> Result<Record, Unread> {
    let Packet { source, destination, carried, arrived_by, leaving_by } = packet::read(body)?;
    Ok(Record { at, source, destination, carried, arrived_by, leaving_by, cause })
}

#[cfg(test)]
mod tests;

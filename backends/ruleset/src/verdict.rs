//! What a rule does. Accept and deny are words of policies; these are the kernel's.
use crate::ids::{ChainName, SetName};
use crate::matching::Lookup;

/// What the kernel does with the packet next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Leaves our base chain; other tables still see the packet.
    Accept,
    /// Gone, silently.
    Drop,
    /// Gone, and its sender is told. A packet filter that cannot tell drops.
    Reject(Answer),
    /// Back to the caller; from a base chain: its policy.
    Return,
    /// Into the chain, and back after it.
    Jump(ChainName),
    /// Into the chain; its end is the end of this one too.
    Goto(ChainName),
}

/// How a sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// A TCP reset: nobody listens. Only for TCP.
    Reset,
    /// ICMP: administratively prohibited.
    Prohibited,
}

impl Verdict {
    /// The chain this verdict leads into.
    pub const fn target(&self) -> Option<&ChainName> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            Self::Accept | Self::Drop | Self::Reject(_) | Self::Return => None,
        }
    }
}

/// A drop record to user space (NFLOG), at a bounded rate for each source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Log {
    /// NFLOG group.
    pub group: u16,
    /// At most 127 bytes (`NF_LOG_PREFIXLEN`); leads back to the chain.
    pub prefix: String,
    /// Bytes of the packet to copy.
    pub snaplen: u32,
    /// The meter that bounds records of one source address, so that one flooding pod cannot silence another (L5).
    pub meter: Meter,
}

/// A rate for each key, kept by the kernel in a dynamic set of shape [`Shape::Meter`](crate::set::Shape::Meter).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meter {
    /// The dynamic set.
    pub set: SetName,
    /// The key: always a source address.
    pub key: Lookup,
    /// Records a second and source.
    pub rate: u32,
    /// Records a source may send at once before the rate bites.
    pub burst: u32,
}

/// What happens once every question of a rule was answered yes, in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Effect {
    /// Count packets and bytes on the rule.
    pub count: Count,
    /// Send a record.
    pub log: Option<Log>,
    /// And then.
    pub outcome: Outcome,
}

/// Whether a rule has a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Count {
    /// Packets and bytes.
    Yes,
    /// Nothing.
    No,
}

/// How a rule ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The next rule.
    Continue,
    /// This verdict.
    Verdict(Verdict),
    /// The verdict the map holds for the key; the next rule when it holds none.
    Map(Lookup, SetName),
}

//! The seam: what a packet filter must be able to do for podwall.
//!
//! Synchronous: one thread owns the kernel. Semantics (who may talk to whom) stay above; a backend only carries
//! out operations, reads back what stands, and says what it can.
use std::fmt;

use crate::capabilities::Capabilities;
use crate::error::BackendError;
use crate::ids::{ChainName, RuleId, SetName};
use crate::ruleset::Ruleset;
use crate::set::Key;
use crate::transaction::{Op, Transaction};

/// A packet filter.
pub trait Backend: Send {
    /// What was probed when the backend was opened.
    fn capabilities(&self) -> &Capabilities;

    /// Reads back our table and nothing else. The next commit is checked against what was read (S4).
    fn observe(&mut self) -> Result<Observed, BackendError>;

    /// Everything but the commit: the kernel parses and validates, then forgets.
    fn check(&mut self, transaction: &Transaction) -> Result<(), BackendError>;

    /// All or nothing.
    fn commit(&mut self, transaction: &Transaction) -> Result<Receipt, BackendError>;

    /// Takes out of our table what no ruleset can name. Nothing of ours leads there once the rest is put right.
    fn sweep(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Where nothing tells of other writers: might something else stand than what the last commit or observe left? To
    /// be asked every other second, so it may answer "no" while it saves its strength; what it cannot tell, observe
    /// does.
    fn looks_changed(&mut self) -> Result<bool, BackendError> {
        Ok(true)
    }

    /// Packets and bytes of every counted rule, for metrics and drop reports.
    fn counters(&mut self) -> Result<Vec<Counter>, BackendError>;

    /// Packets and bytes of every element that has a counter and was met at least once.
    fn hits(&mut self) -> Result<Vec<Hit>, BackendError>;
}

/// What stands in the kernel under our name.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// `None`: there is no table of ours.
    pub ruleset: Option<Ruleset>,
    /// Chains and sets that hold something we cannot have written; whoever did, the diff replaces it, or
    /// [`Backend::sweep`] takes it out where we have no name for it.
    pub alien: Vec<String>,
}

impl Observed {
    /// What stands, an absent table read as an empty one.
    pub fn or_empty(self) -> Ruleset {
        self.ruleset.unwrap_or_default()
    }

    /// What leaves no table behind, not even an empty one; `None` where there is none.
    pub fn unload(&self) -> Option<Transaction> {
        self.ruleset.as_ref().map(|_| Transaction::new(vec![Op::DeleteTable]))
    }
}

/// What a commit cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Receipt {
    /// Messages or lines sent.
    pub messages: usize,
    /// Bytes sent.
    pub bytes: usize,
}

/// A rule's counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// The chain it is in.
    pub chain: ChainName,
    /// Where the rule came from.
    pub rule: RuleId,
    /// Packets since the rule was made.
    pub packets: u64,
    /// Bytes since the rule was made.
    pub bytes: u64,
}

/// An element's counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The set it is in.
    pub set: SetName,
    /// The element.
    pub key: Key,
    /// Packets since the element was made.
    pub packets: u64,
    /// Bytes since the element was made.
    pub bytes: u64,
}

/// Who else wrote into our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignChange {
    /// Netlink port id of the writer: usually its process id.
    pub writer: u32,
    /// The writer's name, when it was still there to ask.
    pub program: Option<String>,
}

impl fmt::Display for ForeignChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.program {
            Some(program) => write!(f, "{program} (pid {})", self.writer),
            None => write!(f, "a process that has gone (netlink port {})", self.writer),
        }
    }
}

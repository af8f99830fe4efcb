//! A backend without a kernel: a ruleset in memory, as strict as nf_tables.
//!
//! Owns nothing but the acting; the rules every operation is held to are [`apply_op`]'s. A commit works on a copy
//! and swaps on success. It can be told to fail at a given commit, and to find somebody else's writes.
use std::collections::BTreeMap;

use crate::backend::{Backend, Counter, Hit, Observed, Receipt};
use crate::capabilities::{Atomicity, Capabilities, Guard};
use crate::error::{BackendError, Refusal};
use crate::ruleset::Ruleset;
use crate::transaction::{Op, Transaction};
use crate::verdict::Count;

mod strict;

pub use strict::{Errno, apply_op};

/// How a commit is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The kernel refuses this operation of the transaction; nothing is done.
    Rejected(usize),
    /// Somebody wrote since the table was read; nothing is done.
    Stale,
    /// The answer is lost although all was done.
    AnswerLost,
    /// The request is lost; nothing is done.
    RequestLost,
}

/// A packet filter in memory.
#[derive(Debug, Clone)]
pub struct Fake {
    capabilities: Capabilities,
    table: Option<Ruleset>,
    alien: Vec<String>,
    writes: u64,
    basis: Option<u64>,
    attempts: usize,
    failures: BTreeMap<usize, Failure>,
    committed: Vec<Transaction>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            capabilities: Capabilities {
                backend: "fake",
                guard: Guard::Watched,
                atomicity: Atomicity::Transaction,
                reverse_path: true,
                log: true,
                reject: true,
                learned: true,
                ipv6: true,
            },
            table: None,
            alien: Vec::new(),
            writes: 0,
            basis: None,
            attempts: 0,
            failures: BTreeMap::new(),
            committed: Vec::new(),
        }
    }
}

impl Fake {
    /// One that already holds a table.
    pub fn holding(ruleset: Ruleset) -> Self {
        Self { table: Some(ruleset), ..Self::default() }
    }

    /// What stands; `None`: no table.
    pub const fn table(&self) -> Option<&Ruleset> {
        self.table.as_ref()
    }

    /// Every transaction that was carried out, in order.
    pub fn committed(&self) -> &[Transaction] {
        &self.committed
    }

    /// Lets a commit fail: the next one is number zero.
    pub fn fail(&mut self, commit: usize, failure: Failure) {
        self.failures.insert(self.attempts + commit, failure);
    }

    /// Writes as another process would: unseen by us, in whatever way. `alien` are things we cannot have written.
    pub fn write_foreign(&mut self, alien: &[&str], write: impl FnOnce(&mut Option<Ruleset>)) {
        self.alien.extend(alien.iter().map(ToString::to_string));
        self.writes += 1;
        write(&mut self.table);
    }

    fn tried(&self, transaction: &Transaction) -> Result<Option<Ruleset>, BackendError> {
        let mut table = self.table.clone();
        for (index, op) in transaction.ops().iter().enumerate() {
            run(&mut table, op).map_err(|errno| refused(index, op, &errno.to_string()))?;
        }
        Ok(table)
    }
}

/// One operation on a table that may not be there.
fn run(table: &mut Option<Ruleset>, op: &Op) -> Result<(), Errno> {
    match (op, table.as_mut()) {
        (Op::AddTable, None) => *table = Some(Ruleset::default()),
        (Op::AddTable, Some(_)) => return Err(Errno::Exists),
        (Op::DeleteTable, Some(_)) => *table = None,
        (_, Some(ruleset)) => return apply_op(ruleset, op),
        (_, None) => return Err(Errno::Missing),
    }
    Ok(())
}

fn refused(index: usize, op: &Op, reason: &str) -> BackendError {
    let object = match op {
        Op::AddTable | Op::DeleteTable => "table".to_owned(),
        Op::AddSet(name, _)
        | Op::DeleteSet(name)
        | Op::AddElements(name, _)
        | Op::RemoveElements(name, _) => {
            format!("set {name}")
        }
        Op::AddChain(name, _) | Op::AddRules(name, _) | Op::FlushChain(name) | Op::DeleteChain(name) => {
            format!("chain {name}")
        }
    };
    BackendError::Rejected(vec![Refusal { op: index, object, reason: reason.to_owned() }])
}

fn lost(doing: &str) -> BackendError {
    BackendError::Io { doing: doing.to_owned(), source: std::io::ErrorKind::BrokenPipe.into() }
}

impl Backend for Fake {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn observe(&mut self) -> Result<Observed, BackendError> {
        self.basis = Some(self.writes);
        Ok(Observed { ruleset: self.table.clone(), alien: self.alien.clone() })
    }

    fn check(&mut self, transaction: &Transaction) -> Result<(), BackendError> {
        self.tried(transaction).map(drop)
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<Receipt, BackendError> {
        let failure = self.failures.remove(&self.attempts);
        self.attempts += 1;
        let basis = self.basis.take();
        if basis.is_some_and(|basis| basis != self.writes) {
            return Err(BackendError::Stale);
        }
        match failure {
            Some(Failure::Stale) => return Err(BackendError::Stale),
            Some(Failure::RequestLost) => return Err(lost("sending the transaction")),
            Some(Failure::Rejected(index)) => {
                let op = transaction.ops().get(index).unwrap_or(&Op::AddTable);
                return Err(refused(index, op, "EINVAL: told to"));
            }
            Some(Failure::AnswerLost) | None => {}
        }
        self.table = self.tried(transaction)?;
        self.committed.push(transaction.clone());
        match failure {
            Some(Failure::AnswerLost) => Err(lost("reading the answer")),
            Some(Failure::Rejected(_) | Failure::Stale | Failure::RequestLost) | None => {
                Ok(Receipt { messages: transaction.ops().len(), bytes: 0 })
            }
        }
    }

    fn sweep(&mut self) -> Result<(), BackendError> {
        self.alien.clear();
        Ok(())
    }

    fn counters(&mut self) -> Result<Vec<Counter>, BackendError> {
        let chains = self.table.iter().flat_map(|table| &table.chains);
        let counted = chains.flat_map(|(name, chain)| {
            let rules = chain.rules.iter().filter(|rule| rule.effect.count == Count::Yes);
            rules.map(|rule| Counter { chain: name.clone(), rule: rule.id, packets: 0, bytes: 0 })
        });
        Ok(counted.collect())
    }

    /// No packet ever comes by.
    fn hits(&mut self) -> Result<Vec<Hit>, BackendError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests;

//! Ordered operations that a backend carries out whole or not at all.
//!
//! Only the stager ([`crate::stage`]) builds one, so every transaction that reaches a kernel was ordered by it.
//! One operation is one thing a person would say in nft(8); `Display` prints it as such.
use std::sync::Arc;

use crate::ids::{ChainName, SetName};
use crate::ruleset::{Base, Chain, Rule};
use crate::set::{Key, SetSpec, Value};

/// One operation. Order within a transaction is the order of the list; a backend may not change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Make the table; an error if it exists and is somebody else's.
    AddTable,
    /// Delete the table with all it holds; an error if it does not exist.
    DeleteTable,
    /// Make an empty set.
    AddSet(SetName, SetSpec),
    /// Delete a set nothing refers to.
    DeleteSet(SetName),
    /// Make a chain without rules.
    AddChain(ChainName, Option<Base>),
    /// Append rules, in order.
    AddRules(ChainName, Arc<Chain>),
    /// Take all rules out of a chain.
    FlushChain(ChainName),
    /// Delete a chain nothing refers to, with its rules.
    DeleteChain(ChainName),
    /// Put elements that are not there.
    AddElements(SetName, Vec<(Key, Value)>),
    /// Take out elements that are there.
    RemoveElements(SetName, Vec<Key>),
}

impl Op {
    /// The rules an operation appends; none for others.
    pub fn rules(&self) -> &[Rule] {
        match self {
            Self::AddRules(_, chain) => &chain.rules,
            Self::AddTable
            | Self::DeleteTable
            | Self::AddSet(..)
            | Self::DeleteSet(_)
            | Self::AddChain(..)
            | Self::FlushChain(_)
            | Self::DeleteChain(_)
            | Self::AddElements(..)
            | Self::RemoveElements(..) => &[],
        }
    }
}

/// A list of operations; nobody but the stager can make one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    ops: Vec<Op>,
}

impl Transaction {
    pub(crate) const fn new(ops: Vec<Op>) -> Self {
        Self { ops }
    }

    /// In order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

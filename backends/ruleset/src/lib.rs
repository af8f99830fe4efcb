//! The language every podwall backend speaks: a node's packet filter as a plain value.
//!
//! Data flows one way: the engine edits a [`Ruleset`] through a [`Recorder`], which yields a [`Delta`];
//! [`stage::stages`] orders the delta into fail-closed [`Transaction`]s; a [`Backend`] commits each whole or not
//! at all. [`evaluate`](evaluate::evaluate) runs a packet through a ruleset without any kernel: it is the
//! simulator behind `podwall explain`, and the oracle of the tests. This crate reads no clock and does no IO.

pub mod backend;
pub mod capabilities;
pub mod delta;
pub mod detour;
pub mod error;
pub mod evaluate;
pub mod fake;
pub mod ids;
pub mod matching;
pub mod packet;
pub mod ruleset;
pub mod set;
pub mod stage;
pub mod text;
pub mod transaction;
pub mod verdict;

#[cfg(test)]
mod world;

pub use backend::{Backend, Counter, ForeignChange, Hit, Observed, Receipt};
pub use capabilities::{Atomicity, Capabilities, Guard};
pub use delta::{Delta, Recorder};
pub use detour::{Askers, Detour, Proxy};
pub use error::{BackendError, Refusal};
pub use ids::{ChainName, Digest, LinkName, RuleId, SetName};
pub use matching::{ConnState, Family, Lookup, Match, PortRange, Protocol, Side};
pub use ruleset::{Base, Chain, Hook, Rule, Ruleset};
pub use set::{Deadline, Growth, Key, Set, SetSpec, Shape, Value};
pub use stage::{Stage, StageKind, stages};
pub use transaction::{Op, Transaction};
pub use verdict::{Answer, Count, Effect, Log, Meter, Outcome, Verdict};

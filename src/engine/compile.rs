//! Resolved policy into chains and sets: the layout of ARCHITECTURE.md, nothing else.
pub mod bans;
pub mod base;
pub mod exposures;
pub mod names;
pub mod policy_chain;
pub mod seat;

pub use policy_chain::{ChainRequest, Compiled};

//! Resolved policy into chains and sets: the layout of ARCHITECTURE.md, nothing else.
pub mod base;
pub mod intervals;
pub mod names;
pub mod policy_chain;

pub use policy_chain::{ChainRequest, Compiled};

//! Kubernetes events about drops, on both ends (`events.k8s.io/v1`).
//!
//! One object for everything that is alike, its `series` counting on; so a flood is one object. The agent that drops
//! writes for both ends (decision D1): its own name and what is alike decide the object's name, so after a restart it
//! counts on in the same object. How many are written, and how many wait, is bounded; an API server that is away is
//! asked ever more rarely, and what it missed is in the counts.
pub mod desk;
pub mod form;
pub mod writer;

pub use desk::{Desk, Key};
pub use form::Form;

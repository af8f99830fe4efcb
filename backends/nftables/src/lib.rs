//! The native backend: rulesets as nf_tables messages, and back.
//!
//! ```text
//! Op -> lower -> object/*, expr/* -> one batch -> kernel      kernel -> dumps -> object/*, expr/* -> lift -> Ruleset
//! ```
//!
//! Owns every byte we exchange with nf_tables. `lift` is the exact inverse of `lower`, so what is observed compares
//! with what was wanted; whatever cannot have come from us is reported as alien, never guessed at.

mod backend;
mod data;
mod detour;
mod expr;
mod failure;
mod lift;
mod lower;
mod monitor;
mod object;
mod observe;
mod owner;
mod probe;
mod refusal;
mod sweep;
mod uapi;

pub use backend::{Guard, Nftables, Options, hits};
pub use detour::NftablesDetour;
pub use lower::Encoder;
pub use monitor::{Monitor, Notice};

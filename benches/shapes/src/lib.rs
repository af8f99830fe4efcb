//! podwall-shapes: clusters of a known shape, the changes done to them, and how their times are summed up.
//!
//! Everything is counted out, nothing is random: two processes that name the same [`Shape`] and the same [`Deed`]
//! hold the same objects, the same rulesets and the same deltas, byte for byte. So every contender of a bench, in
//! whatever process, carries out the very same transaction.
mod deed;
pub mod kube_router;
mod samples;
mod shape;

pub use deed::{Deed, Half, Script, Turn};
pub use samples::{Budget, Samples, readable};
pub use shape::{Place, Shape, change};

/// Why a shape could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the bench made an object the engine does not take: {0}")]
pub struct Misshapen(pub String);

//! podwall-engine: from cluster objects to one node's ruleset. No IO, no clock, cannot fail.
//!
//! [`ingest`] turns API objects into the [`model`] once, at the door. An [`Engine`] takes one [`Change`] after
//! another and yields the [`Update`] of its node's ruleset, at a cost that follows the change. [`plan`](plan::plan)
//! computes the same ruleset from scratch, slowly and plainly: it is the oracle of the deltas, and of whatever `render`
//! and `explain` show: `apply(delta, old) == plan(new)`, byte for byte.
pub mod change;
pub mod cluster;
pub mod compile;
pub mod engine;
pub mod explain;
pub mod flows;
pub mod ingest;
pub mod intervals;
pub mod lessons;
pub mod model;
pub mod options;
pub mod plan;
pub mod readers;
pub mod recheck;
pub mod resolve;
pub mod warning;

pub use change::Change;
pub use cluster::Cluster;
pub use engine::{Engine, Update};
pub use lessons::{Lesson, Lessons};
pub use model::NodeName;
pub use options::{Options, PendingMode, PodRanges};
pub use plan::{Plan, plan};
pub use recheck::Barred;
pub use warning::{ObjectRef, Warning};

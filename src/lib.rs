#![doc = include_str!("ARCHITECTURE.md")]
#![doc = include_str!("PROMISES.md")]

pub mod agent;
pub mod cli;
pub mod dns;
pub mod drops;
pub mod manifests;
pub mod operator;
pub mod tail;
pub mod telemetry;

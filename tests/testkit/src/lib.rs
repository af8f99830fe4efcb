//! Test-only: builders, random clusters and a naive second reading of the NetworkPolicy rules.

pub mod apiserver;
pub mod dnat;
pub mod naive;
pub mod objects;
pub mod patience;
pub mod port;
pub mod process;
pub mod skip;
pub mod world;

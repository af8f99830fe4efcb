//! The numbered rules of the policy semantics reference, sections 1 to 10, each as a sentence that holds.
//!
//! Manifests go through ingest into engines (incremental) and through `plan`, packets through the simulator, in
//! IPv4 and IPv6 alike. What is denied has what still passes beside it in the same test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on shall say so and stop"
)]
mod audit;
mod connections;
mod decoding;
mod domains;
mod end_to_end;
mod host;
mod ip_block;
mod isolation;
mod manifest;
mod pods;
mod ports;
mod propagation;
mod selectors;
mod services;
mod world;

/// Everybody but x/a.
const ALL_BUT_XA: &str = "x/b x/c y/a y/b y/c z/a z/b z/c outside";

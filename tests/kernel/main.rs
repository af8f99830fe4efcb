//! Real packets, judged by the real kernel: every suite builds nodes and pods as network namespaces of its own,
//! compiles cluster objects with the engine, loads them through the backend that
//! `PODWALL_TEST_BACKEND` names (`nftables`, `iptables-nft`, `iptables-legacy`), and asks who reaches whom.
//!
//! Needs root. Each "is dropped" has its "still passes" twin: [`rig::Rig::expect`] compares whole truth tables.
#![allow(unreachable_pub, reason = "a test binary exports nothing; `pub` is what a module offers the others")]
#![allow(clippy::print_stdout, reason = "seeds and amounts, which a failure needs and a success may tell")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on shall say so and stop"
)]
mod adoption;
mod adversary;
mod audit;
mod bans;
mod bridged;
mod churn;
mod commands;
mod conformance;
mod crash;
mod domains;
mod drops;
mod exposure;
mod flows;
mod lock;
mod meddling;
mod parity;
mod pending;
mod readers;
mod rig;
mod services;
mod spoof;
mod swap;
mod traffic;

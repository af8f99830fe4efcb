//! Tests that need nothing but Rust: no root, no kernel, no cluster.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
mod cli;
mod golden;
mod podwall;
mod tidy;

//! Tests that need nothing but Rust: no root, no kernel, no cluster.
mod cli;
mod golden;
mod podwall;
mod tidy;

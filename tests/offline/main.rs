//! Tests that need nothing but Rust: no root, no kernel, no cluster.
mod tidy;

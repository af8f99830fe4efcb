//! Test-only: builders, random clusters and a naive second reading of the NetworkPolicy rules.

pub mod apiserver;

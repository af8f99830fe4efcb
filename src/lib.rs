#![doc = include_str!("ARCHITECTURE.md")]
#![doc = include_str!("PROMISES.md")]

pub mod cli;

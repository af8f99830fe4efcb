//! The agent.
pub mod host;
pub mod input;
pub mod lock;
pub mod source;
pub mod watch;

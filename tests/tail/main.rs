//! `podwall tail` with what it meets on nodes: logs rotated by the real logrotate, journal files written by the real
//! systemd-journal-remote.
//!
//! Needs no root, no kernel and no cluster, but those two Debian packages; without them a test says so and passes, and
//! with `CI=true` it fails instead.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]
mod environment;
mod journal;
mod log;
mod rotation;
mod runner;

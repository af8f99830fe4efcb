//! Where lines come from, and how far each place was read.
use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::file::Mark;

/// Something that was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told<'a> {
    /// A line of a file, stamp and all.
    Line(&'a str),
    /// A message of the kernel, at a known moment.
    Message(&'a str, Timestamp),
}

/// Takes what was said.
pub type Listener<'a> = dyn FnMut(Told<'_>) + 'a;

/// What a look at a source found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// All there is.
    Whole,
    /// So much that it was left for the next look.
    Part,
}

/// How far everything was read; what a restart goes on from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The log file, and files it was before.
    #[serde(default)]
    pub files: Vec<Mark>,
    /// Of each journal file, by its id, the sequence number of the last entry read.
    #[serde(default)]
    pub journals: BTreeMap<String, u64>,
}

/// What could not be read, for people and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// A line longer than any that tells of a packet.
    TooLong,
    /// The log was rotated away before its end was read.
    RotatedAway,
    /// A journal file is damaged.
    Damaged,
}

/// What went wrong with a source; it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub struct SourceError {
    /// The step.
    pub doing: &'static str,
    /// Of what.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: std::io::Error,
}

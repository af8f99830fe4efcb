//! By what a log file is known again: the digest of its first bytes.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use podwall_ruleset::Digest;
use serde::{Deserialize, Serialize};

/// Two or three lines, so several stamps.
const LONGEST: usize = 512;

/// The beginning of a file, as far as it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Print {
    length: usize,
    digest: String,
}

impl Print {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let bytes = beginning(file, LONGEST)?;
        Ok(Self { length: bytes.len(), digest: digest(&bytes) })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Will it stay as it is, however much is appended?
    pub(super) const fn is_full(&self) -> bool {
        self.length >= LONGEST
    }

    /// Does a file begin like this?
    pub(super) fn fits(&self, file: &File) -> io::Result<bool> {
        let bytes = beginning(file, self.length.min(LONGEST))?;
        Ok(bytes.len() == self.length && digest(&bytes) == self.digest)
    }
}

fn digest(bytes: &[u8]) -> String {
    Digest::of([bytes]).to_string()
}

fn beginning(file: &File, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

//! Follows the journal's files, without journald's library or programs: the image has neither.
//!
//! Reads what the kernel said (`_TRANSPORT=kernel`, which journald itself sets), and nothing else. Each file is known
//! by its id, so renaming one when it is archived changes nothing; how far it was read is the sequence number of an
//! entry. A file never seen before is read from the oldest moment that still counts.
pub mod export;
mod file;
mod object;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::source::{Listener, Look, Loss, SourceError, Told};
use file::{Entry, JournalFile, Said};

/// Read of one file before others get their turn, and positions are kept.
const SHARE: usize = 10_000;

/// How often a file that makes no sense is looked at before it is given up: journald may be in the middle of something.
const PATIENCE: u32 = 5;

/// A folder of journal files that is followed.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    /// Entries before this do not count in files never seen before.
    since: Timestamp,
    /// By inode.
    files: BTreeMap<u64, Place>,
    /// Sequence numbers of what was read, by file id.
    read: BTreeMap<String, u64>,
    losses: Vec<Loss>,
}

#[derive(Debug)]
enum Place {
    Open(Box<JournalFile>),
    /// It cannot be read.
    Damaged,
}

impl Journal {
    /// Follows a folder from where it was left.
    pub const fn new(folder: PathBuf, since: Timestamp, read: BTreeMap<String, u64>) -> Self {
        Self { folder, since, files: BTreeMap::new(), read, losses: Vec::new() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Is there a journal?
    pub fn stands(&self) -> bool {
        !self.files.is_empty()
    }

    /// Folders whose changes are news.
    pub fn folders(&self) -> Vec<PathBuf> {
        let inside = machines(&self.folder).unwrap_or_default();
        std::iter::once(self.folder.clone()).chain(inside).collect()
    }

    /// Reads on.
    pub fn look(&mut self, listener: &mut Listener<'_>) -> Result<Look, SourceError> {
        let gone = self.list().map_err(|source| SourceError {
            doing: "listing",
            path: self.folder.clone(),
            source,
        })?;
        let mut look = Look::Whole;
        for place in self.files.values_mut() {
            let Place::Open(file) = place else { continue };
            let outcome = read(file, &mut self.losses, listener);
            self.read.insert(file.id().to_owned(), file.read_to());
            match outcome {
                Ok(Look::Part) => look = Look::Part,
                Ok(Look::Whole) => {}
                Err(error) if file.fails() < PATIENCE => {
                    tracing::debug!(
                        reason = &error as &dyn std::error::Error,
                        "a journal file is tried again"
                    );
                }
                Err(error) => {
                    let reason = &error as &dyn std::error::Error;
                    tracing::warn!(reason, id = file.id(), "a journal file cannot be read on");
                    self.losses.push(Loss::Damaged);
                    *place = Place::Damaged;
                }
            }
        }
        for inode in gone {
            if let Some(Place::Open(file)) = self.files.remove(&inode) {
                self.read.remove(file.id());
            }
        }
        Ok(look)
    }

    /// Where everything was left.
    pub fn position(&self) -> BTreeMap<String, u64> {
        self.read.clone()
    }

    /// What was lost since this was asked last.
    pub fn losses(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.losses)
    }

    /// Opens what has come; answers what has gone.
    fn list(&mut self) -> io::Result<Vec<u64>> {
        let mut there = Vec::new();
        let mut folders = vec![self.folder.clone()];
        folders.extend(machines(&self.folder)?);
        for folder in folders {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                // The kernel speaks in nobody's own journal.
                let name = entry.file_name().to_string_lossy().into_owned();
                let journal = name.ends_with(".journal") || name.ends_with(".journal~");
                if !journal || name.starts_with("user-") {
                    continue;
                }
                let Ok(metadata) = entry.metadata() else { continue };
                there.push(metadata.ino());
                if !self.files.contains_key(&metadata.ino())
                    && let Some(place) = self.open(&entry.path())
                {
                    self.files.insert(metadata.ino(), place);
                }
            }
        }
        Ok(self.files.keys().copied().filter(|inode| !there.contains(inode)).collect())
    }

    /// None while journald has not finished making it.
    fn open(&mut self, path: &Path) -> Option<Place> {
        match JournalFile::open(path) {
            Ok(Some(mut file)) => {
                match self.read.get(file.id()) {
                    Some(read) => file.start_after(*read),
                    None => file.start_at(self.since),
                }
                Some(Place::Open(Box::new(file)))
            }
            Ok(None) => None,
            Err(error) => {
                let reason = &error as &dyn std::error::Error;
                tracing::warn!(reason, file = %path.display(), "not read");
                self.losses.push(Loss::Damaged);
                Some(Place::Damaged)
            }
        }
    }
}

fn read(
    file: &mut JournalFile,
    losses: &mut Vec<Loss>,
    listener: &mut Listener<'_>,
) -> Result<Look, object::Damage> {
    for _ in 0..SHARE {
        let Some(Entry { at, said }) = file.next()? else { return Ok(Look::Whole) };
        match said {
            Said::Kernel(message) => listener(Told::Message(&message, at)),
            Said::Unreadable => losses.push(Loss::Damaged),
            Said::Others => {}
        }
    }
    Ok(Look::Part)
}

/// Folders named after a machine id, as journald makes them.
fn machines(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_machine = |name: &str| {
        let id = name.split('.').next().unwrap_or_default();
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let mut machines = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if is_machine(&entry.file_name().to_string_lossy()) && entry.path().is_dir() {
            machines.push(entry.path());
        }
    }
    Ok(machines)
}

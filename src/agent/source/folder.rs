//! What a folder of manifests says, and how that changes from one look to the next.
//!
//! Owns four rules, all so that nothing opens by accident. A broken file keeps its last good content and is reported
//! with file and line; one that was never good counts as far as its documents can be read. An object in two files is
//! taken from the first by name, and reported with both places if they differ. A file that is being written is read once it rests, because half a file may be
//! well-formed and would open what its other half closes. What disappears counts until it has stayed away: editors
//! and version control take a file away before they put the next one there, and a mount that goes leaves an empty
//! folder behind.
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use podwall_engine::change::Change;
use podwall_engine::{Warning, ingest};

use crate::agent::input::Input;
use crate::manifests::{self, Identity, Manifest, ManifestError, Place, Twice};

/// A file younger than this may still be in the making.
pub const SETTLE: Duration = Duration::from_millis(50);

/// A file that is away for less than this comes back changed.
pub const VANISH: Duration = Duration::from_millis(200);

/// What a look found.
#[derive(Debug, Default)]
pub struct Look {
    /// Objects that came, changed or went.
    pub inputs: Vec<Input>,
    /// Every file that cannot be used as it is, with the reason.
    pub problems: Vec<String>,
    /// Some file is in the making, or perhaps being replaced: look again soon.
    pub unsettled: bool,
    /// The folder could be read and says something.
    pub complete: bool,
}

/// The folder as it was understood last.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Device and inode, when it last held a manifest.
    identity: Option<(u64, u64)>,
    files: BTreeMap<PathBuf, Content>,
    applied: BTreeMap<Identity, Entry>,
    duplicates: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Content {
    stamp: Option<Stamp>,
    entries: Vec<(Identity, Entry)>,
    problem: Option<String>,
    /// When it was first found missing.
    missing: Option<SystemTime>,
}

/// Tells versions of a file apart. The inode notices a file put in place of another within one tick of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    size: u64,
    inode: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    place: Place,
    change: Change,
    warnings: Vec<Warning>,
}

impl Folder {
    /// A folder nothing was read from yet.
    pub const fn new(path: PathBuf) -> Self {
        Self {
            path,
            identity: None,
            files: BTreeMap::new(),
            applied: BTreeMap::new(),
            duplicates: BTreeSet::new(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what changed since the last look.
    pub fn look(&mut self, now: SystemTime) -> Look {
        let mut look = Look::default();
        let files = match self.list() {
            Ok(files) => files,
            Err(problem) => {
                look.problems.push(problem);
                return look;
            }
        };
        let mut changed = false;
        for file in &files {
            match self.visit(file, now) {
                Visit::Same => {}
                Visit::Changed => changed = true,
                Visit::InTheMaking => look.unsettled = true,
            }
        }
        // What goes here may come back in a file that is in the making.
        let mended = !look.unsettled;
        let away = self.miss(&files, now);
        if mended {
            changed |= self.forget(&away);
        }
        look.unsettled |= self.files.values().any(|content| content.missing.is_some());
        if changed {
            self.resolve(&mut look.inputs);
        }
        // A new file in the making may hold the policy that closes what another file opens.
        look.complete = !look.unsettled && !files.is_empty();
        look.problems.extend(self.files.values().filter_map(|content| content.problem.clone()));
        look.problems.extend(self.duplicates.iter().cloned());
        if files.is_empty() {
            look.problems.push(format!("{}: no manifest in it", self.path.display()));
        }
        look
    }

    /// The files, unless nothing can be learnt from them.
    fn list(&mut self) -> Result<Vec<PathBuf>, String> {
        let files = manifests::files_of(&self.path).map_err(|error| with_cause(&error))?;
        let identity = self.path.metadata().ok().map(|folder| (folder.dev(), folder.ino()));
        if !files.is_empty() {
            self.identity = identity;
        } else if !self.files.is_empty() && self.identity != identity {
            let folder = self.path.display();
            return Err(format!(
                "{folder}: another, empty folder is in its place (unmounted?); what it said before counts"
            ));
        }
        Ok(files)
    }

    fn visit(&mut self, file: &Path, now: SystemTime) -> Visit {
        match stamp(file) {
            Ok(stamp) if resting(&stamp, now) => self.reread(file, stamp),
            Ok(_) => Visit::InTheMaking,
            Err(source) => {
                let content = self.files.entry(file.to_owned()).or_default();
                content.stamp = None;
                content.missing = None;
                let problem = with_cause(&ManifestError::Read { file: file.to_owned(), source });
                content.problem = Some(format!("{problem}; its last good content is kept"));
                Visit::Same
            }
        }
    }

    /// Notes which files are not there; answers those that have been away long enough.
    fn miss(&mut self, files: &[PathBuf], now: SystemTime) -> Vec<PathBuf> {
        let mut away = Vec::new();
        for (file, content) in &mut self.files {
            if files.binary_search(file).is_ok() {
                content.missing = None;
                continue;
            }
            let since = *content.missing.get_or_insert(now);
            match now.duration_since(since) {
                Ok(gone) if gone >= VANISH => away.push(file.clone()),
                Ok(_) => {}
                // The clock was set back: count anew.
                Err(_) => content.missing = Some(now),
            }
        }
        away
    }

    fn forget(&mut self, away: &[PathBuf]) -> bool {
        away.iter().for_each(|file| drop(self.files.remove(file)));
        !away.is_empty()
    }

    /// Reads a file whose stamp is another than last time.
    fn reread(&mut self, file: &Path, seen: Stamp) -> Visit {
        let content = self.files.entry(file.to_owned()).or_default();
        content.missing = None;
        if content.stamp == Some(seen) {
            return Visit::Same;
        }
        let read = std::fs::read_to_string(file);
        // Somebody may have begun to write after the look at its stamp.
        if stamp(file).ok() != Some(seen) {
            return Visit::InTheMaking;
        }
        content.stamp = Some(seen);
        let (entries, error) = match read {
            Ok(text) => understood(file, &text),
            Err(source) => {
                (Vec::new(), Some(with_cause(&ManifestError::Read { file: file.to_owned(), source })))
            }
        };
        content.problem = match error {
            None => None,
            Some(error) if content.entries.is_empty() => {
                Some(format!("{error}; only the file's readable documents count"))
            }
            Some(error) => {
                content.problem = Some(format!("{error}; its last good content is kept"));
                return Visit::Same;
            }
        };
        content.entries = entries;
        Visit::Changed
    }

    /// Works out which entry of each object counts, and what that changes.
    fn resolve(&mut self, inputs: &mut Vec<Input>) {
        let mut wanted: BTreeMap<&Identity, &Entry> = BTreeMap::new();
        let mut duplicates = BTreeSet::new();
        for (key, entry) in self.files.values().flat_map(|content| &content.entries) {
            let first = *wanted.entry(key).or_insert(entry);
            if first.change != entry.change {
                duplicates.insert(duplicate(key, first, entry));
            }
        }
        for (key, entry) in &wanted {
            let known = self
                .applied
                .get(*key)
                .is_some_and(|old| old.change == entry.change && old.warnings.len() == entry.warnings.len());
            if !known {
                inputs.push(Input::Object { change: entry.change.clone(), warnings: entry.warnings.clone() });
            }
        }
        // After what comes: a policy that is renamed must not be away for a moment.
        for (key, old) in &self.applied {
            let replaced = wanted.get(key).is_some_and(|new| same_identity(&old.change, &new.change));
            if let (false, Some(change)) = (replaced, ingest::removal(&old.change)) {
                inputs.push(Input::Object { change, warnings: Vec::new() });
            }
        }
        self.applied = wanted.into_iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
        self.duplicates = duplicates;
    }
}

/// What a look at one file found.
enum Visit {
    Same,
    Changed,
    InTheMaking,
}

/// The objects of a text, and the first thing that is wrong with it.
fn understood(file: &Path, text: &str) -> (Vec<(Identity, Entry)>, Option<String>) {
    let (manifests, error) = manifests::parse_leniently(file, text);
    let mut first_error = error.map(|error| with_cause(&error));
    let mut entries = Vec::new();
    for Manifest { place, object } in manifests {
        match ingest::object(&object) {
            Ok(Some((change, mut warnings))) => {
                for warning in &mut warnings {
                    warning.problem = format!("{} ({place})", warning.problem);
                }
                entries.push((Identity::of(&object), Entry { place, change, warnings }));
            }
            Ok(None) => {}
            Err(warning) => drop(first_error.get_or_insert_with(|| format!("{place}: {warning}"))),
        }
    }
    (entries, first_error)
}

fn duplicate(identity: &Identity, first: &Entry, second: &Entry) -> String {
    let (first, second) = (first.place.clone(), second.place.clone());
    format!("{}; the first counts", Twice { identity: identity.clone(), first, second })
}

/// Does applying the new one replace the old one? A pod of another UID is another pod.
fn same_identity(old: &Change, new: &Change) -> bool {
    ingest::removal(old) == ingest::removal(new)
}

fn stamp(file: &Path) -> std::io::Result<Stamp> {
    let metadata = file.metadata()?;
    Ok(Stamp { modified: metadata.modified()?, size: metadata.len(), inode: metadata.ino() })
}

/// A time in the future is another machine's clock: nothing to wait for.
fn resting(stamp: &Stamp, now: SystemTime) -> bool {
    now.duration_since(stamp.modified).map_or(true, |age| age >= SETTLE)
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;

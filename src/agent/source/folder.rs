//! What a folder of manifests says, and how that changes from one look to the next.
//!
//! Owns three rules. A broken file keeps its last good content and is reported with file and line; one that was never
//! good counts as far as its documents can be read. An object in two
//! files is taken from the first by name. A file that is being written is read once it rests, because half a file
//! may be well-formed and would open what its other half closes.
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use podwall_engine::change::Change;
use podwall_engine::{Warning, ingest};
use serde_json::Value;

use crate::agent::input::Input;
use crate::manifests::{self, Manifest, ManifestError, Place};

/// A file younger than this may still be in the making.
pub const SETTLE: Duration = Duration::from_millis(50);

/// What a look found.
#[derive(Debug, Default)]
pub struct Look {
    /// Objects that came, changed or went.
    pub inputs: Vec<Input>,
    /// Every file that cannot be used as it is, with the reason.
    pub problems: Vec<String>,
    /// Some file is in the making: look again soon.
    pub unsettled: bool,
    /// The folder could be read.
    pub complete: bool,
}

/// The folder as it was understood last.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<PathBuf, Content>,
    applied: BTreeMap<Key, Entry>,
    duplicates: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Content {
    stamp: Option<Stamp>,
    entries: Vec<(Key, Entry)>,
    problem: Option<String>,
}

/// Tells versions of a file apart. The inode notices a file put in place of another within one tick of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    size: u64,
    inode: u64,
}

/// Kind, namespace and name.
type Key = (String, String, String);

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    place: Place,
    change: Change,
    warnings: Vec<Warning>,
}

impl Folder {
    /// A folder nothing was read from yet.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, files: BTreeMap::new(), applied: BTreeMap::new(), duplicates: BTreeSet::new() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what changed since the last look.
    pub fn look(&mut self, now: SystemTime) -> Look {
        let mut look = Look::default();
        let files = match manifests::files_of(&self.path) {
            Ok(files) => files,
            Err(error) => {
                look.problems.push(with_cause(&error));
                return look;
            }
        };
        let mut changed = self.forget_all_but(&files);
        for file in files {
            match stamp(&file) {
                Some(stamp) if resting(&stamp, now) => changed |= self.reread(file, stamp),
                Some(_) => look.unsettled = true,
                None => {}
            }
        }
        if changed {
            self.resolve(&mut look.inputs);
        }
        // A new file in the making may hold the policy that closes what another file opens.
        look.complete = !look.unsettled;
        look.problems.extend(self.files.values().filter_map(|content| content.problem.clone()));
        look
    }

    fn forget_all_but(&mut self, files: &[PathBuf]) -> bool {
        let before = self.files.len();
        self.files.retain(|file, _| files.binary_search(file).is_ok());
        before != self.files.len()
    }

    /// Answers whether the file's content is another now.
    fn reread(&mut self, file: PathBuf, stamp: Stamp) -> bool {
        let content = self.files.entry(file.clone()).or_default();
        if content.stamp == Some(stamp) {
            return false;
        }
        content.stamp = Some(stamp);
        let (manifests, error) = match std::fs::read_to_string(&file) {
            Ok(text) => manifests::parse_leniently(&file, &text),
            Err(source) => (Vec::new(), Some(ManifestError::Read { file, source })),
        };
        let Some(error) = error else {
            content.problem = None;
            content.entries = manifests.into_iter().filter_map(entry).collect();
            return true;
        };
        if !content.entries.is_empty() {
            content.problem = Some(format!("{}; its last good content is kept", with_cause(&error)));
            return false;
        }
        content.problem = Some(format!("{}; only the file's readable documents count", with_cause(&error)));
        content.entries = manifests.into_iter().filter_map(entry).collect();
        true
    }

    /// Works out which entry of each object counts, and what that changes.
    fn resolve(&mut self, inputs: &mut Vec<Input>) {
        let mut wanted: BTreeMap<&Key, &Entry> = BTreeMap::new();
        let mut duplicates = BTreeSet::new();
        for (key, entry) in self.files.values().flat_map(|content| &content.entries) {
            let first = *wanted.entry(key).or_insert(entry);
            if first.place != entry.place || first.change != entry.change {
                duplicates.insert(duplicate(key, first, entry));
            }
        }
        for words in duplicates.difference(&self.duplicates) {
            tracing::warn!("{words}");
        }
        for (key, old) in &self.applied {
            let replaced = wanted.get(key).is_some_and(|new| same_identity(&old.change, &new.change));
            if let (false, Some(change)) = (replaced, ingest::removal(&old.change)) {
                inputs.push(Input::Object { change, warnings: Vec::new() });
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
        self.applied = wanted.into_iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
        self.duplicates = duplicates;
    }
}

fn entry(manifest: Manifest) -> Option<(Key, Entry)> {
    let Manifest { place, object } = manifest;
    match ingest::object(&object) {
        Ok(Some((change, mut warnings))) => {
            for warning in &mut warnings {
                warning.problem = format!("{} ({place})", warning.problem);
            }
            Some((key(&object), Entry { place, change, warnings }))
        }
        Ok(None) => None,
        Err(warning) => {
            tracing::error!("{place}: {warning}");
            None
        }
    }
}

fn key(object: &Value) -> Key {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = text("/kind");
    let namespace = match (kind.as_str(), text("/metadata/namespace")) {
        ("Namespace" | "Node", _) => String::new(),
        (_, named) if named.is_empty() => "default".to_owned(),
        (_, named) => named,
    };
    (kind, namespace, text("/metadata/name"))
}

fn duplicate((kind, namespace, name): &Key, first: &Entry, second: &Entry) -> String {
    let (counts, ignored) = (&first.place, &second.place);
    format!("{ignored}: {kind} {namespace}/{name} is already in {counts}, which counts")
}

/// Does applying the new one replace the old one? A pod of another UID is another pod.
fn same_identity(old: &Change, new: &Change) -> bool {
    ingest::removal(old) == ingest::removal(new)
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = file.metadata().ok()?;
    Some(Stamp { modified: metadata.modified().ok()?, size: metadata.len(), inode: metadata.ino() })
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

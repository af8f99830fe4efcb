//! Manifests on disk: YAML and JSON files to raw objects, each with the file and line it came from.
//!
//! Owns splitting files into documents, flattening lists, and errors that name a place. Does not know what an object
//! means: that is `podwall_engine::ingest`. Shared by the agent's `--source`, `render`, `explain` and `demo`.
//! A document is what a YAML stream says it is (YAML 1.2.2, section 9.2); a `List` is what `kubectl get -o yaml`
//! writes.
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where something stands in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// From 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One object as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The first line of its document.
    pub place: Place,
    /// The object; always a mapping.
    pub object: Value,
}

/// What tells an object from all others of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    kind: String,
    /// Empty for what belongs to no namespace.
    namespace: String,
    name: String,
}

impl Identity {
    /// That of an object. Without a namespace it is in `default`, as kubectl would have it.
    pub fn of(object: &Value) -> Self {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = text("/kind");
        let namespace = match (kind.as_str(), text("/metadata/namespace")) {
            ("Namespace" | "Node" | "Ban", _) => String::new(),
            (_, named) if named.is_empty() => "default".to_owned(),
            (_, named) => named,
        };
        Self { kind, namespace, name: text("/metadata/name") }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// One object is written down twice, and not the same both times. Which is meant is anybody's guess: whoever goes on
/// regardless (the agent) takes the first, in order of files and lines.
#[derive(Debug, thiserror::Error)]
#[error("{second}: {identity} is already in {first}, and says something else there")]
pub struct Twice {
    /// Which object.
    pub identity: Identity,
    /// The first place.
    pub first: Place,
    /// The second.
    pub second: Place,
}

/// Why a file gave no objects.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// One object says two things.
    #[error(transparent)]
    Twice(#[from] Box<Twice>),
    /// The file or folder cannot be read.
    #[error("{}", file.display())]
    Read {
        /// The file or folder.
        file: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It is neither YAML nor JSON.
    #[error("{place}: {problem}")]
    Syntax {
        /// Where the reader stopped.
        place: Place,
        /// What it stumbled over.
        problem: String,
    },
    /// It is well-formed, but not a Kubernetes object.
    #[error("{place}: {problem}")]
    Shape {
        /// The first line of the document.
        place: Place,
        /// What is missing.
        problem: &'static str,
    },
}

/// The manifests of a file, or of all `.yaml`, `.yml` and `.json` files right inside a folder, in order of names.
/// The first broken file is the error.
pub fn read(path: &Path) -> Result<Vec<Manifest>, ManifestError> {
    let files = if path.is_dir() { files_of(path)? } else { vec![path.to_owned()] };
    let mut manifests = Vec::new();
    for file in files {
        manifests.extend(read_file(&file)?);
    }
    Ok(manifests)
}

/// The manifests of one file.
pub fn read_file(file: &Path) -> Result<Vec<Manifest>, ManifestError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| ManifestError::Read { file: file.to_owned(), source })?;
    parse(file, &text)
}

/// The manifest files right inside a folder, in order of names. Hidden files are left out: editors and the kubelet's
/// volume writer keep their working copies there. One that is named there but cannot be looked at (a link that leads
/// nowhere, a file system that fails) counts: reading it is an error, and not the same as its being gone.
pub fn files_of(folder: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let failed = |source| ManifestError::Read { file: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if is_manifest(&path) && may_be_file(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The manifests of a text. `file` decides between YAML and JSON, and is what errors name.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Manifest>, ManifestError> {
    match parse_leniently(file, text) {
        (manifests, None) => Ok(manifests),
        (_, Some(error)) => Err(error),
    }
}

/// The manifests of those documents that can be read, and the first error.
pub fn parse_leniently(file: &Path, text: &str) -> (Vec<Manifest>, Option<ManifestError>) {
    let mut manifests = Vec::new();
    let mut first_error = None;
    let documents = if file.extension().is_some_and(|extension| extension == "json") {
        vec![Document { text, before: 0 }]
    } else {
        documents(text)
    };
    for document in documents {
        let place = Place { file: file.to_owned(), line: document.first_line() };
        let read = match document.parse(file) {
            Ok(Value::Null) => Ok(()),
            Ok(object) => flatten(place, object, &mut manifests),
            Err(error) => Err(error),
        };
        if let Err(error) = read {
            first_error.get_or_insert(error);
        }
    }
    (manifests, first_error)
}

/// A stretch of a YAML stream between two markers, or a whole JSON file.
struct Document<'a> {
    text: &'a str,
    /// Lines of the file before it.
    before: u64,
}

impl Document<'_> {
    /// The line on which its content begins, from 1.
    fn first_line(&self) -> u64 {
        let blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
        self.before + self.text.lines().take_while(blank).count() as u64 + 1
    }

    fn parse(&self, file: &Path) -> Result<Value, ManifestError> {
        let syntax =
            |line, problem| ManifestError::Syntax { place: Place { file: file.to_owned(), line }, problem };
        if file.extension().is_some_and(|extension| extension == "json") {
            let read = serde_json::from_str(self.text);
            return read.map_err(|error| syntax(error.line() as u64, error.to_string()));
        }
        // The reader's own limits guard services against hostile input; here the user's own files may be any size.
        let options = serde_saphyr::options! { budget: None, with_snippet: false };
        serde_saphyr::from_str_with_options(self.text, options).map_err(|error| {
            let line = error.location().map_or_else(|| self.first_line(), |at| self.before + at.line());
            let words = error.to_string().lines().collect::<Vec<_>>().join(" ");
            // It counts lines from the document's start.
            let problem = words.rsplit_once(" at line ").map_or(words.as_str(), |(problem, _)| problem);
            syntax(line, problem.to_owned())
        })
    }
}

/// Splits at `---` and `...` in column 0, which YAML allows nowhere else (section 9.1.2: `c-forbidden`).
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut at, mut before) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line) {
            documents.push(Document { text: text.get(start..at).unwrap_or_default(), before });
            // What follows the marker on its own line belongs to the new document.
            start = at + 3;
            before = number as u64;
        }
        at += line.len();
    }
    documents.push(Document { text: text.get(start..).unwrap_or_default(), before });
    documents.retain(|document| document.text.lines().any(is_content));
    documents
}

fn is_marker(line: &str) -> bool {
    ["---", "..."].iter().any(|marker| {
        line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    })
}

fn is_content(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#') && !line.starts_with('%')
}

/// A list becomes its items; those of a typed list (`PodList`) get the kind they leave out.
fn flatten(place: Place, mut object: Value, into: &mut Vec<Manifest>) -> Result<(), ManifestError> {
    let Some(kind) = object.get("kind").and_then(Value::as_str).map(str::to_owned) else {
        return Err(ManifestError::Shape { place, problem: "not a Kubernetes object: it has no kind" });
    };
    let (Some(item_kind), Some(Value::Array(items))) =
        (kind.strip_suffix("List"), object.get_mut("items").map(Value::take))
    else {
        into.push(Manifest { place, object });
        return Ok(());
    };
    for mut item in items {
        if let (false, Value::Object(fields)) = (item_kind.is_empty(), &mut item) {
            fields.entry("kind").or_insert_with(|| item_kind.into());
        }
        flatten(place.clone(), item, into)?;
    }
    Ok(())
}

fn may_be_file(path: &Path) -> bool {
    match path.metadata() {
        Ok(metadata) => metadata.is_file(),
        Err(_) => path.symlink_metadata().is_ok(),
    }
}

fn is_manifest(path: &Path) -> bool {
    let visible = path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'));
    visible
        && path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|e| extension == *e))
}

#[cfg(test)]
mod tests;

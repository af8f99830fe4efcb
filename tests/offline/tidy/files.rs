//! The files of the repository, as text, in order of their paths.
use std::fs;
use std::path::{Path, PathBuf};

/// What holds nothing people wrote: directories, and the file that stands for `.git` in a second work tree.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

/// Endings of files worth reading.
const TEXT: [&str; 9] = ["rs", "md", "toml", "yaml", "yml", "nft", "txt", "json", "sh"];

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    /// From the root of the repository, with slashes.
    pub(crate) path: String,
    /// Its content.
    pub(crate) text: String,
}

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file.
pub(crate) fn rust() -> Vec<SourceFile> {
    text().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// Every file of text; scripts without an ending included.
pub(crate) fn text() -> Vec<SourceFile> {
    let mut found = Vec::new();
    collect(root(), &mut found);
    found.sort();
    found.into_iter().filter_map(load).collect()
}

/// One file by its path from the root; empty when there is none.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// Is there a file or directory of the path?
pub(crate) fn exists(path: &str) -> bool {
    root().join(path).exists()
}

fn collect(place: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            collect(&path, found);
        } else if path.extension().is_none_or(|ending| TEXT.iter().any(|known| ending == *known)) {
            found.push(path);
        }
    }
}

fn load(path: PathBuf) -> Option<SourceFile> {
    let text = fs::read_to_string(&path).ok()?;
    let path = path.strip_prefix(root()).ok()?.to_str()?.to_owned();
    Some(SourceFile { path, text })
}

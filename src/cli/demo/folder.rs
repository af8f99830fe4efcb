//! The demo's folder: manifests that the agents watch, and their own state. Gone when dropped.
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::story::Page;
use crate::cli::CliError;

/// A folder only we can read.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new one among the temporary files.
    pub fn new() -> Result<Self, CliError> {
        let path = std::env::temp_dir().join(format!("podwall-demo-{}", std::process::id()));
        let failed = |error| CliError::io(format!("making {}", path.display()), error);
        // Fails if it is there: nobody can have prepared it for us.
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        let folder = Self(path);
        fs::create_dir(folder.manifests())
            .map_err(|error| CliError::io("making the manifest folder", error))?;
        Ok(folder)
    }

    /// All of it.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What the agents watch.
    pub fn manifests(&self) -> PathBuf {
        self.0.join("manifests")
    }

    /// What the processes of a node keep for themselves.
    pub fn of_node(&self, node: &str) -> Result<PathBuf, CliError> {
        let own = self.0.join(node);
        fs::create_dir_all(&own).map_err(|error| CliError::io("making a node's folder", error))?;
        Ok(own)
    }

    /// Writes a page for the agents.
    pub fn save(&self, page: &Page) -> Result<(), CliError> {
        save(&self.manifests(), page)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Somebody may have removed it already; there is nobody left to tell otherwise.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Writes a page whole: beside its place first, then renamed, so that no reader ever sees half of it.
pub fn save(folder: &Path, (name, text): &Page) -> Result<(), CliError> {
    let draft = folder.join(format!(".{name}.draft"));
    let written: io::Result<()> =
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, folder.join(name)));
    written.map_err(|error| CliError::io(format!("writing {}", folder.join(name).display()), error))
}

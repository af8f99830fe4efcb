//! The file that keeps, over restarts, how far everything was read.
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::source::Position;

/// Its name in the folder for state.
const NAME: &str = "tail.json";

/// What is in it.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    /// Of what this is the position.
    source: PathBuf,
    #[serde(flatten)]
    position: Position,
}

/// A place for a position.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    source: PathBuf,
    kept: Option<Position>,
}

impl Place {
    /// In a folder, for one source.
    pub const fn new(folder: PathBuf, source: PathBuf) -> Self {
        Self { folder, source, kept: None }
    }

    /// What an earlier run left. What cannot be read is as nothing: what is too old is passed over anyway.
    pub fn load(&self) -> Position {
        let path = self.folder.join(NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Position::default(),
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "where reading stopped is not known");
                return Position::default();
            }
        };
        match serde_json::from_str::<Saved>(&text) {
            Ok(saved) if saved.source == self.source => saved.position,
            Ok(_) => Position::default(),
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "where reading stopped is not known");
                Position::default()
            }
        }
    }

    /// Keeps a position, if it is another one. Half a file is never seen.
    pub fn keep(&mut self, position: Position) -> io::Result<()> {
        if self.kept.as_ref() == Some(&position) {
            return Ok(());
        }
        let saved = Saved { source: self.source.clone(), position };
        let text = serde_json::to_string(&saved)?;
        std::fs::create_dir_all(&self.folder)?;
        let (path, new) = (self.folder.join(NAME), self.folder.join(".tail.json.new"));
        std::fs::write(&new, text)?;
        std::fs::rename(&new, &path)?;
        self.kept = Some(saved.position);
        Ok(())
    }

    /// Where.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_kept_for_its_source_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let place = |source: &str| Place::new(folder.path().join("state"), PathBuf::from(source));
        let position = Position { files: Vec::new(), journals: [("ab".to_owned(), 7)].into_iter().collect() };
        assert_eq!(place("/log").load(), Position::default());
        place("/log").keep(position.clone()).unwrap();
        assert_eq!(place("/log").load(), position);
        assert_eq!(place("/other").load(), Position::default());
        std::fs::write(folder.path().join("state").join(NAME), "{").unwrap();
        assert_eq!(place("/log").load(), Position::default());
    }
}

//! Whether flows were ever judged on this node, kept where no packet filter can lose it: `<state-dir>/adopted`.
//!
//! The table itself tells it as long as it stands. But somebody may delete it while no agent runs, and a node whose
//! table is gone must not look like one podwall never came to: its flows would go on unjudged, and its mid-stream
//! packets would get another grace period. A record counts only for the boot and the network namespace it was made
//! in, because flows live no longer than these. Losing it costs no more than what the table's loss alone would.
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::work::Standing;

/// The file's name in the state folder.
const FILE: &str = "adopted";
/// Made anew at each boot (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// The network namespace of whoever reads it (network_namespaces(7)).
const NETNS: &str = "/proc/thread-self/ns/net";

/// The record, and what it says.
#[derive(Debug)]
pub struct Adoption {
    file: PathBuf,
    /// What tells this boot and network namespace from all others.
    here: String,
    known: Standing,
}

impl Adoption {
    /// Reads what was recorded here. A record that cannot be read says nothing.
    pub fn open(state_dir: &Path) -> Self {
        let (file, here) = (state_dir.join(FILE), here().unwrap_or_default());
        let known = match std::fs::read_to_string(&file) {
            Ok(text) if !here.is_empty() => parse(&text, &here),
            Ok(_) => Standing::Nothing,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, "reading {}", file.display());
                }
                Standing::Nothing
            }
        };
        Self { file, here, known }
    }

    /// The most that was ever recorded here.
    pub const fn known(&self) -> Standing {
        self.known
    }

    /// This stands now. Written only when it is more than is known: twice in the life of a node.
    pub fn note(&mut self, standing: Standing) {
        if standing <= self.known {
            return;
        }
        self.known = standing;
        let draft = self.file.with_extension("draft");
        let text = format!("{} {}\n", self.here, word(standing));
        if let Err(error) = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, &self.file)) {
            tracing::warn!(
                %error,
                "writing {}: should the rules be deleted while no agent runs, open connections will not be judged",
                self.file.display()
            );
        }
    }

    /// The rules were taken away on request: flows go on unjudged, and the next agent comes to a new node.
    pub fn forget(&mut self) {
        self.known = Standing::Nothing;
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "removing {}", self.file.display());
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// This boot, this network namespace.
fn here() -> io::Result<String> {
    let boot = std::fs::read_to_string(BOOT)?;
    let netns = std::fs::metadata(NETNS)?;
    Ok(format!("{} {}:{}", boot.trim(), netns.dev(), netns.ino()))
}

fn parse(text: &str, here: &str) -> Standing {
    let recorded = text.trim_end().strip_prefix(here).and_then(|rest| rest.strip_prefix(' '));
    let all = [Standing::Lenient, Standing::Strict];
    all.into_iter().find(|standing| recorded == Some(word(*standing))).unwrap_or(Standing::Nothing)
}

const fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Nothing => "nothing",
        Standing::Lenient => "lenient",
        Standing::Strict => "strict",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_known_to_the_next_and_never_less() {
        let state = tempfile::tempdir().unwrap();
        let known = || Adoption::open(state.path()).known();
        let mut seen = vec![known()];
        let mut first = Adoption::open(state.path());
        for standing in [Standing::Lenient, Standing::Strict, Standing::Lenient] {
            first.note(standing);
            seen.push(known());
        }
        first.forget();
        seen.push(known());
        let (nothing, strict) = (Standing::Nothing, Standing::Strict);
        assert_eq!(seen, [nothing, Standing::Lenient, strict, strict, nothing]);
    }

    #[test]
    fn another_boot_another_namespace_and_a_torn_file_say_nothing() {
        let here = "boot-1 4:77";
        let cases =
            ["boot-1 4:77 strict\n", "boot-2 4:77 strict\n", "boot-1 4:78 strict\n", "boot-1 4:77 st", ""];
        let read = cases.map(|text| parse(text, here));
        let nothing = Standing::Nothing;
        assert_eq!(read, [Standing::Strict, nothing, nothing, nothing, nothing]);
    }
}

//! Stand-ins for iptables and ipset on an agent's path: they note what is asked, and end who asks too much.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

/// Everything the fallback may start.
const NAMES: [&str; 9] = [
    "ipset",
    "iptables-legacy-restore",
    "iptables-legacy-save",
    "iptables-nft-restore",
    "iptables-nft-save",
    "ip6tables-legacy-restore",
    "ip6tables-legacy-save",
    "ip6tables-nft-restore",
    "ip6tables-nft-save",
];

/// A folder of stand-ins; each passes everything on to the program of its name.
pub struct Programs {
    folder: TempDir,
}

impl Programs {
    /// They do nothing of their own yet.
    pub fn new() -> Self {
        let programs = Self { folder: tempfile::tempdir().expect("a place for programs") };
        let path = std::env::var("PATH").expect("there is a path");
        for name in NAMES {
            // Restoring is what changes something; a process that dies while reading dies between the same two changes.
            let script = format!(
                "#!/bin/sh
cd {folder}
PATH={path}
if [ -e limit ]; then
  case \"{name} $*\" in *restore*)
    echo \"{name} $*\" >>told
    if [ \"$(wc -l <told)\" -gt \"$(cat limit)\" ]; then kill -9 $PPID; exit 9; fi ;;
  esac
fi
exec {name} \"$@\"
",
                folder = programs.path().display(),
            );
            let file = programs.path().join(name);
            fs::write(&file, script).expect("the folder is ours");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("the file is ours");
        }
        programs
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// From now on changes are noted, and who asks for one more than so many is killed before it is done.
    pub fn kill_after(&self, changes: usize) {
        self.rest();
        let draft = self.path().join("draft");
        fs::write(&draft, changes.to_string()).expect("the folder is ours");
        fs::rename(draft, self.path().join("limit")).expect("the folder is ours");
    }

    /// The same, without an end.
    pub fn note(&self) {
        self.kill_after(usize::MAX / 2);
    }

    /// How many changes were asked for.
    pub fn told(&self) -> usize {
        fs::read_to_string(self.path().join("told")).map_or(0, |told| told.lines().count())
    }

    /// From now on everything is passed on; answers what was noted.
    pub fn rest(&self) -> Vec<String> {
        let noted = fs::read_to_string(self.path().join("told")).unwrap_or_default();
        for file in ["limit", "told"] {
            drop(fs::remove_file(self.path().join(file)));
        }
        noted.lines().map(str::to_owned).collect()
    }
}

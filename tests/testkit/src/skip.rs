//! What a test does when the machine cannot run it: say so loudly, or fail where CI promises that it can.

use std::fmt::Display;
use std::io::Write as _;
use std::process::{Command, Stdio};

use podwall_lab::Netns;

/// Something a test needs from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// The right to make network namespaces.
    Root,
    /// A program on the path, found by running it with `--version`.
    Program(&'a str),
    /// A file or folder, such as a kernel setting.
    Path(&'a str),
    /// Something its kernel can do, or cannot, as the test found out.
    Ability(&'a str, bool),
}

/// True when all is there. Otherwise the test is to return at once: the reason has been printed, beginning with
/// `skipped:`.
///
/// # Panics
/// With `CI=true` in the environment: a skipped test there is a failed one.
#[must_use]
pub fn ready(needs: &[Need<'_>]) -> bool {
    let missing: Vec<_> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join("; ");
    assert!(!is_ci(), "this machine must be able to run the test: {missing}");
    skipped(&missing);
    false
}

/// Is this a machine that must be able to run every test?
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").as_deref() == Ok("true")
}

/// Says that a test is skipped. Not by `println!` or `eprintln!`: the test harness would keep that to itself, for the
/// test passes. That standard error is closed is no reason to fail.
pub(crate) fn skipped(why: &dyn Display) {
    drop(writeln!(std::io::stderr(), "skipped: {why}"));
}

impl Need<'_> {
    fn missing(&self) -> Option<String> {
        match self {
            Self::Root => Netns::new().err().map(|error| error.to_string()),
            Self::Program(name) => {
                let mut version = Command::new(name);
                version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                version.status().err().map(|error| format!("{name}: {error}"))
            }
            Self::Ability(what, there) => (!there).then(|| format!("this kernel has no {what}")),
            Self::Path(path) => std::fs::metadata(path).err().map(|error| format!("{path}: {error}")),
        }
    }
}

//! The backend in a process of its own: for tests about what it finds on its path, and about its end.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::*;

mod bad_input;
mod crash;
mod lock;

/// What the process is to do, in words: `open nft`, `bring legacy node later`, or `adopt nft node`.
const TASK: &str = "PODWALL_TEST_TASK";
/// A folder of [`Programs`], in which the process writes `limit` when it begins to commit.
const LIMIT: &str = "PODWALL_TEST_LIMIT";

/// A folder of programs that is all of a process' path.
struct Programs(TempDir);

impl Programs {
    /// Passes on to the real programs of these names.
    fn passing(names: &[&str]) -> Self {
        let programs = Self(tempfile::tempdir().unwrap());
        names.iter().for_each(|name| programs.put(name, "exec \"$real\" \"$@\""));
        programs
    }

    /// Passes on to everything the variant needs.
    fn all(variant: Variant) -> Self {
        Self::passing(&names(variant))
    }

    /// A program that is a script; `$real` is the real one of its name, and tools are on its path.
    fn put(&self, name: &str, script: &str) {
        let path = std::env::var("PATH").unwrap();
        let real = path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.exists());
        let real = real.unwrap_or_default();
        let text = format!(
            "#!/bin/sh\nPATH={path}\nreal={}\ncd {}\n{script}\n",
            real.display(),
            self.path().display()
        );
        let file = self.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The output of a process with these programs.
    fn run(&self, task: &str, limit: Option<usize>) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "backend::tests::process::process",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
        command.env("PATH", self.path()).env(TASK, task).env_remove(LIMIT);
        if let Some(limit) = limit {
            command.env(LIMIT, format!("{} {limit}", self.path().display()));
        }
        command.output().unwrap()
    }

    /// What a process says of its task.
    fn told(&self, task: &str) -> String {
        let output = self.run(task, None);
        let text = String::from_utf8(output.stdout).unwrap();
        let said = text.lines().find_map(|line| line.split_once("told: "));
        said.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr))).1.to_owned()
    }
}

fn names(variant: Variant) -> [&'static str; 5] {
    let of = |family, program| variant.program(family, program);
    [
        "ipset",
        of(Family::V4, Program::Restore),
        of(Family::V4, Program::Save),
        of(Family::V6, Program::Restore),
        of(Family::V6, Program::Save),
    ]
}

fn word(variant: Variant) -> &'static str {
    match variant {
        Variant::Nft => "nft",
        Variant::Legacy => "legacy",
    }
}

fn ruleset(name: &str) -> Ruleset {
    match name {
        "node" => sample::node(),
        "later" => sample::later(),
        _ => Ruleset::default(),
    }
}

/// The other process.
#[test]
#[ignore = "the other half of the tests beside it, which start it with a task"]
fn process() {
    let Ok(task) = std::env::var(TASK) else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let variant = if words[1] == "nft" { Variant::Nft } else { Variant::Legacy };
    let told = match Iptables::open(Options { variant: Choice::Forced(variant) }) {
        Err(error) => error.to_string(),
        Ok(mut kernel) => match words.as_slice() {
            ["adopt", _, to] => {
                let seen = kernel.observe().unwrap().or_empty();
                carry_out(&mut kernel, &seen, &ruleset(to))
            }
            [_, _, from, to] => carry_out(&mut kernel, &ruleset(from), &ruleset(to)),
            _ => format!("works, IPv6 {}, unjudged {:?}", kernel.capabilities().ipv6, kernel.unjudged()),
        },
    };
    println!("told: {told}");
}

/// Commits as the agent would, and reads back.
fn carry_out(kernel: &mut Iptables, from: &Ruleset, to: &Ruleset) -> String {
    if let Ok(limit) = std::env::var(LIMIT) {
        let (folder, limit) = limit.split_once(' ').unwrap();
        fs::write(Path::new(folder).join("limit"), limit).unwrap();
    }
    for stage in stages(from, &Delta::between(from, to)) {
        if let Err(error) = kernel.commit(&stage.transaction) {
            return error.to_string();
        }
    }
    let seen = kernel.observe().unwrap();
    let alien = seen.alien.clone();
    format!("committed, alien {alien:?}, {}", if seen.or_empty() == *to { "as wanted" } else { "different" })
}

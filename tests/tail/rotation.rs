//! The real logrotate, both ways it works, while lines are written, across restarts and kills.
use std::path::{Path, PathBuf};
use std::process::Command;

use podwall_testkit::skip::{Need, ready};
use tempfile::TempDir;

use crate::log::Daemon;
use crate::runner::Tail;

/// A folder with a log, its rotation, and somebody's state.
struct Node {
    folder: TempDir,
    how: &'static str,
}

impl Node {
    /// `None`: skipped, and said so.
    fn new(how: &'static str) -> Option<Self> {
        ready(&[Need::Program("logrotate")])
            .then(|| Self { folder: tempfile::tempdir().expect("there is room"), how })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tail(&self) -> Tail {
        let log = self.path("log/kern.log");
        Tail::start(["--file", &log.to_string_lossy()], &self.path("state"))
    }

    fn daemon(&self) -> Daemon {
        std::fs::create_dir_all(self.path("log")).expect("there is room");
        Daemon::new(&self.path("log/kern.log"))
    }

    fn rotate(&self) {
        let configuration = format!(
            "{} {{\n su root root\n rotate 5\n nocompress\n {}\n}}\n",
            self.path("log/kern.log").display(),
            self.how
        );
        let configuration = match rustix::process::getuid().is_root() {
            true => configuration,
            false => configuration.replace(" su root root\n", ""),
        };
        std::fs::write(self.path("logrotate.conf"), configuration).expect("there is room");
        rotate(&self.path("logrotate.conf"), &self.path("logrotate.state"));
    }
}

fn rotate(configuration: &Path, state: &Path) {
    let mut command = Command::new("logrotate");
    command.args(["--force", "--state"]).arg(state).arg(configuration);
    let output = command.output().expect("it was found");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every packet once, whatever the order of old and new file.
fn each_once(seen: &[u32], written: u32) {
    let count = |number: u32| seen.iter().filter(|seen| **seen == number).count();
    let wrong: Vec<(u32, usize)> =
        (1..=written).map(|number| (number, count(number))).filter(|(_, count)| *count != 1).collect();
    let known = usize::try_from(written).is_ok_and(|written| seen.len() == written);
    assert!(wrong.is_empty() && known, "{} of {written} wrong: {:?}", wrong.len(), wrong.get(..9));
}

/// Four rotations, each amid five hundred lines and what the daemon writes behind them.
fn every_line_is_told_once(how: &'static str, behind: impl Fn(&mut Daemon, u32)) {
    let Some(node) = Node::new(how) else { return };
    let mut daemon = node.daemon();
    let tail = node.tail();
    // What was rotated before it first looked is none of its business.
    daemon.write(1);
    let mut seen = tail.numbers(1);
    for round in 1..=4 {
        let before = daemon.written;
        daemon.write(500);
        node.rotate();
        behind(&mut daemon, round);
        seen.extend(tail.numbers((daemon.written - before) as usize));
    }
    each_once(&seen, daemon.written);
    tail.stop();
}

#[test]
fn every_line_is_told_once_when_logs_are_renamed() {
    every_line_is_told_once("create", |daemon, round| {
        // The daemon has not been told yet; its lines go where the old name went.
        daemon.write(20);
        daemon.reopen();
        daemon.write(round);
    });
}

#[test]
fn every_line_is_told_once_when_logs_are_copied_and_truncated() {
    // Sometimes the file is longer again at once than it was.
    every_line_is_told_once("copytruncate", |daemon, round| daemon.write(round * 200));
}

#[test]
fn a_restart_repeats_and_loses_nothing_though_logs_are_rotated_meanwhile() {
    for how in ["create", "copytruncate"] {
        let Some(node) = Node::new(how) else { return };
        let mut daemon = node.daemon();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let tail = node.tail();
            daemon.write(100);
            seen.extend(tail.numbers(100));
            tail.stop();
            daemon.write(50);
            node.rotate();
            daemon.reopen();
            daemon.write(10);
            let tail = node.tail();
            seen.extend(tail.numbers(60));
            // The place is kept after every look, so even this forgets nothing.
            tail.kill();
        }
        each_once(&seen, daemon.written);
    }
}

#[test]
fn a_log_that_comes_late_is_read_from_its_first_line() {
    let Some(node) = Node::new("create") else { return };
    let tail = node.tail();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut daemon = node.daemon();
    daemon.write(3);
    each_once(&tail.numbers(3), 3);
}

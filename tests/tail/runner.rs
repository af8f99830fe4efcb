//! The program under test, running, and what it prints.
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a line that must come may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A command that knows nothing of this machine's environment.
pub(crate) fn podwall() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
    command.arg("tail").env_clear().env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// A running `podwall tail --dry-run`, and its lines.
pub(crate) struct Tail {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Tail {
    /// Reads `log` (a flag and its value), and keeps its place in `state`.
    pub(crate) fn start(log: [&str; 2], state: &Path) -> Self {
        let mut command = podwall();
        command
            .args(log)
            .args(["--prefix", "drop:", "--dry-run", "--output", "json", "--state-dir"])
            .arg(state);
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary was built with this test");
        let stdout = BufReader::new(child.stdout.take().expect("it was piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Which packets it told of, by their numbers: waits for so many, then whether there are more.
    pub(crate) fn numbers(&self, many: usize) -> Vec<u32> {
        let (begun, mut seen) = (Instant::now(), Vec::new());
        loop {
            let wait = if seen.len() < many {
                PATIENCE.saturating_sub(begun.elapsed())
            } else {
                Duration::from_millis(300)
            };
            match self.lines.recv_timeout(wait) {
                Ok(line) => seen.push(number(&line)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return seen,
            }
        }
    }

    /// The next line; none if none comes.
    pub(crate) fn next(&self) -> Option<Value> {
        let line = self.lines.recv_timeout(PATIENCE).ok()?;
        Some(serde_json::from_str(&line).expect("one JSON object a line"))
    }

    /// Ends as a container is ended.
    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let status = self.child.wait().expect("it was spawned");
        assert!(status.success(), "{status}");
    }

    /// Ends as nothing should be.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

/// The number a packet of [`crate::log`] has.
pub(crate) fn number(line: &str) -> u32 {
    let line: Value = serde_json::from_str(line).expect("one JSON object a line");
    let port = |end: &str| line.get(end)?.get("port")?.as_u64().and_then(|port| u32::try_from(port).ok());
    port("source").zip(port("destination")).map_or(u32::MAX, |(high, low)| high << 16 | low)
}

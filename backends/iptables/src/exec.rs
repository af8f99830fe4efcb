//! The only place that starts a program: bounded, its text given and taken whole.
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};

/// How long any program may take; iptables itself waits 5 s for its lock. A commit starts several, and the agent's
/// liveness ends at 90 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// The first line of what it complained about, without its own name.
    pub(crate) fn reason(&self) -> &str {
        let told = self.stderr.lines().map(|line| {
            let named = ["(nf_tables):", "(legacy):"].iter().find_map(|kind| line.split_once(kind));
            named.map_or(line, |(_, rest)| rest).trim()
        });
        told.into_iter().find(|line| !line.is_empty()).unwrap_or("no reason given")
    }
}

/// A program that could not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not there.
    #[error("{program} is not installed")]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// It did not end in time, and was stopped.
    #[error("{program} did not end within {} s", PATIENCE.as_secs())]
    Stuck {
        /// Its name.
        program: &'static str,
    },
    /// Starting it, or talking to it, went wrong.
    #[error("running {program}")]
    Io {
        /// Its name.
        program: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Runs a program in the network namespace of this thread.
pub(crate) fn run(program: &'static str, arguments: &[&str], input: String) -> Result<Said, Error> {
    let failed = |source| Error::Io { program, source };
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C");
    command.stdin(given(input).map_err(failed)?).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => Error::Missing { program },
        _ => failed(source),
    })?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let deadline = Instant::now() + PATIENCE;
    let mut texts = Vec::new();
    for stream in [stdout, stderr] {
        let Ok(text) = stream.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            return Err(Error::Stuck { program });
        };
        texts.push(text.map_err(failed)?);
    }
    let status = child.wait().map_err(failed)?;
    let stderr = texts.pop().unwrap_or_default();
    let stdout = texts.pop().unwrap_or_default();
    Ok(Said { status, stdout, stderr })
}

/// All of it before the program starts: a text that ends where we died could end within an address, and name another
/// (`ipset restore` carries out each line as it comes).
fn given(input: String) -> std::io::Result<Stdio> {
    if input.is_empty() {
        return Ok(Stdio::null());
    }
    let mut file = File::from(memfd_create("podwall", MemfdFlags::CLOEXEC)?);
    file.write_all(&input.into_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

fn collect(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stream.map_or(Ok(0), |mut stream| stream.read_to_end(&mut bytes));
        drop(sender.send(read.map(|_| String::from_utf8_lossy(&bytes).into_owned())));
    });
    receiver
}

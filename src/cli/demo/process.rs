//! Processes of the demo: the very binary, with another subcommand, in a node's namespace.
//!
//! Each is held by its standard input ([`Tethered`]): when the demo ends, however it ends, the pipe closes and the
//! process with it.
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, Parser as _};
use podwall_lab::Netns;

use super::folder::Folder;
use super::interrupt::Interrupts;
use super::stage::{Stage, failed};
use crate::cli::{Cli, CliError, CliResult};

/// How long one may take to be ready. It takes some 100 ms.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one may take to end once it is asked to.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is started.
pub struct Order<'a> {
    /// What people call it: `agent`, `podwall dns`.
    pub what: &'a str,
    /// The node it runs on.
    pub node: &'a str,
    /// Subcommand and flags, but for what all have.
    pub words: &'a [&'a str],
    /// Where it serves metrics. Each node has a loopback of its own, so ports of different nodes do not clash.
    pub port: u16,
}

/// One under way; it ends when this is dropped.
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    netns: Netns,
    port: u16,
}

impl Process {
    /// Starts it with the node's own part of the folder as its state.
    pub fn start(order: &Order<'_>, (stage, folder): (&Stage, &Folder)) -> Result<Self, CliError> {
        let Order { what, node, words, port } = *order;
        let own = folder.of_node(node)?;
        let log = folder.path().join(format!("{node} {what}.log"));
        let written = File::create(&log).map_err(|error| CliError::io("making a log", error))?;
        let copy = written.try_clone().map_err(|error| CliError::io("making a log", error))?;
        let netns = stage.node(node)?.clone();
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["tethered", "--folder"])
            .arg(folder.path())
            .arg("--")
            .args(words)
            // From inside a folder that is gone nothing can be made in it again, however late they come to it.
            .args(["--state-dir", "."])
            .current_dir(own)
            .args(["--listen", &format!("{}:{port}", Ipv4Addr::LOCALHOST)])
            .stdin(Stdio::piped())
            .stdout(written)
            .stderr(copy)
            // Ctrl-C is for the demo, which then ends them in order.
            .process_group(0);
        let doing = format!("starting {what}");
        let child = netns.spawn(&mut command).map_err(|error| failed(&doing, error))?;
        Ok(Self { name: format!("{what} of {node}"), log, child, netns, port })
    }

    /// Waits until it is ready.
    pub fn await_that(
        &mut self,
        interrupts: &Interrupts,
        ready: impl Fn(&Self) -> bool,
    ) -> Result<(), CliError> {
        let start = Instant::now();
        while !ready(self) {
            interrupts.check()?;
            self.alive()?;
            if start.elapsed() > PATIENCE {
                return Err(self.failure("it is not ready after 10 s"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// A page it serves, asked for from inside the node: status line, head and all; empty while nobody answers.
    pub fn page(&self, path: &str) -> String {
        let port = self.port;
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            let question = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(question.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        self.netns.run(ask).ok().and_then(Result::ok).unwrap_or_default()
    }

    /// An error if it has ended.
    pub fn alive(&mut self) -> Result<(), CliError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failure(&format!("it ended with {status}"))),
            Err(error) => Err(CliError::io("watching a process", error)),
        }
    }

    /// Kills it, as if it had crashed.
    pub fn kill(&mut self) -> Result<(), CliError> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(|error| CliError::io(format!("killing {}", self.name), error))
    }

    /// Lets go of it; it ends by itself then.
    pub fn let_go(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Its own last complaint is the best explanation there is.
    fn failure(&self, what: &str) -> CliError {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let complaint = log.lines().rfind(|line| line.to_lowercase().contains("error"));
        let said = complaint.or_else(|| log.lines().rfind(|line| !line.trim().is_empty()));
        let said = said.unwrap_or("it said nothing").to_owned();
        CliError::Io { doing: format!("{}: {what}", self.name), source: said.into() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.let_go();
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > FAREWELL {
                // Errors only if it ended in between.
                drop(self.child.kill());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Runs another subcommand that ends when standard input closes; for the demo's own use.
#[derive(Debug, Args)]
pub struct Tethered {
    /// Removed when standard input closes: whoever made it may have been killed
    #[arg(long)]
    folder: PathBuf,
    /// The subcommand
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    words: Vec<String>,
}

impl Tethered {
    /// Runs it.
    pub fn run(self) -> CliResult {
        let folder = self.folder;
        let wait = move || {
            let mut nothing = [0; 64];
            let mut input = std::io::stdin();
            while matches!(input.read(&mut nothing), Ok(read) if read > 0) {}
            remove(&folder);
            std::process::exit(0)
        };
        let thread = std::thread::Builder::new().name("tether".to_owned()).spawn(wait);
        thread.map_err(|error| CliError::io("watching standard input", error))?;
        let words = std::iter::once("podwall".to_owned()).chain(self.words);
        Cli::parse_from(words).run()
    }
}

/// Removes the folder. One that is just starting may still be making files in its own part of it.
fn remove(folder: &Path) {
    for _ in 0..100 {
        // Errors if another one was quicker, too.
        drop(fs::remove_dir_all(folder));
        if !folder.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

//! The agents of the demo: the very binary, one process in each node's namespace.
//!
//! Each is held by its standard input ([`Tethered`]): when the demo ends, however it ends, the pipe closes and the
//! agent with it.
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
use super::story::Story;
use crate::agent::backend::Choice;
use crate::cli::{Cli, CliError, CliResult};

/// How long an agent may take to be ready. It takes some 100 ms.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an agent may take to end once it is asked to.
const FAREWELL: Duration = Duration::from_secs(2);
/// Each node has a loopback of its own, so the ports do not clash.
const PORT: u16 = 9473;

/// Agents under way; they end when this is dropped.
pub struct Agents(Vec<Agent>);

struct Agent {
    node: String,
    log: PathBuf,
    process: Child,
    netns: Netns,
}

impl Agents {
    /// Starts one on each node and waits until all have enforced what the folder holds.
    pub fn start(
        story: &Story,
        backend: Choice,
        place: (&Stage, &Folder),
        interrupts: &Interrupts,
    ) -> Result<Self, CliError> {
        let nodes = story.nodes.iter().map(|node| node.name.to_string());
        let mut agents =
            Self(nodes.map(|node| Agent::start(node, backend, place)).collect::<Result<_, _>>()?);
        let start = Instant::now();
        for agent in &mut agents.0 {
            while !agent.ready() {
                interrupts.check()?;
                agent.alive()?;
                if start.elapsed() > PATIENCE {
                    return Err(agent.failure("it is not ready after 10 s"));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(agents)
    }

    /// An error if one of them has ended.
    pub fn alive(&mut self) -> Result<(), CliError> {
        self.0.iter_mut().try_for_each(Agent::alive)
    }
}

impl Agent {
    fn start(node: String, backend: Choice, (stage, folder): (&Stage, &Folder)) -> Result<Self, CliError> {
        let own = folder.path().join(&node);
        fs::create_dir(&own).map_err(|error| CliError::io("making an agent's folder", error))?;
        let log = folder.path().join(format!("{node}.log"));
        let written = File::create(&log).map_err(|error| CliError::io("making a log", error))?;
        let copy = written.try_clone().map_err(|error| CliError::io("making a log", error))?;
        let netns = stage.node(&node)?.clone();
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["tethered", "--folder"])
            .arg(folder.path())
            .args(["--", "agent", "--node-name", &node, "--source"])
            .arg(folder.manifests())
            // From inside a folder that is gone nothing can be made in it again, however late an agent comes to it.
            .args(["--state-dir", "."])
            .current_dir(own)
            .args(["--backend", backend.as_str()])
            .args(["--listen", &format!("{}:{PORT}", Ipv4Addr::LOCALHOST)])
            .stdin(Stdio::piped())
            .stdout(written)
            .stderr(copy)
            // Ctrl-C is for the demo, which then ends its agents in order.
            .process_group(0);
        let process = netns.spawn(&mut command).map_err(|error| failed("starting an agent", error))?;
        Ok(Self { node, log, process, netns })
    }

    /// `/readyz` says so, asked from inside the node.
    fn ready(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        matches!(self.netns.run(ask), Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200"))
    }

    fn alive(&mut self) -> Result<(), CliError> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failure(&format!("it ended with {status}"))),
            Err(error) => Err(CliError::io("watching an agent", error)),
        }
    }

    /// Its own last complaint is the best explanation there is.
    fn failure(&self, what: &str) -> CliError {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let complaint = log.lines().rfind(|line| line.to_lowercase().contains("error"));
        let said = complaint.or_else(|| log.lines().rfind(|line| !line.trim().is_empty()));
        let said = said.unwrap_or("it said nothing").to_owned();
        CliError::Io { doing: format!("the agent of {}: {what}", self.node), source: said.into() }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        for agent in &mut self.0 {
            drop(agent.process.stdin.take());
        }
        let start = Instant::now();
        for agent in &mut self.0 {
            while matches!(agent.process.try_wait(), Ok(None)) {
                if start.elapsed() > FAREWELL {
                    // Errors only if it ended in between.
                    drop(agent.process.kill());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
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

/// Removes the folder. An agent that is just starting may still be making files in its own part of it.
fn remove(folder: &Path) {
    for _ in 0..100 {
        // Errors if the other agent was quicker, too.
        drop(fs::remove_dir_all(folder));
        if !folder.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

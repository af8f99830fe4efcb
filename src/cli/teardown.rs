//! `podwall teardown`: takes away every rule podwall made on this host, and nothing else.
//!
//! A living agent owns its table (the kernel refuses other writers) and would put it back, so it is asked over its
//! control socket (decision L8). Without one, whatever stands in any packet filter is taken out directly.
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{CliError, CliResult, Exit, OutputFormat, output};
use crate::agent::adoption::Adoption;
use crate::agent::backend::former;
use crate::agent::work::Removed;
use crate::dns::farewell;

/// Take away every rule podwall made on this host; everything else stays
#[derive(Debug, Args)]
#[command(
    long_about = "Take away every rule podwall made on this host; everything else stays.\n\n\
        A running agent is asked to do it and stays idle afterwards, so that nothing comes back; stop it when you \
        like. Without an agent they are deleted directly, in nftables and in iptables alike. Running it twice does \
        no harm. Connections that are open stay open. From then on nothing on this node is isolated.",
    after_help = "Examples:\n  sudo podwall teardown\n  sudo podwall teardown --output json"
)]
pub struct Teardown {
    /// Where the agent keeps its control socket
    #[arg(long, value_name = "DIR", default_value = "/run/podwall")]
    state_dir: PathBuf,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: OutputFormat,
}

/// Who took it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum By {
    Agent,
    Teardown,
}

#[derive(Debug, Serialize)]
struct Report {
    by: By,
    removed: Removed,
}

/// What the agent answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    Removed(Removed),
    Error(String),
}

impl Teardown {
    /// Runs it.
    pub fn run(self) -> CliResult {
        let report = match ask_agent(&self.state_dir.join("agent.sock"))? {
            Some(removed) => {
                dns_lets_go(farewell::bury(&self.state_dir));
                Report { by: By::Agent, removed }
            }
            None => Report { by: By::Teardown, removed: remove(&self.state_dir)? },
        };
        match self.output {
            OutputFormat::Text => output::answer(&words(&report))?,
            OutputFormat::Json => output::answer_json(&report)?,
        }
        Ok(Exit::Done)
    }
}

/// Nobody owns the rules: whichever packet filter holds them, they go, and so does the memory of having come.
pub(super) fn remove(state_dir: &Path) -> Result<Removed, CliError> {
    let removed =
        former::remove_all().map_err(|error| CliError::backend("removing podwall's rules", error))?;
    Adoption::open(state_dir).forget();
    dns_lets_go(farewell::let_go(state_dir));
    Ok(removed)
}

/// The proxy judges nothing, and goes with its own DaemonSet.
fn dns_lets_go(done: io::Result<()>) {
    if let Err(error) = done {
        tracing::warn!(%error, "the DNS proxy does not let go of queries: stop it too");
    }
}

fn words(report: &Report) -> String {
    let Removed { chains, sets, elements } = report.removed;
    if report.removed == Removed::default() {
        return "nothing to remove: podwall has no rules on this host\n".to_owned();
    }
    let by = match report.by {
        By::Agent => " (done by the running agent, which is idle now)",
        By::Teardown => "",
    };
    format!("removed podwall's rules: {chains} chains, {sets} sets, {elements} elements{by}\n")
}

/// `None`: no agent is alive behind the socket.
fn ask_agent(socket: &Path) -> Result<Option<Removed>, CliError> {
    /// An agent may be in the middle of a commit or a slow API call; far above what it ever takes.
    const PATIENCE: Duration = Duration::from_secs(10);
    let doing = || format!("asking the agent at {}", socket.display());
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        // Nobody listens: never started, or killed and its socket left behind.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(CliError::io(doing(), error)),
    };
    let talk = |stream: &mut UnixStream| -> io::Result<String> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"{\"command\":\"teardown\"}\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    let line = talk(&mut stream).map_err(|error| CliError::io(doing(), error))?;
    match serde_json::from_str(&line) {
        Ok(Reply::Removed(removed)) => Ok(Some(removed)),
        Ok(Reply::Error(problem)) => Err(CliError::Io { doing: doing(), source: problem.into() }),
        Err(error) => Err(CliError::Io { doing: doing(), source: Box::new(error) }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// An agent that gives one answer to one question.
    fn agent(folder: &Path, reply: &'static str) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(folder.join("agent.sock")).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut asked).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
            asked
        })
    }

    #[test]
    fn a_living_agent_is_asked_and_its_count_believed() {
        let folder = tempfile::tempdir().unwrap();
        let agent = agent(folder.path(), "{\"removed\":{\"chains\":9,\"sets\":4,\"elements\":20}}\n");
        let removed = ask_agent(&folder.path().join("agent.sock")).unwrap();
        assert_eq!(removed, Some(Removed { chains: 9, sets: 4, elements: 20 }));
        assert_eq!(agent.join().unwrap(), "{\"command\":\"teardown\"}\n");
    }

    #[test]
    fn what_the_agent_refuses_is_an_error_and_not_a_success() {
        let folder = tempfile::tempdir().unwrap();
        let agent = agent(folder.path(), "{\"error\":\"the kernel refused\"}\n");
        let error = ask_agent(&folder.path().join("agent.sock")).unwrap_err();
        assert!(error.line().ends_with("agent.sock: the kernel refused"), "{}", error.line());
        agent.join().unwrap();
    }

    #[test]
    fn a_socket_left_behind_by_a_killed_agent_counts_as_no_agent() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        drop(UnixListener::bind(&socket).unwrap());
        assert!(matches!(ask_agent(&socket), Ok(None)));
        assert!(matches!(ask_agent(&folder.path().join("none.sock")), Ok(None)));
    }

    #[test]
    fn a_second_run_says_there_is_nothing_left() {
        let report = Report { by: By::Teardown, removed: Removed::default() };
        assert_eq!(words(&report), "nothing to remove: podwall has no rules on this host\n");
    }
}

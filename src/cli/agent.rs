//! `podwall agent`: enforces the policies of one node. Flags and help; the work is [`crate::agent`]'s.
pub(super) mod drops;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use podwall_engine::NodeName;

use self::drops::DropFlags;
use super::planning::PlanFlags;
use super::{CliError, CliResult, Exit};
use crate::agent::apply::Established;
use crate::agent::backend::{Choice, GuardChoice};
use crate::agent::lock::LockError;
use crate::agent::source::SourceError;
use crate::agent::{self as agent, AgentError, Objects, Settings};
use crate::telemetry::log::{self, LogFormat};

/// Enforce NetworkPolicies on this node until stopped
#[derive(Debug, Args)]
#[command(
    long_about = "Enforce NetworkPolicies on this node until stopped.\n\n\
        Reads pods, namespaces, nodes and NetworkPolicies from the API server (or a folder of manifests), and keeps \
        podwall's rules in this node's kernel in step with them: table `inet podwall` of nftables or, where that \
        does not work, PW chains in the mangle table of iptables and pw ipsets. Another --backend takes over \
        without a gap from the one before. Nothing is written before everything was read \
        once. Stopping it, killing it, or losing the API server leaves the last rules standing; `podwall teardown` \
        takes them away.\n\n\
        Needs CAP_NET_ADMIN in the host's network namespace. Logs go to standard error; RUST_LOG chooses what is \
        told (podwall=debug).",
    after_long_help = "Endpoints at --listen:\n  \
        /metrics   counters and gauges, named podwall_*\n  \
        /healthz   200 while the agent works; restart it otherwise\n  \
        /readyz    200 while every promise is kept; otherwise 503 and a line for each reason\n\n\
        Examples:\n  \
        podwall agent --node-name \"$(hostname)\" --kubeconfig /etc/kubernetes/kubelet.conf\n  \
        podwall agent --node-name worker-1 --source ./manifests --listen 127.0.0.1:9473"
)]
pub struct Agent {
    /// This node's name, as `kubectl get nodes` prints it
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: String,
    /// Read from the API server this file names; default: the cluster this pod runs in
    #[arg(long, value_name = "FILE", conflicts_with = "source")]
    kubeconfig: Option<PathBuf>,
    /// Read from the manifests in this folder instead, and follow its changes
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Which packet filter carries the rules
    #[arg(long, value_enum, default_value_t, value_name = "NAME")]
    backend: Choice,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9473")]
    listen: SocketAddr,
    /// NFLOG group that drop records are sent to
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    drop_log_group: u16,
    /// Where the lock, the control socket and the record of the first start are kept
    #[arg(long, value_name = "DIR", default_value = "/run/podwall")]
    state_dir: PathBuf,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
    /// How the table is kept from other programs
    #[arg(long, value_enum, default_value_t, value_name = "HOW", hide = true)]
    guard: GuardChoice,
    #[command(flatten)]
    plan: PlanFlags,
    #[command(flatten)]
    drops: DropFlags,
    /// What becomes of open connections when a policy no longer allows them
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    established: Established,
    /// After the first start on a node, let connections opened before it go on for this long unjudged
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    grace: u64,
}

impl Agent {
    /// Runs it.
    pub fn run(self) -> CliResult {
        log::init(self.log_format);
        agent::run(self.settings()).map_err(told)?;
        Ok(Exit::Done)
    }

    fn settings(self) -> Settings {
        let mut options = self.plan.options();
        options.log_group = self.drop_log_group;
        Settings {
            node: NodeName::from(self.node_name.as_str()),
            objects: match self.source {
                Some(folder) => Objects::Folder(folder),
                None => Objects::Cluster(self.kubeconfig),
            },
            options,
            backend: self.backend,
            guard: self.guard,
            established: self.established,
            grace: Duration::from_secs(self.grace),
            drops: self.drops.settings(),
            listen: self.listen,
            state_dir: self.state_dir,
        }
    }
}

/// The class of each reason, which is the exit code a script sees.
pub(super) fn told(error: AgentError) -> CliError {
    match error {
        AgentError::Lock(LockError::Held { .. }) => CliError::Owned { detail: error.to_string() },
        AgentError::Lock(LockError::Io { doing, source }) | AgentError::Io { doing, source } => {
            CliError::io(doing, source)
        }
        AgentError::Backend(error) => CliError::backend("opening the packet filter", error),
        AgentError::Source(SourceError::Folder { folder, source }) => CliError::Input {
            doing: format!("reading --source {}", folder.display()),
            source: Box::new(source),
        },
        AgentError::Kubeconfig { file, source } => {
            CliError::Input { doing: format!("reading --kubeconfig {}", file.display()), source }
        }
        AgentError::NotInCluster(_) | AgentError::Address { .. } => CliError::Usage(error.to_string()),
        AgentError::Client(source) => CliError::Cluster { doing: "making the API client".to_owned(), source },
        AgentError::Died(_) => CliError::io("running the agent", std::io::Error::other(error.to_string())),
    }
}

//! `podwall operator`: rolls the reports of the nodes up. Flags and help; the work is [`crate::operator`]'s.
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::agent::told;
use super::{CliError, CliResult, Exit};
use crate::operator::{self, OperatorError, Settings};
use crate::telemetry::log::{self, LogFormat};

/// Tell on bans, exposures and DomainPolicies what the nodes report
#[derive(Debug, Args)]
#[command(
    long_about = "Tell on bans, exposures and DomainPolicies what the nodes report.\n\n\
        Reads the NodeReports that agents write, and sets conditions and counts on Bans, ServiceExposures \
        and DomainPolicies: enforced on 37 of 37 nodes, the last error with its node and field. Deletes bans whose time is over. One replica leads \
        at a time, by a Lease; a second one waits. Agents enforce without it.\n\n\
        Logs go to standard error; RUST_LOG chooses what is told (podwall=debug).",
    after_long_help = "Endpoints at --listen:\n  \
        /metrics   counters and gauges, named podwall_operator_*\n  \
        /healthz   200 while the operator works; restart it otherwise\n  \
        /readyz    200, also while it waits for its turn\n\n\
        Examples:\n  \
        podwall operator --kubeconfig ~/.kube/config --namespace podwall\n  \
        kubectl wait --for=condition=Enforced ban/scanner --timeout=10s"
)]
pub struct Operator {
    /// Read from the API server this file names; default: the cluster this pod runs in
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Where the lease is kept
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "podwall")]
    namespace: String,
    /// Who this replica is in the lease; no two may share a name
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value_t = hostname())]
    identity: String,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9474")]
    listen: SocketAddr,
    /// How long a ban that is over stays, so that people can see it was there; the report of a gone node too
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    delete_after: u64,
    /// How long a node that joined may take to report before it is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    joining: u64,
    /// Requests to change something that the API server gets each second, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    writes_per_second: u32,
    /// How long the lease lasts unless it is renewed
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    lease: u64,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

impl Operator {
    /// Runs it.
    pub fn run(self) -> CliResult {
        log::init(self.log_format);
        operator::run(self.settings()).map_err(reason)?;
        Ok(Exit::Done)
    }

    fn settings(self) -> Settings {
        Settings {
            kubeconfig: self.kubeconfig,
            namespace: self.namespace,
            identity: self.identity,
            listen: self.listen,
            lease: Duration::from_secs(self.lease),
            delete_after: Duration::from_secs(self.delete_after),
            joining: Duration::from_secs(self.joining),
            writes_per_second: self.writes_per_second,
        }
    }
}

pub(super) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn reason(error: OperatorError) -> CliError {
    match error {
        OperatorError::Client(error) => told(error),
        OperatorError::Io { doing, source } => CliError::io(doing, source),
        OperatorError::Lost(lost) => {
            CliError::Cluster { doing: "leading".to_owned(), source: Box::new(lost) }
        }
        OperatorError::Died(_) => {
            CliError::io("running the operator", std::io::Error::other(error.to_string()))
        }
    }
}

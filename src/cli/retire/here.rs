//! `podwall retire here`: runs in the agent's place, takes its rules away, and stays so that nothing brings them back.
//!
//! It holds the agent's own lock: no agent lives while it does, so what is removed once stays removed. Its readiness
//! is the acknowledgement [`super::nodes`] waits for, and is served where the agent's was.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::lock::{Lock, LockError};
use crate::cli::cluster::block_on;
use crate::cli::{CliError, CliResult, Exit, teardown};
use crate::telemetry::health::Concern;
use crate::telemetry::log::{self, LogFormat};
use crate::telemetry::server::{self, Telemetry};

/// Pause after the agent before us still lived, or the kernel refused.
const RETRY: Duration = Duration::from_secs(1);

/// On a node: take the rules away, then stay and answer /readyz until stopped
#[derive(Debug, Args)]
pub struct Here {
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9473")]
    listen: SocketAddr,
    /// Where the agent keeps its lock
    #[arg(long, value_name = "DIR", default_value = "/run/podwall")]
    state_dir: PathBuf,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

impl Here {
    /// Runs it.
    pub fn run(self) -> CliResult {
        log::init(self.log_format);
        block_on(self.stay())
    }

    async fn stay(self) -> CliResult {
        let failed = |error| CliError::io("listening for signals", error);
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let work = async {
            let _lock = self.lock().await?;
            let telemetry = Telemetry::default();
            let listener = self.listener().await?;
            tokio::try_join!(serve(listener, &telemetry), take_away(&self.state_dir, &telemetry))?;
            Ok(Exit::Done)
        };
        tokio::select! {
            ended = work => ended,
            _ = terminate.recv() => Ok(Exit::Done),
            _ = interrupt.recv() => Ok(Exit::Done),
        }
    }

    /// The agent we replace may need its last moments.
    async fn lock(&self) -> Result<Lock, CliError> {
        loop {
            match Lock::take(&self.state_dir, "retiring") {
                Ok(lock) => return Ok(lock),
                Err(error @ LockError::Held { .. }) => tracing::info!("waiting: {error}"),
                Err(LockError::Io { doing, source }) => return Err(CliError::io(doing, source)),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn listener(&self) -> Result<TcpListener, CliError> {
        let doing = || format!("listening on {} (choose another with --listen)", self.listen);
        server::bind(self.listen).await.map_err(|error| CliError::io(doing(), error))
    }
}

async fn serve(listener: TcpListener, telemetry: &Telemetry) -> Result<(), CliError> {
    let served = server::serve(listener, telemetry.clone()).await;
    served.map_err(|error| CliError::io("answering on --listen", error))
}

/// Tries until it is done; every failure is told where the probes look.
async fn take_away(state_dir: &Path, telemetry: &Telemetry) -> Result<(), CliError> {
    let health = &telemetry.health;
    loop {
        match teardown::remove(state_dir) {
            Ok(removed) => {
                tracing::info!(?removed, "nothing of podwall stands in this node's kernel");
                health.clear(Concern::Commits);
                health.clear(Concern::Uncommitted);
                return Ok(());
            }
            Err(error) => health.raise(Concern::Commits, error.line()),
        }
        tokio::time::sleep(RETRY).await;
    }
}

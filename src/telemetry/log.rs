//! Log set-up. Lines go to standard error; standard output is for answers.
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for people, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// The client's own lines repeat, less clearly, what the watches say.
const QUIET: &str = "kube_client=off";

/// Installs the subscriber. `RUST_LOG` chooses what is told (`podwall=debug`); the default is `info`.
/// A second call changes nothing: the first subscriber stays (tests share one process).
pub fn init(format: LogFormat) {
    init_at(format, "info");
}

/// The same with another default.
pub fn init_at(format: LogFormat, level: &str) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("{level},{QUIET}")));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => {
            let colour = std::io::stderr().is_terminal();
            registry.with(lines.with_ansi(colour).with_target(false)).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    if let Err(error) = installed {
        tracing::debug!(%error, "log set-up was done before");
    }
}

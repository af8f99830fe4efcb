//! Which API server a subcommand talks to, and what its refusals mean to the person who asked.
use std::future::Future;
use std::path::{Path, PathBuf};

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::CliError;
use super::error::Cause;

/// Flags that name an API server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which cluster")]
pub struct ClusterFlags {
    /// Talk to the API server this file names; default: $KUBECONFIG, ~/.kube/config, then in-cluster
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Use this context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterFlags {
    /// A client, which has not talked to anybody yet.
    pub async fn client(&self) -> Result<Client, CliError> {
        let config = config(self.kubeconfig.as_deref(), self.context.clone()).await?;
        Client::try_from(config).map_err(|error| refused("reading the kubeconfig", error))
    }
}

/// Runs the conversation of one command to its end.
pub fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::io("starting the runtime", error))?;
    runtime.block_on(work)
}

/// Reads the kubeconfig, or what a pod is given in its place.
pub async fn config(kubeconfig: Option<&Path>, context: Option<String>) -> Result<Config, CliError> {
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    match kubeconfig {
        Some(path) => {
            let doing = format!("reading {}", path.display());
            let file = Kubeconfig::read_from(path).map_err(|error| refused(&doing, error))?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| refused(&doing, error))
        }
        None if options.context.is_some() => {
            Config::from_kubeconfig(&options).await.map_err(|error| refused("reading the kubeconfig", error))
        }
        None => Config::infer().await.map_err(|error| refused("looking for a cluster", error)),
    }
}

/// The API server did not do it.
pub fn refused(doing: &str, error: impl Into<Cause>) -> CliError {
    CliError::Cluster { doing: doing.to_owned(), source: error.into() }
}

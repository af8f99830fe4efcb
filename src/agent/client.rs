//! The client of an API server: from a kubeconfig or from what a pod is given, and its address where another is named.
use std::path::Path;
use std::time::Duration;

use axum::http::Uri;
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::AgentError;
use super::api_servers::Server;

/// A client that leaves patience to the watches: they know how long is too long.
pub(crate) async fn client(kubeconfig: Option<&Path>) -> Result<(kube::Client, Server), AgentError> {
    let config = config(kubeconfig).await?;
    let server = Server::of(&config);
    Ok((patient(config)?, server))
}

/// The same at another address, with the credentials there are, if any.
pub(crate) async fn client_at(kubeconfig: Option<&Path>, address: &str) -> Result<kube::Client, AgentError> {
    let address: Uri = address
        .parse()
        .map_err(|error| AgentError::Address { address: address.to_owned(), source: error })?;
    let mut config = match config(kubeconfig).await {
        Err(AgentError::NotInCluster(_)) => kube::Config::new(address.clone()),
        found => found?,
    };
    config.cluster_url = address;
    patient(config)
}

async fn config(kubeconfig: Option<&Path>) -> Result<kube::Config, AgentError> {
    Ok(match kubeconfig {
        None => kube::Config::incluster().map_err(|error| AgentError::NotInCluster(Box::new(error)))?,
        Some(file) => {
            let failed = |source| AgentError::Kubeconfig { file: file.to_owned(), source: Box::new(source) };
            let kubeconfig = Kubeconfig::read_from(file).map_err(failed)?;
            let options = KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)?
        }
    })
}

fn patient(mut config: kube::Config) -> Result<kube::Client, AgentError> {
    config.connect_timeout = Some(Duration::from_secs(5));
    config.default_retry = false;
    kube::Client::try_from(config).map_err(|error| AgentError::Client(Box::new(error)))
}

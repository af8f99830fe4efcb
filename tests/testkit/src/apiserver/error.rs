//! Why there is no API server, or why it did not do what a test asked.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Every message names the step; those about a program carry the end of its log, because the log is
/// gone with the test's directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiServerError {
    /// The programs were not built on this machine.
    #[error("no API server to start: {said}")]
    ToolsMissing {
        /// Which, and what to run.
        said: String,
    },
    /// A file, socket or process call.
    #[error("{doing}: {source}")]
    Io {
        /// The step.
        doing: String,
        /// What the system answered.
        source: io::Error,
    },
    /// The service-account key pair.
    #[error("making the service-account key: {source}")]
    Key {
        /// What the key generator answered.
        source: rcgen::Error,
    },
    /// A kubeconfig of this guard, or the certificate it names.
    #[error("reading {path}: {source}", path = path.display())]
    Credentials {
        /// The kubeconfig.
        path: PathBuf,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// The program ended by itself.
    #[error("{program} ended ({status}); its log ends with:\n{log}")]
    Exited {
        /// Its file name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote.
        log: String,
    },
    /// The program runs and does not get ready.
    #[error("{program} is not ready after {waited:?} ({last}); its log ends with:\n{log}")]
    NotReady {
        /// Its file name.
        program: String,
        /// How long this guard waited.
        waited: Duration,
        /// What the last question was answered.
        last: String,
        /// The last lines it wrote.
        log: String,
    },
    /// The API server or etcd refused a request, or did not answer it.
    #[error("{doing}: {source}")]
    Kube {
        /// The step.
        doing: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// A test's YAML is none.
    #[error("reading YAML: {source}")]
    Yaml {
        /// Where and why.
        source: Box<serde_saphyr::Error>,
    },
    /// A test's YAML is no Kubernetes object.
    #[error("reading YAML as an object: {reason}")]
    NoObject {
        /// What is missing or of the wrong type.
        reason: String,
    },
}

impl ApiServerError {
    pub(super) fn io<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        |source| Self::Io { doing, source: source.into() }
    }

    pub(super) fn kube(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        |source| Self::Kube { doing, source: Box::new(source) }
    }
}

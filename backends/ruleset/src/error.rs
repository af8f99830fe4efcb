//! Why a backend could not do what it was asked. A variant is a step, and says what the caller can do next.

/// An error of a backend.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The kernel or a program lacks something; `needs` says what to install, load or grant.
    #[error("not supported here: {needs}")]
    Unsupported {
        /// What to install, load or grant.
        needs: String,
    },
    /// Another process owns the table.
    #[error("table inet podwall belongs to another process: {detail}")]
    Owned {
        /// What is known of the owner.
        detail: String,
    },
    /// Somebody wrote between observe and commit: observe again.
    #[error("the packet filter changed since it was read")]
    Stale,
    /// The kernel refused; nothing of the transaction was done.
    #[error("the kernel refused: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Rejected(Vec<Refusal>),
    /// Talking to the kernel went wrong; what was done is unknown: observe again.
    #[error("{doing}")]
    Io {
        /// The step.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// One operation the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct Refusal {
    /// Index into the transaction's operations.
    pub op: usize,
    /// The chain or set it concerns, for a person.
    pub object: String,
    /// The kernel's reason, with errno name and extended text where it gives one.
    pub reason: String,
}

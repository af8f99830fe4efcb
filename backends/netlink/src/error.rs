//! What can go wrong between us and the kernel. A variant is a step; refusals of the kernel are not lumped in
//! with trouble on the way there.
use std::io;

use crate::errno::Refusal;

/// Bytes that are not what their header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed netlink data")]
pub struct Malformed;

/// An error of a netlink exchange.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call did not work.
    #[error("{doing}: {source}")]
    Io {
        /// The step.
        doing: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel understood and said no.
    #[error("{doing}: {refusal}")]
    Refused {
        /// The step.
        doing: &'static str,
        /// Its reason.
        refusal: Refusal,
    },
    /// An answer that cannot be read.
    #[error("{doing}: {source}")]
    Malformed {
        /// The step.
        doing: &'static str,
        /// The cause.
        #[source]
        source: Malformed,
    },
    /// The receive buffer overflowed (ENOBUFS): answers or events are lost, and what happened is unknown.
    #[error("{doing}: answers were lost, the receive buffer overflowed (ENOBUFS)")]
    Lost {
        /// The step.
        doing: &'static str,
    },
    /// The batch does not fit the socket's send buffer.
    #[error(
        "sending a batch of {bytes} bytes: larger than the socket's send buffer (EMSGSIZE); \
         raising it needs CAP_NET_ADMIN, or a larger net.core.wmem_max"
    )]
    TooLarge {
        /// Size of the batch.
        bytes: usize,
    },
    /// An attribute or nest of more than 65535 bytes, or a message of more than 4 GiB.
    #[error("{doing}: an attribute is longer than netlink can say (65535 bytes)")]
    TooLong {
        /// The step.
        doing: &'static str,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, source: source.into() }
    }

    /// The kernel's reason, where it gave one.
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::Io { .. }
            | Self::Malformed { .. }
            | Self::Lost { .. }
            | Self::TooLarge { .. }
            | Self::TooLong { .. } => None,
        }
    }
}

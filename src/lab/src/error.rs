//! What can go wrong while the network is built: each variant is a step, its source is kept.

use std::io;

/// Why a part of the lab could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A system call was refused; without root that is the very first one.
    #[error("{doing}: {source}")]
    Io {
        /// The step, in words.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The netlink conversation itself broke down.
    #[error("{doing}: {source}")]
    Netlink {
        /// The step, in words.
        doing: String,
        /// What broke.
        source: rtnetlink::Error,
    },
    /// A kernel setting could not be written.
    #[error("writing /proc/sys/{name}: {source}")]
    Sysctl {
        /// The setting, as a path below /proc/sys.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A node, pod or host of that name was never added, or was removed.
    #[error("no {kind} named {name}")]
    Unknown {
        /// "node", "pod" or "host".
        kind: &'static str,
        /// The name asked for.
        name: String,
    },
    /// A node, pod or host of that name exists already.
    #[error("{kind} {name} exists already")]
    Taken {
        /// "node", "pod" or "host".
        kind: &'static str,
        /// The name asked for.
        name: String,
    },
    /// The node has no address left in its pod range.
    #[error("node {node} has no free pod address in {range}")]
    Exhausted {
        /// The node asked.
        node: String,
        /// Its pod range.
        range: String,
    },
}

impl LabError {
    /// Wraps the refusal of a step; made for `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source: source.into() }
    }

    /// Wraps rtnetlink's refusal of a step; made for `map_err`.
    pub(crate) fn netlink(doing: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let doing = doing.into();
        move |source| match source {
            // The kernel's own refusal is an error number; the rest of the message is our question again.
            rtnetlink::Error::NetlinkError(refusal) => Self::Io { doing, source: refusal.to_io() },
            source => Self::Netlink { doing, source },
        }
    }
}

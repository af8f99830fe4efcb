//! What went wrong, in the words of the seam: one line that says what to do.
use std::io;

use podwall_netlink::{Errno, Error, Refusal};
use podwall_ruleset::BackendError;

/// An exchange that did not work.
pub(crate) fn failed(error: Error) -> BackendError {
    match error {
        Error::Refused { refusal, .. } if refusal.errno == Errno::EPERM => no_privilege(),
        Error::Refused { doing, ref refusal } => BackendError::Io {
            doing: format!("{doing}: {refusal}"),
            source: io::Error::from_raw_os_error(refusal.errno.0),
        },
        Error::Io { doing, source } if unsupported(&source) => BackendError::Unsupported {
            needs: format!(
                "{doing}: {source}; load the module nfnetlink, or use a kernel with CONFIG_NETFILTER_NETLINK"
            ),
        },
        Error::Io { doing, source } => BackendError::Io { doing: format!("{doing}: {source}"), source },
        Error::Malformed { .. } | Error::Lost { .. } | Error::TooLarge { .. } | Error::TooLong { .. } => {
            BackendError::Io { doing: error.to_string(), source: io::Error::other(error) }
        }
    }
}

/// Every message to nf_tables needs the capability, reading included (`nfnetlink_rcv`).
pub(crate) fn no_privilege() -> BackendError {
    BackendError::Unsupported { needs: "run as root or with CAP_NET_ADMIN".to_owned() }
}

/// A feature the kernel does not have.
pub(crate) fn missing(feature: &str, option: &str, refusal: &Refusal) -> BackendError {
    BackendError::Unsupported { needs: format!("{feature}: {refusal}; use a kernel with {option}") }
}

fn unsupported(error: &io::Error) -> bool {
    let number = error.raw_os_error().unwrap_or_default();
    [Errno::EPROTONOSUPPORT, Errno::EAFNOSUPPORT].contains(&Errno(number))
}

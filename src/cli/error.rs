//! Why a subcommand could not do what it was asked, and the exit code that tells a script.
//!
//! A variant is a class a script can act on; the text names the step, keeps the cause, and says what to do next.
use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use podwall_ruleset::BackendError;

/// The table printed under `--help`; one line for each [`Exit`].
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done; for explain: allowed
  1    the answer is no: explain says blocked, a demo probe disagrees with the
       policies, nothing bans the address, a node did not answer
  2    wrong arguments, or a manifest that cannot be read
  3    a privilege is missing
  4    this kernel lacks something podwall needs
  5    the cluster's API server cannot be reached or refuses
  6    another podwall owns this node's rules
  70   anything else went wrong
  130  interrupted (143: terminated)";

/// Exit codes, one meaning each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Done, and the answer is no.
    Negative,
    /// The user's input is wrong (also what clap itself exits with).
    Input,
    /// A privilege is missing.
    Permission,
    /// The kernel lacks something.
    Kernel,
    /// The API server cannot be reached or refuses.
    Cluster,
    /// Another instance owns the table.
    Owned,
    /// Anything else (`EX_SOFTWARE`, sysexits.h).
    Other,
    /// SIGINT: 128 + 2, as shells say it.
    Interrupted,
    /// SIGTERM: 128 + 15.
    Terminated,
}

impl Exit {
    /// The number a shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Negative => 1,
            Self::Input => 2,
            Self::Permission => 3,
            Self::Kernel => 4,
            Self::Cluster => 5,
            Self::Owned => 6,
            Self::Other => 70,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The cause below an error.
pub type Cause = Box<dyn Error + Send + Sync>;

/// An error of a subcommand.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments do not fit together or name something that is not there.
    #[error("{0}")]
    Usage(String),
    /// A file the user named cannot be read or understood.
    #[error("{doing}")]
    Input {
        /// The step.
        doing: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// A privilege is missing.
    #[error("{doing} needs {privilege}")]
    Permission {
        /// The step.
        doing: String,
        /// What is missing: `root`, `CAP_NET_ADMIN`.
        privilege: String,
        /// The command that would work.
        instead: String,
    },
    /// The kernel lacks something.
    #[error("this kernel cannot run podwall: {needs}")]
    Kernel {
        /// What to load or enable.
        needs: String,
    },
    /// The API server cannot be reached or refuses.
    #[error("{doing}")]
    Cluster {
        /// The step.
        doing: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The API server may be asked, but not this.
    #[error("{doing} needs the right to {verb} {resource}")]
    Forbidden {
        /// The step.
        doing: String,
        /// As RBAC writes it.
        verb: &'static str,
        /// As RBAC writes it.
        resource: &'static str,
    },
    /// The API server has never heard of our kinds.
    #[error("{doing}: this cluster does not know the kinds of podwall.dev")]
    NotInstalled {
        /// The step.
        doing: String,
    },
    /// Another instance owns the table.
    #[error("another podwall owns this node's rules: {detail}")]
    Owned {
        /// What is known of it.
        detail: String,
    },
    /// A signal ended the work early; what was made is cleaned up.
    #[error("{}", match .0 { Stop::Interrupt => "interrupted", Stop::Terminate => "terminated" })]
    Stopped(Stop),
    /// Anything else.
    #[error("{doing}")]
    Io {
        /// The step.
        doing: String,
        /// The cause.
        #[source]
        source: Cause,
    },
}

/// The signals that ask a program to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl CliError {
    /// A step that went wrong for a reason of no class of its own; a missing privilege keeps its class.
    pub fn io(doing: impl fmt::Display, source: io::Error) -> Self {
        let doing = doing.to_string();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::root(doing),
            _ => Self::Io { doing, source: Box::new(source) },
        }
    }

    /// A step only root can do.
    pub fn root(doing: impl fmt::Display) -> Self {
        Self::Permission { doing: doing.to_string(), privilege: "root".to_owned(), instead: with_sudo() }
    }

    /// What the backend said while doing something.
    pub fn backend(doing: impl fmt::Display, error: BackendError) -> Self {
        match error {
            BackendError::Unsupported { .. } if !may_filter() => Self::Permission {
                doing: doing.to_string(),
                privilege: "root or CAP_NET_ADMIN".to_owned(),
                instead: with_sudo(),
            },
            BackendError::Unsupported { needs } => Self::Kernel { needs },
            BackendError::Owned { detail } => Self::Owned { detail },
            BackendError::Io { doing, source } => Self::io(doing, source),
            BackendError::Stale | BackendError::Rejected(_) => {
                Self::Io { doing: doing.to_string(), source: Box::new(error) }
            }
        }
    }

    /// The class as an exit code.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Input { .. } => Exit::Input,
            Self::Permission { .. } | Self::Forbidden { .. } => Exit::Permission,
            Self::Kernel { .. } => Exit::Kernel,
            Self::Cluster { .. } | Self::NotInstalled { .. } => Exit::Cluster,
            Self::Owned { .. } => Exit::Owned,
            Self::Stopped(Stop::Interrupt) => Exit::Interrupted,
            Self::Stopped(Stop::Terminate) => Exit::Terminated,
            Self::Io { .. } => Exit::Other,
        }
    }

    /// What to do next, where the text does not already say it.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Permission { instead, .. } => Some(format!("run `{instead}`")),
            Self::Cluster { .. } => {
                Some("check --kubeconfig, or name manifest files to work without a cluster".to_owned())
            }
            Self::Forbidden { verb, resource, .. } => Some(format!(
                "ask an administrator for it, and check with `kubectl auth can-i {verb} {resource}`"
            )),
            Self::NotInstalled { .. } => Some(
                "install the chart, or only them: `kubectl apply --server-side -f charts/podwall/crds`"
                    .to_owned(),
            ),
            Self::Owned { .. } => Some("stop that agent first, or use its --state-dir".to_owned()),
            Self::Usage(_)
            | Self::Input { .. }
            | Self::Kernel { .. }
            | Self::Stopped(_)
            | Self::Io { .. } => None,
        }
    }

    /// The error and all its causes in one line.
    pub fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors repeat their cause in their own text.
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        if let Some(advice) = self.advice() {
            line.push_str("; ");
            line.push_str(&advice);
        }
        line.replace('\n', " ")
    }
}

/// The command as it was typed, as root.
fn with_sudo() -> String {
    format!("sudo {}", std::env::args().collect::<Vec<_>>().join(" "))
}

/// Has this process the capability every packet filter asks for (capabilities(7))?
fn may_filter() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_every_cause_once() {
        let cause = io::Error::other("line 3: tabs are not allowed\nhere");
        let error = CliError::Input { doing: "reading shop.yaml".to_owned(), source: Box::new(cause) };
        assert_eq!(error.line(), "reading shop.yaml: line 3: tabs are not allowed here");
        assert_eq!(error.exit(), Exit::Input);
    }

    #[test]
    fn a_missing_privilege_says_which_command_works() {
        let error = CliError::Permission {
            doing: "building namespaces".to_owned(),
            privilege: "root".to_owned(),
            instead: "sudo podwall demo".to_owned(),
        };
        assert_eq!(error.line(), "building namespaces needs root; run `sudo podwall demo`");
        assert_eq!(error.exit(), Exit::Permission);
    }

    #[test]
    fn every_exit_code_is_explained_in_the_help() {
        for exit in [
            Exit::Done,
            Exit::Negative,
            Exit::Input,
            Exit::Permission,
            Exit::Kernel,
            Exit::Cluster,
            Exit::Owned,
            Exit::Other,
            Exit::Interrupted,
            Exit::Terminated,
        ] {
            assert!(EXIT_CODES.contains(&exit.code().to_string()), "{exit:?}");
        }
    }
}

//! Which iptables the host uses, and what its kernel can do: found out by trying, in a chain nobody enters.
use podwall_ruleset::{BackendError, Family};

use crate::detect::detect;
use crate::exec::Error;

mod trial;

/// Which of the two programs named iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Rules in tables of nf_tables (`iptables-nft-*`).
    Nft,
    /// Rules in tables of x_tables (`iptables-legacy-*`).
    Legacy,
}

/// How the variant is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// The one the host's other rules are in.
    #[default]
    Detect,
    /// This one.
    Forced(Variant),
}

/// One of the programs of a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Restore,
    Save,
    /// Lists one chain.
    List,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probed {
    pub(crate) variant: Variant,
    /// For people: why this variant.
    pub(crate) why: String,
    pub(crate) ipv6: bool,
    /// The host speaks IPv6, but rules for it cannot be loaded: what they lack.
    pub(crate) unjudged: Option<String>,
    pub(crate) reverse_path: bool,
    pub(crate) log: bool,
    pub(crate) learned: bool,
    pub(crate) warnings: Vec<String>,
}

impl Variant {
    /// As capabilities and metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft",
            Self::Legacy => "iptables-legacy",
        }
    }

    pub(crate) const fn program(self, family: Family, program: Program) -> &'static str {
        match (self, family, program) {
            (Self::Nft, Family::V4, Program::Restore) => "iptables-nft-restore",
            (Self::Nft, Family::V4, Program::Save) => "iptables-nft-save",
            (Self::Nft, Family::V4, Program::List) => "iptables-nft",
            (Self::Nft, Family::V6, Program::List) => "ip6tables-nft",
            (Self::Legacy, Family::V4, Program::List) => "iptables-legacy",
            (Self::Legacy, Family::V6, Program::List) => "ip6tables-legacy",
            (Self::Nft, Family::V6, Program::Restore) => "ip6tables-nft-restore",
            (Self::Nft, Family::V6, Program::Save) => "ip6tables-nft-save",
            (Self::Legacy, Family::V4, Program::Restore) => "iptables-legacy-restore",
            (Self::Legacy, Family::V4, Program::Save) => "iptables-legacy-save",
            (Self::Legacy, Family::V6, Program::Restore) => "ip6tables-legacy-restore",
            (Self::Legacy, Family::V6, Program::Save) => "ip6tables-legacy-save",
        }
    }
}

/// An exchange that did not work, in the words of the seam.
pub(crate) fn failed(error: Error) -> BackendError {
    match error {
        Error::Missing { program } => BackendError::Unsupported {
            needs: format!("the program {program}: install iptables 1.8 and ipset 6 or later"),
        },
        Error::Stuck { .. } => {
            let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
            BackendError::Io { doing: error.to_string(), source }
        }
        Error::Io { program, source } => {
            BackendError::Io { doing: format!("running {program}: {source}"), source }
        }
    }
}

/// Looks at the host and tries what we need.
pub(crate) fn probe(choice: Choice) -> Result<Probed, BackendError> {
    let (variant, why, warnings) = match choice {
        Choice::Forced(variant) => (variant, "it was asked for".to_owned(), Vec::new()),
        Choice::Detect => {
            let found = detect()?;
            (found.variant, found.why, found.mixed.into_iter().collect())
        }
    };
    trial::sets()?;
    let learned = trial::pairs()?;
    let tried = rules(variant);
    trial::forget_sets()?;
    let Abilities { ipv6, unjudged, reverse_path, log } = tried?;
    Ok(Probed { variant, why, ipv6, unjudged, reverse_path, log, learned, warnings })
}

struct Abilities {
    ipv6: bool,
    unjudged: Option<String>,
    reverse_path: bool,
    log: bool,
}

fn rules(variant: Variant) -> Result<Abilities, BackendError> {
    trial::needed(variant, Family::V4)?;
    let lacking = match trial::needed(variant, Family::V6) {
        Ok(()) => None,
        Err(BackendError::Unsupported { needs }) => Some(needs),
        Err(other) => return Err(other),
    };
    let ipv6 = lacking.is_none();
    let families: &[Family] = if ipv6 { &Family::BOTH } else { &[Family::V4] };
    let all = |rule| trial::optional(variant, families, rule);
    let (reverse_path, log) = (all(trial::REVERSE_PATH)?, all(trial::LOG)?);
    // A host without IPv6 has nothing to enforce there. IPv4 is enforced either way.
    let unjudged = lacking.filter(|_| speaks_ipv6());
    Ok(Abilities { ipv6, unjudged, reverse_path, log })
}

/// Has the namespace of this thread any IPv6 address, its own loopback's included?
pub(crate) fn speaks_ipv6() -> bool {
    std::fs::read_to_string("/proc/thread-self/net/if_inet6").is_ok_and(|addresses| !addresses.is_empty())
}

//! Which iptables the host uses, and what its kernel can do: found out by trying, in a chain nobody enters.
use podwall_ruleset::{BackendError, Family};

use crate::backend::LOCK_PATIENCE;
use crate::detect::detect;
use crate::exec::{self, Error, Said};
use crate::names::{TRIAL_CHAIN, TRIAL_SET};

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
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probed {
    pub(crate) variant: Variant,
    /// For people: why this variant.
    pub(crate) why: String,
    pub(crate) ipv6: bool,
    pub(crate) reverse_path: bool,
    pub(crate) log: bool,
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
    let ipset = exec::run("ipset", &["restore", "-exist"], format!("create {TRIAL_SET} hash:ip\n"));
    let ipset = ipset.map_err(failed)?;
    if !ipset.status.success() {
        return Err(unsupported("ipset (modprobe ip_set_hash_ip, CAP_NET_ADMIN)", &ipset));
    }
    let found = trials(variant);
    exec::run("ipset", &["restore", "-exist"], format!("destroy {TRIAL_SET}\n")).map_err(failed)?;
    let (ipv6, reverse_path, log) = found?;
    Ok(Probed { variant, why, ipv6, reverse_path, log, warnings })
}

fn trials(variant: Variant) -> Result<(bool, bool, bool), BackendError> {
    const NEEDED: &[(&str, &str)] = &[
        ("-m comment --comment \"podwall trial\"", "xt_comment"),
        ("-m conntrack --ctstate ESTABLISHED -m conntrack --ctdir ORIGINAL", "xt_conntrack"),
        ("-m set --match-set pwt4 src", "xt_set"),
        ("-m bpf --bytecode \"1,6 0 0 0\"", "xt_bpf"),
    ];
    for (rule, module) in NEEDED {
        let said = attempt(variant, Family::V4, rule)?;
        if !said.status.success() {
            return Err(unsupported(&format!("{module} (modprobe {module})"), &said));
        }
    }
    let log = "-m hashlimit --hashlimit-upto 1/sec --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-name pwt \
               -j NFLOG --nflog-group 64 --nflog-prefix trial --nflog-size 96";
    let can = |family, rule| attempt(variant, family, rule).map(|said| said.status.success());
    let ipv6 = match attempt(variant, Family::V6, "-m comment --comment \"podwall trial\"") {
        Ok(said) => said.status.success(),
        Err(BackendError::Unsupported { .. }) => false,
        Err(other) => return Err(other),
    };
    Ok((ipv6, can(Family::V4, "-m rpfilter --invert")?, can(Family::V4, log)?))
}

/// Loads one rule into a chain nobody enters, and takes it out again.
fn attempt(variant: Variant, family: Family, rule: &str) -> Result<Said, BackendError> {
    let program = variant.program(family, Program::Restore);
    let load = format!("*mangle\n:{TRIAL_CHAIN} - [0:0]\n-A {TRIAL_CHAIN} {rule}\nCOMMIT\n");
    let said = exec::run(program, &["-w", LOCK_PATIENCE, "--noflush"], load).map_err(failed)?;
    if said.status.success() {
        let unload = format!("*mangle\n:{TRIAL_CHAIN} - [0:0]\n-X {TRIAL_CHAIN}\nCOMMIT\n");
        exec::run(program, &["-w", LOCK_PATIENCE, "--noflush"], unload).map_err(failed)?;
    }
    Ok(said)
}

fn unsupported(needs: &str, said: &Said) -> BackendError {
    let reason = said.stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    BackendError::Unsupported { needs: format!("{needs}: {reason}") }
}

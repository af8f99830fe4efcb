//! Picks the packet filter, and finds what earlier agents left in the others. With [`former`] the only place of the
//! agent that names one.
pub mod former;

use std::time::Duration;

use podwall_iptables::{Iptables, Variant};
use podwall_nftables::{Guard, Monitor, Nftables, Notice, Options};
use podwall_ruleset::{Backend, BackendError, ForeignChange};

use crate::telemetry::metrics::{BackendLabels, FilterName, Reason, VariantName};
use former::Elsewhere;

/// Which packet filter carries the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Choice {
    /// nftables where a trial transaction works, otherwise iptables
    #[default]
    Auto,
    /// nf_tables over netlink
    Nftables,
    /// iptables and ipset, in whichever variant the host uses
    Iptables,
}

impl Choice {
    /// As the command line spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// How the table is kept from other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum GuardChoice {
    /// Owned where the kernel can (Linux 6.9), watched otherwise
    #[default]
    Auto,
    /// The kernel refuses other writers
    Owned,
    /// Other writers are noticed and undone
    Watched,
}

/// An open packet filter, with what tells of other writers where the kernel does not refuse them.
pub struct Opened {
    /// The packet filter.
    pub backend: Box<dyn Backend>,
    /// Where to hear of other writers.
    pub ears: Ears,
    /// Which it is, and why.
    pub chosen: Chosen,
    /// What stands in other packet filters, from agents before this one. It goes once our own rules stand.
    pub elsewhere: Elsewhere,
}

/// Which packet filter was chosen, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The packet filter.
    pub filter: Filter,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub why: String,
    /// What is worth knowing although everything is enforced.
    pub told: Vec<String>,
    /// Why IPv6 passes unjudged on a host that speaks it.
    pub unjudged: Option<String>,
}

/// A packet filter as messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// nf_tables over netlink.
    Nftables,
    /// iptables and ipset.
    Iptables(Variant),
}

impl Filter {
    /// Where our rules are.
    pub const fn place(self) -> &'static str {
        match self {
            Self::Nftables => "table inet podwall",
            Self::Iptables(_) => "the mangle table's PW chains and the pw ipsets",
        }
    }

    /// What drop records need.
    const fn log_needs(self) -> &'static str {
        match self {
            Self::Nftables => {
                "drop records from rules (CONFIG_NETFILTER_NETLINK_LOG, CONFIG_NFT_LOG): modprobe nfnetlink_log"
            }
            Self::Iptables(_) => {
                "drop records from rules (CONFIG_NETFILTER_XT_TARGET_NFLOG, CONFIG_NETFILTER_XT_MATCH_HASHLIMIT): \
                 modprobe xt_NFLOG xt_hashlimit"
            }
        }
    }

    /// What the check of reverse paths needs.
    pub const fn reverse_path_needs(self) -> &'static str {
        match self {
            Self::Nftables => "load nft_fib_inet (CONFIG_NFT_FIB_INET)",
            Self::Iptables(_) => "load ipt_rpfilter and ip6t_rpfilter (CONFIG_IP_NF_MATCH_RPFILTER)",
        }
    }
}

impl Chosen {
    /// As metrics say it.
    pub const fn labels(&self) -> BackendLabels {
        let (backend, variant) = match self.filter {
            Filter::Nftables => (FilterName::Nftables, VariantName::Native),
            Filter::Iptables(Variant::Nft) => (FilterName::Iptables, VariantName::Nft),
            Filter::Iptables(Variant::Legacy) => (FilterName::Iptables, VariantName::Legacy),
        };
        BackendLabels { backend, variant, reason: self.reason }
    }
}

/// Opens an [`Alarm`], when one is needed: listening makes every commit of every program dearer.
#[derive(Debug, Clone, Copy)]
pub struct Ears {
    own: Option<u32>,
}

impl Ears {
    /// Listens from now on.
    pub fn open(self) -> Result<Alarm, BackendError> {
        Ok(Alarm(self.own.map(Monitor::open).transpose()?))
    }
}

/// How often the packet filter is asked for changes where nothing tells of other writers.
const ROUND: Duration = Duration::from_secs(2);

/// Tells of other programs that write into our rules.
pub struct Alarm(Option<Monitor>);

/// What an alarm heard: who wrote, or nobody in particular when it is time to look.
pub type Heard = Option<ForeignChange>;

/// Opens the packet filter, looks at what it can do, and at what earlier agents left elsewhere.
pub fn open(choice: Choice, guard: GuardChoice) -> Result<Opened, BackendError> {
    let (tried, reason, instead) = choose(choice, || native(guard), || fallback(guard))?;
    let mut told = tried.told;
    let why = match instead {
        Some(needs) => format!("nftables does not work here ({needs}); {}", tried.why),
        None => tried.why,
    };
    if reason == Reason::NftablesMissing {
        told.insert(0, format!("enforcing by {}: {why}", tried.backend.capabilities().backend));
    }
    let elsewhere = Elsewhere::beside(tried.filter)?;
    let chosen = Chosen { filter: tried.filter, reason, why, told, unjudged: tried.unjudged };
    Ok(Opened { backend: tried.backend, ears: tried.ears, chosen, elsewhere })
}

/// A packet filter that opened.
struct Tried {
    backend: Box<dyn Backend>,
    ears: Ears,
    filter: Filter,
    why: String,
    told: Vec<String>,
    unjudged: Option<String>,
}

/// Which of the two, in which order; answers also what the first one lacks where the second is taken for it.
pub fn choose<T>(
    choice: Choice,
    native: impl FnOnce() -> Result<T, BackendError>,
    fallback: impl FnOnce() -> Result<T, BackendError>,
) -> Result<(T, Reason, Option<String>), BackendError> {
    match choice {
        Choice::Nftables => native().map(|opened| (opened, Reason::Asked, None)),
        Choice::Iptables => fallback().map(|opened| (opened, Reason::Asked, None)),
        Choice::Auto => match native() {
            Ok(opened) => Ok((opened, Reason::NftablesWorks, None)),
            Err(BackendError::Unsupported { needs }) => match fallback() {
                Ok(opened) => Ok((opened, Reason::NftablesMissing, Some(needs))),
                Err(BackendError::Unsupported { needs: also }) => {
                    Err(BackendError::Unsupported { needs: format!("nftables: {needs}; iptables: {also}") })
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        },
    }
}

/// Nothing tells of other writers there: they are found when the rules are read again.
fn fallback(guard: GuardChoice) -> Result<Tried, BackendError> {
    if guard == GuardChoice::Owned {
        let needs = "rules the kernel keeps from others: only nftables has them".to_owned();
        return Err(BackendError::Unsupported { needs });
    }
    let backend = Iptables::open(podwall_iptables::Options::default())?;
    let (filter, why) = (Filter::Iptables(backend.variant()), backend.why().to_owned());
    let told = backend.warnings().to_vec();
    let unjudged = backend.unjudged().map(str::to_owned);
    with_log(Tried { backend: Box::new(backend), ears: Ears { own: None }, filter, why, told, unjudged })
}

fn native(guard: GuardChoice) -> Result<Tried, BackendError> {
    let guard = match guard {
        GuardChoice::Auto => Guard::Auto,
        GuardChoice::Owned => Guard::Owned,
        GuardChoice::Watched => Guard::Watched,
    };
    let backend = Nftables::open(Options { guard })?;
    let (ears, why) = (Ears { own: Some(backend.port()) }, "a trial transaction works".to_owned());
    let (filter, told) = (Filter::Nftables, Vec::new());
    with_log(Tried { backend: Box::new(backend), ears, filter, why, told, unjudged: None })
}

/// Without drop records the rules cannot be loaded.
fn with_log(tried: Tried) -> Result<Tried, BackendError> {
    if tried.backend.capabilities().log {
        return Ok(tried);
    }
    Err(BackendError::Unsupported { needs: tried.filter.log_needs().to_owned() })
}

impl Alarm {
    /// Waits for another program's write, at most this long.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Heard>, BackendError> {
        let Some(monitor) = &mut self.0 else {
            std::thread::sleep(ROUND.min(patience));
            return Ok(Some(None));
        };
        Ok(monitor.next(patience)?.map(|notice| match notice {
            Notice::Foreign(change) => Some(change),
            Notice::Lost => {
                tracing::warn!("notices of other programs' writes were lost");
                None
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Opens = Result<&'static str, &'static str>;

    fn chosen(choice: Choice, native: Opens, fallback: Opens) -> Result<(&'static str, Reason), String> {
        let unsupported = |needs: &str| BackendError::Unsupported { needs: needs.to_owned() };
        let opened = choose(choice, || native.map_err(unsupported), || fallback.map_err(unsupported));
        opened.map(|(opened, reason, _)| (opened, reason)).map_err(|error| error.to_string())
    }

    #[test]
    fn auto_takes_nftables_where_it_works_and_iptables_where_it_does_not() {
        let seen = [
            chosen(Choice::Auto, Ok("nft"), Ok("ipt")),
            chosen(Choice::Auto, Err("CONFIG_NF_TABLES"), Ok("ipt")),
            chosen(Choice::Nftables, Ok("nft"), Ok("ipt")),
            chosen(Choice::Iptables, Ok("nft"), Ok("ipt")),
        ];
        let expected = [
            Ok(("nft", Reason::NftablesWorks)),
            Ok(("ipt", Reason::NftablesMissing)),
            Ok(("nft", Reason::Asked)),
            Ok(("ipt", Reason::Asked)),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_was_asked_for_is_never_replaced_and_auto_names_what_both_lack() {
        let lacks = |words: &str| Err(format!("not supported here: {words}"));
        assert_eq!(chosen(Choice::Nftables, Err("a"), Ok("ipt")), lacks("a"));
        assert_eq!(chosen(Choice::Iptables, Ok("nft"), Err("b")), lacks("b"));
        assert_eq!(chosen(Choice::Auto, Err("a"), Err("b")), lacks("nftables: a; iptables: b"));
    }

    #[test]
    fn a_table_somebody_owns_is_no_reason_to_use_another_packet_filter() {
        let owned = || Err(BackendError::Owned { detail: "podwall (pid 7)".to_owned() });
        let opened = choose(Choice::Auto, owned, || Ok("ipt"));
        assert!(matches!(opened, Err(BackendError::Owned { .. })));
    }
}

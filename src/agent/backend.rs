//! Picks the packet filter. The only file of the agent that names one.
use std::time::Duration;

use podwall_iptables::Iptables;
use podwall_nftables::{Guard, Monitor, Nftables, Notice, Options};
use podwall_ruleset::{Backend, BackendError, ForeignChange};

/// Which packet filter carries the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Choice {
    /// The best this kernel has
    #[default]
    Auto,
    /// nf_tables over netlink
    Nftables,
    /// iptables and ipset, in whichever variant the host uses
    Iptables,
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

/// How often rules are read again where nothing tells of other writers: 30 ms of work at 1k chains.
const ROUND: Duration = Duration::from_secs(10);

/// Tells of other programs that write into our table.
pub struct Alarm(Option<Monitor>);

/// What an alarm heard: who wrote, or nobody in particular when it is time to look.
pub type Heard = Option<ForeignChange>;

/// Opens the packet filter and looks at what it can do.
pub fn open(choice: Choice, guard: GuardChoice) -> Result<Opened, BackendError> {
    match choice {
        Choice::Nftables => native(guard),
        Choice::Auto => match native(guard) {
            Err(BackendError::Unsupported { needs }) => {
                tracing::warn!("nftables does not work here ({needs}); using iptables");
                fallback()
            }
            opened => opened,
        },
        Choice::Iptables => fallback(),
    }
}

/// Nothing tells of other writers there: they are found when the rules are read again.
fn fallback() -> Result<Opened, BackendError> {
    let backend = Iptables::open(podwall_iptables::Options::default())?;
    for warning in backend.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(Opened { backend: Box::new(backend), ears: Ears { own: None } })
}

fn native(guard: GuardChoice) -> Result<Opened, BackendError> {
    let guard = match guard {
        GuardChoice::Auto => Guard::Auto,
        GuardChoice::Owned => Guard::Owned,
        GuardChoice::Watched => Guard::Watched,
    };
    let backend = Nftables::open(Options { guard })?;
    let ears = Ears { own: Some(backend.port()) };
    Ok(Opened { backend: Box::new(backend), ears })
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

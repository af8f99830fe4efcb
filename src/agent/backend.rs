//! Picks the packet filter. The only file of the agent that names one.
use std::time::Duration;

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
    own: u32,
}

impl Ears {
    /// Listens from now on.
    pub fn open(self) -> Result<Alarm, BackendError> {
        Monitor::open(self.own).map(Alarm)
    }
}

/// Tells of other programs that write into our table.
pub struct Alarm(Monitor);

/// What an alarm heard: who wrote, or nobody in particular when notices were lost.
pub type Heard = Option<ForeignChange>;

/// Opens the packet filter and looks at what it can do.
pub fn open(choice: Choice, guard: GuardChoice) -> Result<Opened, BackendError> {
    match choice {
        Choice::Auto | Choice::Nftables => {}
    }
    let guard = match guard {
        GuardChoice::Auto => Guard::Auto,
        GuardChoice::Owned => Guard::Owned,
        GuardChoice::Watched => Guard::Watched,
    };
    let backend = Nftables::open(Options { guard })?;
    let ears = Ears { own: backend.port() };
    Ok(Opened { backend: Box::new(backend), ears })
}

impl Alarm {
    /// Waits for another program's write, at most this long.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Heard>, BackendError> {
        Ok(self.0.next(patience)?.map(|notice| match notice {
            Notice::Foreign(change) => Some(change),
            Notice::Lost => None,
        }))
    }
}

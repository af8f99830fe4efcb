//! The form of kube-router through `ipset restore` and the two ways to run `iptables-restore`.
use std::time::{Duration, Instant};

use podwall_shapes::Turn;
use podwall_shapes::kube_router::{Sets, difference, whole};

use crate::contender::{Contender, Failed, Request};
use crate::programs::{feed, installed};

/// Which iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// `x_tables`: one blob a table.
    Legacy,
    /// The same words over nf_tables.
    Nft,
}

/// What goes through `iptables-restore`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restore {
    /// Only what differs.
    NoFlush,
    /// The whole table.
    Full,
}

/// iptables and ipset.
pub(crate) struct Iptables {
    variant: Variant,
    restore: Restore,
}

impl Iptables {
    pub(crate) fn open(variant: Variant, restore: Restore) -> Result<Self, Failed> {
        installed(variant.program())?;
        installed("ipset")?;
        Ok(Self { variant, restore })
    }

    fn run(&self, restore: Restore, text: &str) -> Result<(), Failed> {
        match restore {
            Restore::NoFlush => feed(self.variant.program(), &["-w", "5", "--noflush"], text),
            Restore::Full => feed(self.variant.program(), &["-w", "5"], text),
        }
    }
}

impl Variant {
    const fn program(self) -> &'static str {
        match self {
            Self::Legacy => "iptables-legacy-restore",
            Self::Nft => "iptables-nft-restore",
        }
    }
}

impl Contender for Iptables {
    fn carry_out(&mut self, request: Request, turn: &Turn) -> Result<Duration, Failed> {
        let begun = Instant::now();
        let sets = Sets::of(turn);
        let restore = match request {
            Request::Load | Request::Unload => Restore::Full,
            Request::Deed(..) => self.restore,
        };
        let rules = match restore {
            Restore::Full => whole(turn),
            Restore::NoFlush => difference(turn),
        };
        feed_if(&sets.before, |text| feed("ipset", &["restore"], text))?;
        feed_if(&rules, |text| self.run(restore, text))?;
        feed_if(&sets.after, |text| feed("ipset", &["restore"], text))?;
        Ok(begun.elapsed())
    }
}

fn feed_if(text: &str, to: impl FnOnce(&str) -> Result<(), Failed>) -> Result<(), Failed> {
    if text.is_empty() { Ok(()) } else { to(text) }
}

//! podwall's own ways: the stager and a backend, as the agent holds them.
use std::time::{Duration, Instant};

use podwall_iptables::{Choice, Iptables, Variant};
use podwall_nftables::{Nftables, Options};
use podwall_ruleset::stage::stages;
use podwall_ruleset::{Backend, Ruleset};
use podwall_shapes::Turn;

use crate::contender::{Contender, Failed, Request};

/// A backend of ours.
pub(crate) struct Ours<B> {
    pub(crate) kernel: B,
}

impl Ours<Nftables> {
    /// The native backend with its one socket.
    pub(crate) fn nftables() -> Result<Self, Failed> {
        Ok(Self { kernel: Nftables::open(Options::default())? })
    }
}

impl Ours<Iptables> {
    /// The fallback, on one variant of iptables.
    pub(crate) fn iptables(variant: Variant) -> Result<Self, Failed> {
        Ok(Self { kernel: Iptables::open(podwall_iptables::Options { variant: Choice::Forced(variant) })? })
    }
}

impl<B: Backend> Ours<B> {
    /// Commits every stage. The 50 ms an agent waits before it reaps are not waited: nobody waits for them.
    pub(crate) fn commit(&mut self, turn: &Turn) -> Result<(), Failed> {
        for stage in stages(&turn.before, &turn.delta) {
            self.kernel.commit(&stage.transaction)?;
        }
        Ok(())
    }
}

impl<B: Backend> Contender for Ours<B> {
    fn carry_out(&mut self, _: Request, turn: &Turn) -> Result<Duration, Failed> {
        let begun = Instant::now();
        self.commit(turn)?;
        Ok(begun.elapsed())
    }

    fn verify(&mut self, expected: &Ruleset) -> Result<(), Failed> {
        let observed = self.kernel.observe()?;
        if observed.alien.is_empty() && observed.or_empty() == *expected {
            Ok(())
        } else {
            Err("the kernel does not hold what was committed".into())
        }
    }
}

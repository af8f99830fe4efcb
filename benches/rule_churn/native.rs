//! podwall's own way: the stager and the native backend.
use std::time::{Duration, Instant};

use podwall_nftables::{Nftables, Options};
use podwall_ruleset::stage::stages;
use podwall_ruleset::{Backend as _, Ruleset};
use podwall_shapes::Turn;

use crate::contender::{Contender, Failed, Request};

/// The native backend with its socket, as the agent holds it.
pub(crate) struct Native {
    pub(crate) kernel: Nftables,
}

impl Native {
    pub(crate) fn open() -> Result<Self, Failed> {
        Ok(Self { kernel: Nftables::open(Options::default())? })
    }

    /// Commits every stage. The 50 ms an agent waits before it reaps are not waited: nobody waits for them.
    pub(crate) fn commit(&mut self, turn: &Turn) -> Result<(), Failed> {
        for stage in stages(&turn.before, &turn.delta) {
            self.kernel.commit(&stage.transaction)?;
        }
        Ok(())
    }
}

impl Contender for Native {
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

//! Looking at what stands: cheaply every other second, since nothing tells of other writers, and putting jumps back
//! to the front.
use std::time::{Duration, Instant};

use podwall_ruleset::BackendError;

use super::{Iptables, LOCK_PATIENCE, complaint, unread};
use crate::exec;
use crate::image::Image;
use crate::ipset;
use crate::names::TRIAL_SET;
use crate::probe::{Program, failed};
use crate::restore::{self, Saved, TABLE};

/// One part in so many of the time goes into looking: 20 ms at 1k chains are a look every second.
const SHARE: u32 = 50;
/// But nobody's hand stays unseen for longer, however much there is to look at: 400 ms at 10k chains.
const LONGEST: Duration = Duration::from_secs(10);

/// When the next look is due.
#[derive(Debug, Default)]
pub(crate) struct Rest(Option<Instant>);

impl Rest {
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_none_or(|until| Instant::now() >= until)
    }

    pub(crate) fn after(took: Duration) -> Self {
        Self(Some(Instant::now() + took.saturating_mul(SHARE).min(LONGEST)))
    }
}

impl Iptables {
    /// What the kernel holds under our names.
    pub(super) fn saved(&self) -> Result<Saved, BackendError> {
        let mut saved = Saved::default();
        for family in &self.families {
            let program = self.variant.program(*family, Program::Save);
            let said = exec::run(program, &["-c", "-t", TABLE], String::new()).map_err(failed)?;
            // `iptables-nft-save` says so on its way to success.
            let foreign = said.stdout.lines().find(|line| line.contains("is incompatible, use 'nft' tool"));
            if foreign.is_some() || !said.status.success() {
                return Err(unread(program, foreign.unwrap_or(&said.stderr)));
            }
            restore::read(*family, &said.stdout, &mut saved);
        }
        Ok(saved)
    }

    /// The same with sets.
    pub(super) fn saved_with_sets(&self) -> Result<Saved, BackendError> {
        let mut saved = self.saved()?;
        let said = exec::run("ipset", &["save"], String::new()).map_err(failed)?;
        if !said.status.success() {
            return Err(unread("ipset", &said.stderr));
        }
        ipset::read(&said.stdout, &mut saved.image)?;
        // Whoever opens this backend tries things with it, a second process too.
        saved.image.sets.remove(TRIAL_SET);
        Ok(saved)
    }

    /// Is anything other than what we left? Compares texts; nothing is folded or lowered.
    pub(super) fn look(&mut self) -> Result<bool, BackendError> {
        let Some(standing) = &self.standing else { return Ok(true) };
        if !self.rest.is_over() {
            return Ok(false);
        }
        let began = Instant::now();
        let saved = self.saved_with_sets()?;
        let differs = !saved.astray.is_empty() || !same(&saved.image, &standing.image);
        self.rest = Rest::after(began.elapsed());
        Ok(differs)
    }

    /// Takes jumps that stand twice, or behind rules that may let packets go by, and puts one of each first.
    pub(super) fn straighten(&self, saved: &restore::Astray) -> Result<(), BackendError> {
        for family in &self.families {
            let mut text = format!("*{TABLE}\n");
            for ((_, jump), times) in saved.iter().filter(|((of, _), _)| of == family) {
                text += &format!("-D {} {}\n", jump.hook, jump.line).repeat(*times);
                text += &format!("-I {} 1 {}\n", jump.hook, jump.line);
            }
            if text.lines().count() == 1 {
                continue;
            }
            let program = self.variant.program(*family, Program::Restore);
            let said =
                exec::run(program, &["-w", LOCK_PATIENCE, "--noflush"], text + "COMMIT\n").map_err(failed)?;
            if !said.status.success() {
                return Err(complaint(&said, &[], &[]));
            }
        }
        Ok(())
    }
}

fn same(seen: &Image, left: &Image) -> bool {
    seen.chains == left.chains && seen.jumps == left.jumps && seen.sets == left.sets
}

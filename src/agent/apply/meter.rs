//! When the kernel is asked how often elements of bans were met.
//!
//! Reading them takes the longer the more there are, and nothing is committed meanwhile: so a hundredth of the time at
//! most, and never where nobody is banned.
use std::time::{Duration, Instant};

use podwall_ruleset::{Hit, Shape};

use super::kernel::Kernel;

/// Nobody looks at them more often: reports wait a minute when nothing presses.
const PERIOD: Duration = Duration::from_secs(10);
/// How many times as long as it took to read them until they are read again.
const SPARING: u32 = 100;

/// The clock of it.
#[derive(Debug)]
pub(super) struct Meter {
    /// When to look next.
    due: Instant,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now + PERIOD }
    }

    /// Reads them if it is time; `None`: it is not, there is nothing to read, or it cannot be read now.
    pub(super) fn read(&mut self, now: Instant, kernel: &mut Kernel) -> Option<Vec<Hit>> {
        if now < self.due {
            return None;
        }
        self.due = now + PERIOD;
        let counted = |shape| matches!(shape, Shape::Banned(_) | Shape::BannedRanges(_));
        if !kernel.standing().sets.values().any(|set| counted(set.spec.shape)) {
            return None;
        }
        let hits = kernel.hits().inspect_err(|error| {
            tracing::debug!(error = error as &dyn std::error::Error, "reading hits of bans");
        });
        self.due = now + PERIOD.max(now.elapsed() * SPARING);
        hits.ok()
    }
}

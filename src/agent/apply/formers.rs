//! Switching packet filters on a live node: what an earlier agent left elsewhere stands until our own rules do.
//!
//! While both stand a packet needs the yes of both, so there is no moment without enforcement. Established flows that
//! the earlier rules judged count as judged, and its shut addresses stay shut: the switch is no first adoption.
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use podwall_ruleset::BackendError;

use super::kernel::LAST_PACKETS;
use super::recheck::judged_addresses;
use super::{Standing, standing};
use crate::agent::backend::former::{Elsewhere, Former, Look};
use crate::agent::work::Removed;
use crate::telemetry::health::Concern;
use crate::telemetry::server::Telemetry;

/// Between two attempts to take it out.
const PAUSE: Duration = Duration::from_secs(5);
/// A program that an agent had started when it was killed goes on, and may wait 5 s for the lock of iptables before it
/// writes: it is looked once more then.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// What is to go, and when.
pub(super) struct Formers {
    list: Vec<Box<dyn Former>>,
    due: Option<Instant>,
    /// Until it was done.
    look: Option<Look>,
    look_at: Option<Instant>,
    telemetry: Telemetry,
}

impl Formers {
    pub(super) fn new(elsewhere: Elsewhere, telemetry: Telemetry) -> Self {
        let Elsewhere { found: list, look } = elsewhere;
        Self { list, due: None, look: Some(look), look_at: None, telemetry }
    }

    /// The most that any of them had come to.
    pub(super) fn standing(&self) -> Standing {
        let rulesets = self.list.iter().flat_map(|former| former.rulesets());
        rulesets.map(|ruleset| standing(Some(&ruleset))).max().unwrap_or(Standing::Nothing)
    }

    /// Local addresses that any of them judged.
    pub(super) fn judged(&self) -> BTreeSet<IpAddr> {
        let rulesets = self.list.iter().flat_map(|former| former.rulesets());
        rulesets.flat_map(|ruleset| judged_addresses(&ruleset)).collect()
    }

    /// Our own rules stand: the others may go when the last packet that met only them has left, and before anything
    /// of ours is reaped.
    pub(super) fn may_go(&mut self, now: Instant, reap: Option<Instant>) {
        if !self.list.is_empty() {
            self.due.get_or_insert(reap.unwrap_or(now + LAST_PACKETS));
        }
        if self.look.is_some() {
            self.look_at.get_or_insert(now + LAST_WRITES);
        }
    }

    /// When something is to be done.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.due, self.look_at].into_iter().flatten().min()
    }

    /// Takes out what is due; answers whether anything went.
    pub(super) fn go(&mut self, now: Instant) -> bool {
        if self.look_at.is_some_and(|at| now >= at)
            && let Some(mut look) = self.look.take()
        {
            self.look_at = None;
            self.list.extend(look());
            self.due = (!self.list.is_empty()).then_some(now);
        }
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        match self.remove() {
            Ok(_) => {
                self.due = None;
                self.telemetry.health.clear(Concern::Remains);
                true
            }
            Err(error) => {
                self.due = Some(now + PAUSE);
                let place = self.list.first().map_or("another packet filter", |former| former.place());
                let words = format!(
                    "rules of an earlier podwall still stand in {place}, and drop what they did: {error}"
                );
                self.telemetry.health.raise(Concern::Remains, words);
                false
            }
        }
    }

    /// Takes everything out at once; answers what it was.
    pub(super) fn remove(&mut self) -> Result<Removed, BackendError> {
        let mut removed = Removed::default();
        while let Some(former) = self.list.first_mut() {
            former.remove()?;
            removed += former.rulesets().iter().map(Removed::all_of).sum();
            tracing::info!(place = former.place(), "took out the rules of an earlier podwall: ours stand");
            self.list.remove(0);
        }
        Ok(removed)
    }
}

//! Switching packet filters on a live node: what an earlier agent left elsewhere stands until our own rules do.
//!
//! While both stand a packet needs the yes of both, so there is no moment without enforcement. Established flows that
//! the earlier rules judged count as judged, and its shut addresses stay shut: the switch is no first adoption. What
//! pods learned from DNS they know still, for nobody tells them again before they ask.
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use podwall_ruleset::BackendError;

use super::kernel::LAST_PACKETS;
use super::lessons::{Learned, learned};
use super::recheck::judged_addresses;
use super::{Standing, standing};
use crate::agent::backend::former::{Elsewhere, Former, Found, Look};
use crate::agent::work::Removed;
use crate::telemetry::health::Concern;
use crate::telemetry::server::Telemetry;

/// Between two attempts to take it out.
const PAUSE: Duration = Duration::from_secs(5);
/// A program that an agent had started when it was killed goes on, and may wait 5 s for the lock of iptables before it
/// writes: it is looked once more then.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// Between two looks where one could not see everything.
const BLINDNESS: Duration = Duration::from_secs(60);

/// What is to go, and when.
pub(super) struct Formers {
    list: Vec<Box<dyn Former>>,
    blind: Vec<String>,
    due: Option<Instant>,
    look: Look,
    next_look: NextLook,
    telemetry: Telemetry,
}

/// When packet filters are looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextLook {
    /// Once our own rules stand.
    Later,
    /// At this time.
    At(Instant),
    /// Everything was seen.
    Done,
}

impl Formers {
    pub(super) fn new(elsewhere: Elsewhere, telemetry: Telemetry) -> Self {
        let Elsewhere { found: Found { formers: list, blind }, look } = elsewhere;
        let formers = Self { list, blind, due: None, look, next_look: NextLook::Later, telemetry };
        formers.tell(None);
        formers
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

    /// What pods learned, as any of them holds it.
    pub(super) fn learned(&self) -> Vec<Learned> {
        let rulesets = self.list.iter().flat_map(|former| former.rulesets());
        rulesets.flat_map(|ruleset| learned(&ruleset)).collect()
    }

    /// Our own rules stand: the others may go when the last packet that met only them has left, and before anything
    /// of ours is reaped.
    pub(super) fn may_go(&mut self, now: Instant, reap: Option<Instant>) {
        if !self.list.is_empty() {
            self.due.get_or_insert(reap.unwrap_or(now + LAST_PACKETS));
        }
        if self.next_look == NextLook::Later {
            self.next_look = NextLook::At(now + LAST_WRITES);
        }
    }

    /// When something is to be done.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.next_look {
            NextLook::At(at) => Some(self.due.map_or(at, |due| due.min(at))),
            NextLook::Later | NextLook::Done => self.due,
        }
    }

    /// Looks again and takes out what is due; answers whether anything went.
    pub(super) fn go(&mut self, now: Instant) -> bool {
        if matches!(self.next_look, NextLook::At(at) if now >= at) {
            self.look_again(now);
        }
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        let removed = self.remove();
        self.due = removed.is_err().then_some(now + PAUSE);
        self.tell(removed.as_ref().err());
        removed.is_ok()
    }

    fn look_again(&mut self, now: Instant) {
        let Found { formers, blind } = (self.look)();
        self.next_look = if blind.is_empty() { NextLook::Done } else { NextLook::At(now + BLINDNESS) };
        self.blind = blind;
        if !formers.is_empty() {
            self.list.extend(formers);
            self.due = Some(now);
        }
        self.tell(None);
    }

    /// Rules that stand and cannot be taken out, or may stand and cannot be seen, drop what they did.
    fn tell(&self, failed: Option<&BackendError>) {
        let failed = failed.map(|error| {
            let place = self.list.first().map_or("another packet filter", |former| former.place());
            format!("rules of an earlier podwall still stand in {place}, and drop what they did: {error}")
        });
        let blind =
            self.blind.iter().map(|words| format!("looking for rules of an earlier podwall: {words}"));
        let words: Vec<String> = failed.into_iter().chain(blind).collect();
        self.telemetry.health.set(Concern::Remains, (!words.is_empty()).then(|| words.join("; ")));
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

//! What stands is read back: at the start, now and then, and when it may not be what was committed.
//!
//! Owns what earlier agents left is told of, and that whatever differs is put right and its flows are judged again.
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use podwall_engine::compile::names;
use podwall_engine::recheck::all_barred;
use podwall_ruleset::{Delta, ForeignChange, Match, Ruleset, stages};

use super::kernel::Failure;
use super::lessons::learned;
use super::{AUDIT, Applier, OlderFlows, Outcome, Standing, State, recheck};
use crate::telemetry::metrics::RepairCause;

impl Applier {
    /// Tells what stood before us. The planner writes nothing before it knows.
    pub(super) fn look_first(&mut self) {
        match self.kernel.observe() {
            Ok(observed) => {
                let earlier = self.adoption.known().max(self.formers.standing());
                let standing = standing(observed.ruleset.as_ref()).max(earlier);
                self.older_flows = match standing {
                    Standing::Nothing => OlderFlows::Unjudged,
                    Standing::Lenient | Standing::Strict => OlderFlows::Judged,
                };
                tracing::info!(?standing, alien = ?observed.alien, "looked at the rules that stand");
                let touched = !observed.alien.is_empty();
                let cause = if touched { RepairCause::Foreign } else { RepairCause::Start };
                self.state = State::Lost { cause, ask: None };
                let judged = recheck::judged_addresses(self.kernel.standing());
                self.tell(Outcome::Judged(judged.into_iter().chain(self.formers.judged()).collect()));
                let mut learned = learned(self.kernel.standing());
                learned.extend(self.formers.learned());
                if !learned.is_empty() {
                    self.tell(Outcome::Learned(learned));
                }
                self.tell(Outcome::Standing(standing));
            }
            Err(error) => {
                let pause = self.pause();
                self.state = State::Blind(Instant::now() + pause);
                self.complain(&error.to_string());
            }
        }
    }

    /// Answers whether packets may have been let through that should not.
    pub(super) fn make_true(&mut self, ruleset: &Ruleset, cause: RepairCause) -> Result<bool, Failure> {
        let observed = self.kernel.observe().map_err(Failure::unsent)?;
        let differs = !observed.alien.is_empty();
        let delta = Delta::between(self.kernel.standing(), ruleset);
        if delta.is_empty() && !differs {
            // Somebody may have put back what he took (a table that slept is awake again).
            return Ok(matches!(cause, RepairCause::Foreign | RepairCause::Audit));
        }
        self.telemetry.metrics.repairs.get_or_create(&cause.into()).inc();
        tracing::info!(
            cause = cause.as_str(),
            chains = delta.chains.len(),
            sets = delta.sets.len(),
            "putting right what differs"
        );
        self.kernel.commit_all(&stages(self.kernel.standing(), &delta))?;
        if differs {
            self.kernel.sweep()?;
        }
        Ok(true)
    }

    pub(super) fn foreign(&mut self, change: Option<&ForeignChange>) {
        if let Some(change) = change {
            self.telemetry.metrics.foreign_changes.inc();
            tracing::error!(writer = change.writer, "{change} wrote into {}", self.kernel.place());
        }
        // Nobody in particular: it is time to look, or notices were lost.
        if self.state != State::Following || (change.is_none() && !self.kernel.looks_changed()) {
            return;
        }
        self.compare(RepairCause::Foreign);
        if change.is_none() && matches!(self.state, State::Lost { cause: RepairCause::Foreign, .. }) {
            self.telemetry.metrics.foreign_changes.inc();
        }
    }

    pub(super) fn audit(&mut self) {
        self.audit = Instant::now() + AUDIT;
        self.compare(RepairCause::Audit);
    }

    /// Reads the table back and repairs it if it is not what it should be.
    fn compare(&mut self, cause: RepairCause) {
        match self.kernel.is_as_committed() {
            Ok(true) => {}
            Ok(false) => {
                tracing::error!(
                    cause = cause.as_str(),
                    "the rules are not what podwall made them; repairing"
                );
                self.lose(cause);
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "reading the table back");
                self.lose(RepairCause::Failure);
            }
        }
    }

    /// What somebody else's table let through has flows by now, and so has what changed while no agent ran.
    pub(super) fn judge_after_repair(&mut self, changed: bool) {
        let judged = || recheck::judged_addresses(self.kernel.standing());
        match std::mem::replace(&mut self.older_flows, OlderFlows::Settled) {
            OlderFlows::Unjudged => self.recheck.forgive(),
            OlderFlows::Judged | OlderFlows::Settled if changed => {
                let barred = all_barred(self.kernel.standing());
                self.recheck.owe(&judged(), &BTreeSet::<IpAddr>::new(), barred);
            }
            OlderFlows::Judged => self.recheck.review(judged()),
            OlderFlows::Settled => {}
        }
        self.settle_flows();
    }
}

/// Is there a table of ours, and does it drop mid-stream packets of unknown flows already?
pub(super) fn standing(ruleset: Option<&Ruleset>) -> Standing {
    let Some(ruleset) = ruleset else { return Standing::Nothing };
    let strays = ruleset.chains.get(&names::strays());
    let strict = strays
        .is_some_and(|chain| chain.rules.iter().any(|rule| rule.matches.contains(&Match::TcpNotOpening)));
    if strict { Standing::Strict } else { Standing::Lenient }
}

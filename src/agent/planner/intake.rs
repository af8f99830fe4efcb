//! What comes in: objects, sources, the host, lessons, and records of what was dropped.
use std::time::Instant as Moment;

use podwall_engine::Change;
use podwall_engine::change::Freshness;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::remarks::Revisit;
use super::{GULP, Phase, Planner, kinds};
use crate::agent::input::{Feed, Input, Stamped};
use crate::drops::memo::Taken;
use crate::drops::tenants::Beginning;
use crate::telemetry::metrics::RecordResult;

impl Planner {
    /// Takes in everything that is there already: one burst, one commit.
    pub(super) fn gulp(&mut self, first: Stamped, inputs: &mut mpsc::Receiver<Stamped>) {
        self.take_in(first);
        for _ in 0..GULP {
            let Ok(next) = inputs.try_recv() else { return };
            self.take_in(next);
        }
    }

    fn take_in(&mut self, stamped: Stamped) {
        let of_names = matches!(stamped.input, Input::Teach(..) | Input::BookRead(_));
        if self.teaching.holds() && !of_names {
            self.later.push(stamped);
        } else {
            self.understand(stamped);
        }
    }

    /// Takes in what waited for rules to be handed on, if they were; was there anything?
    pub(super) fn catch_up(&mut self) -> bool {
        if self.teaching.holds() || self.later.is_empty() {
            return false;
        }
        std::mem::take(&mut self.later).into_iter().for_each(|stamped| self.understand(stamped));
        true
    }

    fn understand(&mut self, Stamped { input, at }: Stamped) {
        match input {
            Input::Object { change, warnings } => {
                self.reports.object(&change, warnings);
                self.locals.object(&change);
                self.change(change, at);
            }
            Input::Unusable(warning) => self.reports.unusable(&warning),
            Input::Reached { kind, version, objects, news } => {
                self.telling.marks.heard(kind, version, objects, news)
            }
            Input::Complete(feed) => self.gathering.complete(feed),
            Input::Watch(feed, away) => self.watch(feed, away, at),
            Input::Host(view) => {
                self.locals.view(view);
                self.gathering.complete(Feed::Host);
                self.oldest.get_or_insert(at);
            }
            // Nobody holds it: whoever waits is told so.
            Input::Teach(..) if self.phase == Phase::Ended => {}
            Input::Teach(lessons, pupil) if self.phase == Phase::Gathering => {
                self.teaching.keep(lessons, pupil, Instant::now());
            }
            Input::Teach(lessons, pupil) => self.teach(lessons, pupil, at),
            Input::BookRead(revision) => self.teaching.read(revision),
        }
    }

    pub(super) fn change(&mut self, change: Change, at: Moment) {
        self.telemetry.metrics.changes.get_or_create(&kinds::kind(&change).into()).inc();
        self.oldest.get_or_insert(at);
        self.teaching.note(&change);
        let beginning = if self.gathering.is_over() { Beginning::Over } else { Beginning::Reading };
        self.drops.note(&change, &self.engine, beginning);
        let revisit = match self.phase {
            // All are looked at once everything was read.
            Phase::Gathering => Revisit::Nothing,
            Phase::Adopting | Phase::Following | Phase::Ended => Revisit::after(&change, &self.engine),
        };
        self.engine.apply(change);
        revisit.carry_out(&self.engine, &mut self.reports);
    }

    /// Tells what was dropped, and what waited for its pod to be told of.
    pub(super) fn dropped(&mut self, taken: Option<Taken>) {
        let now = Instant::now();
        if let Some(taken) = taken {
            self.drops.take(taken, &self.engine, now);
        }
        self.drops.settle(&self.engine, now);
        let lost = std::mem::take(&mut self.drops.lost);
        self.telemetry.metrics.drop_records.get_or_create(&RecordResult::LostQueue.into()).inc_by(lost);
    }

    fn watch(&mut self, feed: Feed, away: Option<String>, at: Moment) {
        match away {
            Some(reason) => drop(self.stale.insert(feed, reason)),
            None => drop(self.stale.remove(&feed)),
        }
        let freshness = if !self.stale.keys().any(|feed| feed.tells_of_pods()) {
            Freshness::Current
        } else {
            Freshness::Stale
        };
        if self.engine.cluster().freshness() != freshness {
            self.change(Change::Watch(freshness), at);
        }
    }
}

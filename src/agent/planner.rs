//! The one owner of the engine: changes in, work for the kernel out.
//!
//! Owns when something is committed. Nothing before every source is complete; a single change at once; a burst
//! gathered, at most ten times a second; and one piece of work at a time, so that a slow kernel makes bigger pieces
//! and not a longer queue.
mod clock;
mod concerns;
mod gathering;
mod hits;
mod intake;
mod kinds;
mod outcomes;
mod relief;
mod remarks;
mod teaching;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant as Moment};

use podwall_engine::{Change, Engine, Update};
use podwall_ruleset::ChainName;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::domains::Classroom;
use super::host::locals::Locals;
use super::input::{Feed, Stamped};
use super::node_report::Sheet;
use super::pace::Pace;
use super::reports::Reports;
use super::work::{Outcome, Wanted, Work, Works};
use crate::drops::memo::{self as drops, Onward, Taken};
use crate::telemetry::health::Worker;
use crate::telemetry::server::Telemetry;
use clock::Clock;
use gathering::Gathering;
use hits::Hits;
use remarks::Revisit;
use teaching::Teaching;
use telling::Telling;

/// How often the planner turns even if nothing happens.
const TICK: Duration = Duration::from_secs(5);
/// How often chains the kernel refused are tried again: the reason may have been a lack of memory.
const RETRY_REFUSED: Duration = Duration::from_secs(300);
/// Messages taken in before the kernel, and everybody else on this thread, gets its turn.
const GULP: usize = 1024;

/// What the planner is given to start with.
#[derive(Debug)]
pub struct Setup {
    /// The engine, knowing nothing yet.
    pub engine: Engine,
    /// Every source that must be complete before the first write.
    pub feeds: BTreeSet<Feed>,
    /// How long mid-stream packets of unknown flows pass after the first adoption of the node.
    pub grace: Duration,
    /// Where warnings go.
    pub reports: Reports,
    /// The apply thread.
    pub works: Works,
    /// Where it is told what stands.
    pub sheet: Sheet,
    /// The DNS proxy.
    pub classroom: Classroom,
    /// Where it is told what was dropped.
    pub drops: Onward,
    /// Metrics and health.
    pub telemetry: Telemetry,
}

/// The planner.
#[derive(Debug)]
pub struct Planner {
    engine: Engine,
    locals: Locals,
    reports: Reports,
    telemetry: Telemetry,
    works: Works,
    telling: Telling,
    teaching: Teaching,
    /// What came while rules waited for their book to be read.
    later: Vec<Stamped>,
    hits: Hits,
    gathering: Gathering,
    phase: Phase,
    pace: Pace,
    grace: Duration,
    grace_ends: Option<Instant>,
    stale: BTreeMap<Feed, String>,
    /// Chains the kernel refused.
    refused: BTreeMap<ChainName, String>,
    /// Chains with more sets than the node bears.
    excess: BTreeMap<ChainName, String>,
    /// Addresses that were judged when the agent started.
    judged_before: BTreeSet<IpAddr>,
    retry_refused: Option<Instant>,
    /// When the oldest change not yet handed on was received.
    oldest: Option<Moment>,
    busy: bool,
    last_tick: Option<Instant>,
    clock: Clock,
    drops: drops::Desk,
}

/// How far along the planner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Sources are being read; the kernel is left as it was found.
    Gathering,
    /// The kernel must be given a whole ruleset next.
    Adopting,
    /// Deltas follow.
    Following,
    /// The rules were taken away on request.
    Ended,
}

impl Planner {
    /// A planner that waits for its sources.
    pub fn new(setup: Setup) -> Self {
        let locals = Locals::new(setup.engine.node().clone());
        Self {
            engine: setup.engine,
            locals,
            reports: setup.reports,
            telemetry: setup.telemetry,
            works: setup.works,
            telling: Telling::new(setup.sheet),
            teaching: Teaching::new(setup.classroom),
            later: Vec::new(),
            hits: Hits::default(),
            gathering: Gathering::new(setup.feeds),
            phase: Phase::Gathering,
            pace: Pace::default(),
            grace: setup.grace,
            grace_ends: None,
            stale: BTreeMap::new(),
            refused: BTreeMap::new(),
            excess: BTreeMap::new(),
            judged_before: BTreeSet::new(),
            retry_refused: None,
            oldest: None,
            busy: false,
            last_tick: None,
            clock: Clock,
            drops: drops::Desk::new(setup.drops),
        }
    }

    /// Turns until no source is left or the apply thread is gone.
    pub async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Stamped>,
        mut outcomes: mpsc::UnboundedReceiver<Outcome>,
        mut taken: mpsc::Receiver<Taken>,
    ) {
        loop {
            tokio::select! {
                biased;
                outcome = outcomes.recv() => match outcome {
                    Some(outcome) => self.outcome(outcome),
                    None => return,
                },
                input = inputs.recv() => match input {
                    Some(input) => self.gulp(input, &mut inputs),
                    None => return,
                },
                // Nothing follows from it for the rules.
                Some(taken) = taken.recv() => {
                    self.dropped(Some(taken));
                    continue;
                }
                () = tokio::time::sleep_until(self.wake()) => {}
            }
            self.dropped(None);
            self.turn();
            if self.catch_up() {
                self.turn();
            }
        }
    }

    /// Everything that follows from what was taken in.
    fn turn(&mut self) {
        let now = Instant::now();
        self.telemetry.health.beat(Worker::Planner);
        self.timers(now);
        let held = self.engine.cluster().held();
        for change in self.locals.settle(held, now) {
            self.change(change, Moment::now());
        }
        // The rules of a node that is not ours would open our own: whatever stands is better.
        if self.phase == Phase::Gathering && self.gathering.is_over() && self.has_a_node() {
            self.phase = Phase::Adopting;
            // An isolated pod that was deleted by force may still run; what stands is all that tells of it.
            for address in std::mem::take(&mut self.judged_before) {
                self.change(Change::AddressHeld(address), Moment::now());
            }
            for lesson in self.teaching.adopt() {
                self.change(Change::Learned(lesson), Moment::now());
            }
            for (lessons, pupil) in self.teaching.early(now) {
                self.teach(lessons, pupil, Moment::now());
            }
            Revisit::All.carry_out(&self.engine, &mut self.reports);
            // Reading everything for the first time is not lag.
            self.oldest = None;
        }
        if self.gathering.is_over() {
            self.reports.tell_cluster(&self.engine);
        }
        self.concerns();
        self.push(now);
        if self.phase == Phase::Following && !self.busy && self.oldest.is_none() {
            self.telling.marks.idle();
        }
        self.telling.tell(self.phase, &self.reports);
        if self.last_tick.is_none_or(|last| now >= last + TICK) {
            self.last_tick = Some(now);
            self.count();
        }
    }

    fn timers(&mut self, now: Instant) {
        if self.grace_ends.is_some_and(|end| now >= end) {
            self.grace_ends = None;
            tracing::info!(
                "the grace period is over: mid-stream packets of unknown flows are dropped from now on"
            );
            self.change(Change::GraceOver, Moment::now());
        }
        if self.retry_refused.is_some_and(|at| now >= at) {
            self.excess.clear();
            self.refuse(BTreeMap::new());
            // What the kernel takes by now is told when it has answered, and a whole is always answered.
            self.phase = self.phase.lost();
            self.telling.marks.lost();
        }
        // Bans of the past are told with the others, and end before anything is written. What ends does so in a commit
        // of the usual pace: pods that wait for an answer do not wait for that too.
        let clock = self.clock.now();
        if self.pace.allows(now) && self.engine.next_end().is_some_and(|end| end <= clock) {
            self.change(Change::Clock(clock), Moment::now());
        }
    }

    /// Hands on what changed, if the kernel is free and it is time.
    fn push(&mut self, now: Instant) {
        let urgent = self.phase == Phase::Following && self.teaching.is_urgent();
        if self.busy || !(urgent || self.pace.allows(now)) {
            return;
        }
        if matches!(self.phase, Phase::Adopting | Phase::Following) {
            self.relieve();
            // A pod is judged by its names no sooner than its queries are seen.
            if self.teaching.publish(&self.engine, now) {
                return;
            }
        }
        let work = match self.phase {
            Phase::Gathering | Phase::Ended => return,
            Phase::Adopting => {
                let Update { delta: _, tightened, released, barred } = self.engine.take();
                let ruleset = self.engine.ruleset().clone();
                self.last_tick = None;
                let (since, mut pupils) = (self.oldest.take(), self.teaching.pupils());
                self.teaching.hand_on(&mut pupils);
                Work::Wanted(Wanted { ruleset, tightened, released, barred, since, pupils })
            }
            Phase::Following => {
                // Nothing was changed, or nothing that this node's rules depend on.
                let Some(since) = self.oldest.take() else { return };
                let (update, mut pupils) = (self.engine.take(), self.teaching.pupils());
                if update == Update::default() && pupils.is_empty() {
                    return;
                }
                self.teaching.hand_on(&mut pupils);
                Work::Update { update, since, pupils }
            }
        };
        self.phase = Phase::Following;
        self.busy = true;
        self.telling.marks.handed();
        if self.pace.allows(now) {
            self.pace.spend(now);
        }
        if self.works.send(work).is_err() {
            tracing::debug!("the apply thread is gone");
        }
    }

    /// Ours is known, or nobody's is: a folder may leave nodes out altogether.
    fn has_a_node(&self) -> bool {
        let cluster = self.engine.cluster();
        let left_out = self.gathering.reads_folder() && cluster.nodes().next().is_none();
        left_out || cluster.node(self.engine.node()).is_some()
    }

    fn count(&self) {
        let (cluster, metrics) = (self.engine.cluster(), &self.telemetry.metrics);
        for (kind, count) in kinds::counts(cluster) {
            metrics.objects.get_or_create(&kind.into()).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.telling.sheet.nodes(cluster.nodes().count());
        metrics.local_pods.set(i64::try_from(self.locals.count()).unwrap_or(i64::MAX));
        if let Some((link, sysctl)) = self.locals.bypass() {
            tracing::error!("NOT ENFORCED between pods on bridge {link}: {sysctl} is 0");
        }
    }

    fn wake(&self) -> Instant {
        let now = Instant::now();
        let waits_for_pace = !self.busy && self.has_work() && self.teaching.due().is_none();
        let pace = self.pace.next().filter(|_| waits_for_pace);
        let may_end = self.pace.next().unwrap_or(now);
        let ends = self.engine.next_end().map(|end| may_end.max(now + self.clock.until(end)));
        let may_read = !self.busy && matches!(self.phase, Phase::Adopting | Phase::Following);
        let read = self.teaching.due().filter(|_| may_read);
        let told = self.drops.deadline();
        let places = [self.locals.deadline(), self.grace_ends, self.retry_refused];
        let others = [pace, read, told, ends].into_iter().chain(places);
        others.flatten().fold(now + TICK, Instant::min)
    }

    const fn has_work(&self) -> bool {
        match self.phase {
            Phase::Gathering | Phase::Ended => false,
            Phase::Adopting => true,
            Phase::Following => self.oldest.is_some(),
        }
    }
}

impl Phase {
    /// What stands in the kernel is no longer what deltas follow from.
    const fn lost(self) -> Self {
        match self {
            Self::Gathering => Self::Gathering,
            Self::Adopting | Self::Following => Self::Adopting,
            Self::Ended => Self::Ended,
        }
    }
}

#[cfg(test)]
mod tests;

//! The thread that owns the kernel.
//!
//! Holds the backend and an exact copy of what stands. Commits the stages of each delta back to back; deletes what
//! nothing leads to 50 ms later; when the kernel and the copy may differ (start, another program's write, a lost
//! answer) it reads the table back, asks the planner what is wanted, and commits the difference. Whatever happens,
//! the last good rules stand.
mod blame;
mod formers;
mod kernel;
mod learned;
mod meter;
mod recheck;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use podwall_engine::Update;
use podwall_engine::compile::names;
use podwall_engine::recheck::all_barred;
use podwall_ruleset::{Backend, BackendError, Delta, ForeignChange, Match, Ruleset, stages};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::adoption::Adoption;
use super::backend::former::Elsewhere;
use super::flows::Job;
use super::work::{Outcome, Removed, Standing, Wanted, Work};
use crate::telemetry::health::{Concern, Worker};
use crate::telemetry::metrics::RepairCause;
use crate::telemetry::server::Telemetry;
use formers::Formers;
pub use kernel::StartListening;
use kernel::{Failure, Kernel};
use learned::learned;
use meter::Meter;
use recheck::Recheck;

/// How often the table is read back although nothing points to a difference.
const AUDIT: Duration = Duration::from_secs(300);
/// The thread shows itself at least this often.
const TURN: Duration = Duration::from_secs(5);
/// The first pause after commits do not go through; doubled up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What happens to established flows when a policy gets tighter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Established {
    /// They are judged again, and those no longer allowed are cut
    #[default]
    Recheck,
    /// They go on until they end
    Keep,
}

/// What the thread is given to start with.
pub struct Setup {
    /// The packet filter.
    pub backend: Box<dyn Backend>,
    /// Where its rules are, for people.
    pub place: &'static str,
    /// What earlier agents left in other packet filters.
    pub elsewhere: Elsewhere,
    /// Makes other programs' writes come in as work; called where the packet filter lets them write.
    pub start_listening: StartListening,
    /// What happens to established flows.
    pub established: Established,
    /// Where answers to the planner go.
    pub outcomes: UnboundedSender<Outcome>,
    /// Who cuts flows.
    pub jobs: Sender<Job>,
    /// What earlier agents made of this node.
    pub adoption: Adoption,
    /// Metrics and health.
    pub telemetry: Telemetry,
}

/// Works until told to stop, or until nobody is left who could.
pub fn run(setup: Setup, works: &Receiver<Work>) {
    let mut applier = Applier::new(setup);
    loop {
        applier.telemetry.health.beat(Worker::Apply);
        match works.recv_timeout(applier.patience(Instant::now())) {
            Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Work::FlowsEnded) => {
                // What it left undone, the next agent does at its start; until then rules that are armed stay so.
                tracing::error!("the thread that cuts flows died: the agent ends, to be started again");
                return;
            }
            Ok(work) => applier.work(work),
            Err(RecvTimeoutError::Timeout) => {}
        }
        applier.due(Instant::now());
    }
}

struct Applier {
    kernel: Kernel,
    formers: Formers,
    meter: Meter,
    state: State,
    recheck: Recheck,
    established: Established,
    outcomes: UnboundedSender<Outcome>,
    telemetry: Telemetry,
    audit: Instant,
    /// Attempts at a whole ruleset that failed in a row.
    failures: u32,
    adoption: Adoption,
    /// What the first whole ruleset owes the flows that were there before it.
    older_flows: OlderFlows,
    refused: blame::Blame,
}

/// Flows from before this agent's first commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OlderFlows {
    /// No agent came here before: they were never judged, and are left alone (decision L2).
    Unjudged,
    /// An agent was here, and may have been killed between a commit and its look at the flows, or the table was gone
    /// for a while.
    Judged,
    /// They were dealt with.
    Settled,
}

/// What the copy is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The table was not read yet; try at this time.
    Blind(Instant),
    /// The copy is what stands.
    Following,
    /// It may not be; the planner is asked for the whole at this time, unless it was already.
    Lost { cause: RepairCause, ask: Option<Instant> },
    /// Everything was taken away on request.
    Ended,
}

impl Applier {
    fn new(setup: Setup) -> Self {
        let now = Instant::now();
        Self {
            formers: Formers::new(setup.elsewhere, setup.telemetry.clone()),
            meter: Meter::new(now),
            kernel: Kernel::new(setup.backend, setup.place, setup.start_listening, setup.telemetry.clone()),
            state: State::Blind(now),
            recheck: Recheck::new(setup.jobs),
            established: setup.established,
            outcomes: setup.outcomes,
            telemetry: setup.telemetry,
            audit: now + AUDIT,
            failures: 0,
            adoption: setup.adoption,
            older_flows: OlderFlows::Judged,
            refused: blame::Blame::new(),
        }
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::Wanted(wanted) => {
                self.wanted(wanted);
                self.tell(Outcome::Done);
            }
            Work::Update { update, since, pupils } => {
                self.update(update, since, pupils);
                self.tell(Outcome::Done);
            }
            Work::Foreign(change) => self.foreign(change.as_ref()),
            Work::Rechecked(number) => self.rechecked(number),
            Work::Counters(reply) => drop(reply.send(self.kernel.counters())),
            Work::Show(reply) => drop(reply.send(self.kernel.standing().clone())),
            Work::TearDown(reply) => drop(reply.send(self.tear_down())),
            Work::Stop | Work::FlowsEnded => {}
        }
    }

    /// How long nothing needs to be done without work.
    fn patience(&self, now: Instant) -> Duration {
        let state = match self.state {
            State::Blind(at) | State::Lost { ask: Some(at), .. } => Some(at),
            State::Following => Some(self.audit),
            State::Lost { ask: None, .. } | State::Ended => None,
        };
        let next = [state, self.formers.due(), self.kernel.reap_due()].into_iter().flatten().min();
        next.map_or(TURN, |at| at.saturating_duration_since(now)).min(TURN)
    }

    fn due(&mut self, now: Instant) {
        match self.state {
            State::Blind(at) if now >= at => self.look_first(),
            State::Lost { cause, ask: Some(at) } if now >= at => {
                self.state = State::Lost { cause, ask: None };
                self.tell(Outcome::Lost);
            }
            State::Following if now >= self.audit => self.audit(),
            State::Blind(_) | State::Lost { .. } | State::Following | State::Ended => {}
        }
        // Before the reap: both variants of iptables share the sets.
        if self.state == State::Following
            && self.formers.go(now)
            && let Err(failure) = self.kernel.sweep()
        {
            self.lost(&failure);
        }
        if self.state == State::Following
            && self.kernel.reap_due().is_some_and(|due| now >= due)
            && let Err(failure) = self.kernel.reap()
        {
            self.lost(&failure);
        }
        if self.state == State::Following
            && let Some(hits) = self.meter.read(now, &mut self.kernel)
        {
            self.tell(Outcome::Hits(hits));
        }
    }

    /// Tells what stood before us. The planner writes nothing before it knows.
    fn look_first(&mut self) {
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

    /// Makes the whole true, whatever stands.
    fn wanted(&mut self, wanted: Wanted) {
        let cause = match self.state {
            State::Ended | State::Blind(_) => return,
            State::Lost { cause, .. } => cause,
            State::Following => RepairCause::Failure,
        };
        self.recheck.owe(&wanted.tightened, &wanted.released, wanted.barred);
        match self.make_true(&wanted.ruleset, cause) {
            Ok(changed) => {
                tell_all(wanted.pupils);
                self.state = State::Following;
                self.audit = Instant::now() + AUDIT;
                self.failures = 0;
                self.telemetry.health.clear(Concern::Commits);
                self.telemetry.health.clear(Concern::Uncommitted);
                self.adoption.note(standing(Some(self.kernel.standing())));
                self.kernel.measure(wanted.since);
                self.formers.may_go(Instant::now(), self.kernel.reap_due());
                self.judge_after_repair(changed);
            }
            Err(failure) => self.not_made_true(&failure, &wanted.ruleset, cause),
        }
    }

    /// Answers whether packets may have been let through that should not.
    fn make_true(&mut self, ruleset: &Ruleset, cause: RepairCause) -> Result<bool, Failure> {
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

    fn not_made_true(&mut self, failure: &Failure, wanted: &Ruleset, cause: RepairCause) {
        self.failures += 1;
        let blamed = match &failure.error {
            BackendError::Rejected(refusals) => blame::blame(refusals, &failure.ops, wanted),
            BackendError::Unsupported { .. }
            | BackendError::Owned { .. }
            | BackendError::Stale
            | BackendError::Io { .. } => blame::Blame::new(),
        };
        if blamed.keys().any(|chain| !self.refused.contains_key(chain)) {
            self.refused.extend(blamed);
            self.state = State::Lost { cause, ask: None };
            self.tell(Outcome::Refused(self.refused.clone()));
            return;
        }
        // The first stale answer only means that somebody was quicker.
        if self.failures > 1 || !matches!(failure.error, BackendError::Stale) {
            self.complain(&failure.to_string());
        }
        let pause = self.pause();
        self.state = State::Lost { cause, ask: Some(Instant::now() + pause) };
    }

    fn update(&mut self, update: Update, since: Instant, pupils: Vec<oneshot::Sender<()>>) {
        self.recheck.owe(&update.tightened, &update.released, update.barred);
        if self.state != State::Following {
            return;
        }
        let apart =
            update.delta.chains.is_empty() && update.delta.sets.values().all(|edit| edit.spec.is_none());
        // Elements alone have nothing to do with what waits to be deleted, and somebody may wait for them.
        let reaped = if apart { Ok(()) } else { self.kernel.reap_first() };
        let done = reaped.and_then(|()| {
            let stages = stages(self.kernel.standing(), &update.delta);
            self.kernel.commit_all(&stages)
        });
        match done {
            Ok(()) => {
                tell_all(pupils);
                self.adoption.note(standing(Some(self.kernel.standing())));
                self.kernel.measure(Some(since));
                self.settle_flows();
            }
            Err(failure) => self.lost(&failure),
        }
    }

    fn lost(&mut self, failure: &Failure) {
        tracing::warn!("{failure}; reading the table back");
        let cause = match failure.error {
            BackendError::Stale => RepairCause::Foreign,
            BackendError::Unsupported { .. }
            | BackendError::Owned { .. }
            | BackendError::Rejected(_)
            | BackendError::Io { .. } => RepairCause::Failure,
        };
        self.lose(cause);
    }

    fn lose(&mut self, cause: RepairCause) {
        // What was refused once may be fine now; it is found out again if not.
        self.refused.clear();
        self.state = State::Lost { cause, ask: None };
        self.tell(Outcome::Lost);
    }

    fn foreign(&mut self, change: Option<&ForeignChange>) {
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

    fn audit(&mut self) {
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
    fn judge_after_repair(&mut self, changed: bool) {
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

    fn settle_flows(&mut self) {
        if let Err(failure) = self.recheck.settle(&mut self.kernel, self.established) {
            self.lost(&failure);
        }
    }

    fn rechecked(&mut self, number: u64) {
        if self.recheck.done(number)
            && self.state == State::Following
            && let Err(failure) = self.recheck.disarm(&mut self.kernel)
        {
            self.lost(&failure);
        }
    }

    fn tear_down(&mut self) -> Result<Removed, String> {
        let earlier = self.formers.remove().map_err(Failure::unsent);
        let all = earlier.and_then(|earlier| Ok((earlier, Removed::all_of(&self.kernel.unload()?))));
        match all {
            Ok((mut removed, ours)) => {
                removed += ours;
                tracing::warn!(?removed, "the rules were taken away on request");
                self.adoption.forget();
                self.state = State::Ended;
                self.tell(Outcome::TornDown);
                Ok(removed)
            }
            Err(failure) => {
                self.lost(&failure);
                Err(failure.to_string())
            }
        }
    }

    fn complain(&self, words: &str) {
        self.telemetry.health.raise(Concern::Commits, format!("{words}; the last good rules stand"));
    }

    fn pause(&self) -> Duration {
        LONGEST_PAUSE.min(SHORTEST_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures.min(16))))
    }

    fn tell(&self, outcome: Outcome) {
        if self.outcomes.send(outcome).is_err() {
            tracing::debug!("the planner is gone");
        }
    }
}

/// The kernel holds what they are about to learn; some may have given up.
fn tell_all(pupils: Vec<oneshot::Sender<()>>) {
    for pupil in pupils {
        let _ = pupil.send(());
    }
}

/// Is there a table of ours, and does it drop mid-stream packets of unknown flows already?
fn standing(ruleset: Option<&Ruleset>) -> Standing {
    let Some(ruleset) = ruleset else { return Standing::Nothing };
    let strays = ruleset.chains.get(&names::strays());
    let strict = strays
        .is_some_and(|chain| chain.rules.iter().any(|rule| rule.matches.contains(&Match::TcpNotOpening)));
    if strict { Standing::Strict } else { Standing::Lenient }
}

#[cfg(test)]
mod tests;

//! The backend with an exact copy of what stands behind it.
//!
//! Every transaction the kernel took is done to the copy too, by the same strict rules an in-memory backend has, so a
//! copy that drifted is noticed at once.
use std::fmt;
use std::time::{Duration, Instant};

use podwall_ruleset::fake::apply_op;
use podwall_ruleset::stage::StageKind;
use podwall_ruleset::{
    Backend, BackendError, Counter, Guard, Hit, Observed, Op, Receipt, Ruleset, Stage, Transaction,
};

use crate::telemetry::metrics::CommitResult;
use crate::telemetry::server::Telemetry;

/// A packet may still be inside a chain that nothing leads to any more (decision S2).
pub(super) const LAST_PACKETS: Duration = Duration::from_millis(50);
/// Commits that find another program's write in between are tried again at most this often.
const RACES: u32 = 5;

/// A transaction that did not go through.
#[derive(Debug)]
pub(super) struct Failure {
    /// Why.
    pub(super) error: BackendError,
    /// What was asked, as refusals count it; empty when nothing was sent.
    pub(super) ops: Vec<Op>,
}

impl Failure {
    /// Something before the commit went wrong.
    pub(super) const fn unsent(error: BackendError) -> Self {
        Self { error, ops: Vec::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        match std::error::Error::source(&self.error) {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

/// Starts to listen for other writers.
pub type StartListening = Box<dyn FnMut() -> Result<(), BackendError> + Send>;

/// The kernel's side of the apply thread.
pub(super) struct Kernel {
    backend: Box<dyn Backend>,
    place: &'static str,
    /// Until somebody listens: other programs may take the place of an owned table before it is there.
    start_listening: Option<StartListening>,
    standing: Ruleset,
    reap: Option<Reap>,
    telemetry: Telemetry,
}

/// Deletions that wait for the last packets.
struct Reap {
    due: Instant,
    transaction: Transaction,
}

impl Kernel {
    pub(super) fn new(
        backend: Box<dyn Backend>,
        place: &'static str,
        start_listening: StartListening,
        telemetry: Telemetry,
    ) -> Self {
        let (start_listening, standing) = (Some(start_listening), Ruleset::default());
        Self { backend, place, start_listening, standing, reap: None, telemetry }
    }

    /// Where the rules are, for people.
    pub(super) const fn place(&self) -> &'static str {
        self.place
    }

    /// What stands.
    pub(super) const fn standing(&self) -> &Ruleset {
        &self.standing
    }

    /// Every counter of our rules.
    pub(super) fn counters(&mut self) -> Result<Vec<Counter>, BackendError> {
        self.backend.counters()
    }

    /// Reads the table back; from now on that is what stands.
    pub(super) fn observe(&mut self) -> Result<Observed, BackendError> {
        let observed = self.look()?;
        self.reap = None;
        self.standing = observed.ruleset.clone().unwrap_or_default();
        Ok(observed)
    }

    /// Reads, and listens from then on where the kernel does not refuse other writers.
    fn look(&mut self) -> Result<Observed, BackendError> {
        let observed = self.backend.observe()?;
        if self.backend.capabilities().guard == Guard::Owned {
            return Ok(observed);
        }
        let Some(mut start) = self.start_listening.take() else { return Ok(observed) };
        if let Err(error) = start() {
            self.start_listening = Some(start);
            return Err(error);
        }
        // Once more, for what was written before anybody listened.
        let mut again = self.backend.observe()?;
        again.alien.extend(observed.alien);
        Ok(again)
    }

    /// Takes out what no ruleset can name, and looks whether everything is ours now.
    pub(super) fn sweep(&mut self) -> Result<(), Failure> {
        self.backend.sweep().map_err(Failure::unsent)?;
        let observed = self.look().map_err(Failure::unsent)?;
        if observed.alien.is_empty() {
            return Ok(());
        }
        let doing = format!("{} hold what is not podwall's: {}", self.place, observed.alien.join("; "));
        Err(Failure::unsent(BackendError::Io { doing, source: std::io::ErrorKind::Other.into() }))
    }

    /// Takes the whole table away, and answers what was in it.
    pub(super) fn unload(&mut self) -> Result<Ruleset, Failure> {
        let observed = self.observe().map_err(Failure::unsent)?;
        if let Some(unload) = observed.unload() {
            self.commit(&unload)?;
        }
        Ok(observed.or_empty())
    }

    /// Reads the table back and compares; what waits to be deleted counts as standing.
    pub(super) fn is_as_committed(&mut self) -> Result<bool, BackendError> {
        let observed = self.look()?;
        Ok(observed.alien.is_empty() && observed.or_empty() == self.standing)
    }

    /// How often elements of bans were met.
    pub(super) fn hits(&mut self) -> Result<Vec<Hit>, BackendError> {
        self.backend.hits()
    }

    /// Might something else stand? Where that cannot be told, it might.
    pub(super) fn looks_changed(&mut self) -> bool {
        self.backend.looks_changed().unwrap_or(true)
    }

    /// Commits stages back to back; only deletions wait.
    pub(super) fn commit_all(&mut self, stages: &[Stage]) -> Result<(), Failure> {
        for stage in stages {
            match stage.kind {
                StageKind::Reap => {
                    let due = Instant::now() + LAST_PACKETS;
                    self.reap = Some(Reap { due, transaction: stage.transaction.clone() });
                }
                StageKind::Load
                | StageKind::Shrink
                | StageKind::Narrow
                | StageKind::Rewire
                | StageKind::Repoint
                | StageKind::Grow
                | StageKind::Unload => self.commit(&stage.transaction)?,
            }
        }
        Ok(())
    }

    /// When deletions are due.
    pub(super) fn reap_due(&self) -> Option<Instant> {
        self.reap.as_ref().map(|reap| reap.due)
    }

    /// Carries out the deletions that wait.
    pub(super) fn reap(&mut self) -> Result<(), Failure> {
        match self.reap.take() {
            Some(reap) => self.commit(&reap.transaction),
            None => Ok(()),
        }
    }

    /// The same, after the last packets have left: the next delta starts from what stands without it. Commits are a
    /// tenth of a second apart, so there is rarely anything to wait for.
    pub(super) fn reap_first(&mut self) -> Result<(), Failure> {
        if let Some(due) = self.reap_due() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        self.reap()
    }

    /// Metrics after a change is done.
    pub(super) fn measure(&self, since: Option<Instant>) {
        let metrics = &self.telemetry.metrics;
        if let Some(since) = since {
            metrics.apply_lag_seconds.observe(since.elapsed().as_secs_f64());
        }
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.chains.set(gauge(self.standing.chains.len()));
        metrics.sets.set(gauge(self.standing.sets.len()));
        metrics.elements.set(gauge(self.standing.elements()));
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        let mut races = 0;
        loop {
            match self.try_commit(transaction) {
                Ok(_) => return self.mirror(transaction),
                // The generation counter moves with anybody's tables (S4): only a write into ours matters.
                Err(BackendError::Stale) if races < RACES && self.is_as_committed().unwrap_or(false) => {
                    races += 1;
                }
                Err(error) => return Err(Failure { error, ops: transaction.ops().to_vec() }),
            }
        }
    }

    fn try_commit(&mut self, transaction: &Transaction) -> Result<Receipt, BackendError> {
        let begun = Instant::now();
        let result = self.backend.commit(transaction);
        let metrics = &self.telemetry.metrics;
        let label = match &result {
            Ok(receipt) => {
                metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
                metrics.commit_messages.inc_by(receipt.messages as u64);
                metrics.commit_bytes.inc_by(receipt.bytes as u64);
                CommitResult::Done
            }
            Err(BackendError::Stale) => CommitResult::Stale,
            Err(BackendError::Rejected(_)) => CommitResult::Rejected,
            Err(BackendError::Unsupported { .. } | BackendError::Owned { .. } | BackendError::Io { .. }) => {
                CommitResult::Failed
            }
        };
        metrics.commits.get_or_create(&label.into()).inc();
        result
    }

    fn mirror(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        for op in transaction.ops() {
            match op {
                Op::AddTable | Op::DeleteTable => self.standing = Ruleset::default(),
                Op::AddSet(..)
                | Op::DeleteSet(_)
                | Op::AddChain(..)
                | Op::AddRules(..)
                | Op::FlushChain(_)
                | Op::DeleteChain(_)
                | Op::AddElements(..)
                | Op::RemoveElements(..) => apply_op(&mut self.standing, op).map_err(|errno| {
                    let doing = format!("repeating a commit on our copy: {errno}");
                    Failure::unsent(BackendError::Io { doing, source: std::io::ErrorKind::Other.into() })
                })?,
            }
        }
        Ok(())
    }
}

//! The words between the planner and the thread that owns the kernel.
//!
//! At most one [`Work::Wanted`] or [`Work::Update`] is under way: the planner waits for [`Outcome::Done`]
//! or [`Outcome::Undone`], and what comes meanwhile gathers in the engine instead of in a queue.
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Sum;
use std::net::IpAddr;
use std::ops::AddAssign;
use std::sync::mpsc;
use std::time::Instant;

use podwall_engine::model::ListId;
use podwall_engine::{Barred, Update};
use podwall_ruleset::{BackendError, ChainName, Counter, Deadline, ForeignChange, Hit, Ruleset};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// What the apply thread is asked to do.
#[derive(Debug)]
pub enum Work {
    /// Read back what stands and make it this.
    Wanted(Wanted),
    /// Carry this on from the last wanted or update.
    Update {
        /// The delta, and whose flows it concerns.
        update: Update,
        /// When the oldest change in it was received.
        since: Instant,
        /// Who waits for the kernel to hold what pods are about to learn.
        pupils: Vec<oneshot::Sender<()>>,
    },
    /// Somebody else wrote into our rules, or may have: who is told where it is known.
    Foreign(Option<ForeignChange>),
    /// All flows of the recheck of this number were dealt with.
    Rechecked(u64),
    /// The thread that cuts flows has come to an end by itself.
    FlowsEnded,
    /// Read every counter of our rules.
    Counters(oneshot::Sender<Result<Vec<Counter>, BackendError>>),
    /// Hand out a copy of what stands.
    Show(oneshot::Sender<Ruleset>),
    /// Take everything away and stay idle.
    TearDown(oneshot::Sender<Result<Removed, String>>),
    /// Leave; the rules stand.
    Stop,
}

/// A whole ruleset to be made true.
#[derive(Debug)]
pub struct Wanted {
    /// What the kernel should hold.
    pub ruleset: Ruleset,
    /// Addresses whose established flows must be judged again.
    pub tightened: BTreeSet<IpAddr>,
    /// Local addresses none of whose flows may live on.
    pub released: BTreeSet<IpAddr>,
    /// Whether all flows must be asked again whether a ban or a guarded door forbids them.
    pub barred: Barred,
    /// When the oldest change in it was received, if it carries changes.
    pub since: Option<Instant>,
    /// Who waits for the kernel to hold what pods are about to learn.
    pub pupils: Vec<oneshot::Sender<()>>,
}

/// What the apply thread answers the planner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Local addresses that were judged when the agent started; said once, before anything else.
    Judged(BTreeSet<IpAddr>),
    /// What pods had learned when the agent started, and until when; said once, before it is told what stood.
    Learned(Vec<(ListId, IpAddr, IpAddr, Deadline)>),
    /// What stood when the agent started; said once.
    Standing(Standing),
    /// What was asked for stands: the next may come.
    Done,
    /// The work was dealt with and does not stand: the next may come, and the whole will be asked for.
    Undone,
    /// What stands is unknown or wrong: send what is wanted.
    Lost,
    /// The kernel refuses these chains, with its reasons: shut whoever would enter one, then send what is wanted.
    Refused(BTreeMap<ChainName, String>),
    /// How often elements of bans were met, as the kernel counts; those never met are left out.
    Hits(Vec<Hit>),
    /// The rules were taken away on request.
    TornDown,
}

/// What stood under our name before the first commit, or was recorded to have stood since the node booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing: flows were never judged.
    Nothing,
    /// A table that still let mid-stream packets of old flows through.
    Lenient,
    /// A table in full force.
    Strict,
}

/// What a teardown took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Removed {
    /// Chains.
    pub chains: usize,
    /// Sets and maps.
    pub sets: usize,
    /// Elements in them.
    pub elements: usize,
}

impl Removed {
    /// Everything in a ruleset.
    pub fn all_of(ruleset: &Ruleset) -> Self {
        Self { chains: ruleset.chains.len(), sets: ruleset.sets.len(), elements: ruleset.elements() }
    }
}

impl AddAssign for Removed {
    fn add_assign(&mut self, other: Self) {
        self.chains += other.chains;
        self.sets += other.sets;
        self.elements += other.elements;
    }
}

impl Sum for Removed {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}

/// The apply thread's end, shared by all who ask it.
pub type Works = mpsc::Sender<Work>;

//! Which statuses are written when: all objects in view, one round at a time. Pure but for the clocks handed in.
//!
//! Owns the bounds of what the operator costs an API server. One object is written at most once in [`URGENT_GAP`], and
//! when only counts moved once in [`COUNTS_GAP`]; all together no faster than the budget. What somebody may wait for
//! goes before counts.
use std::collections::BTreeMap;
use std::time::Duration;

use podwall_crd::read::Timestamp;
use tokio::time::Instant;

use super::fleet::{Fleet, Question};
use super::object::{Key, Object, Status};
use super::verdict::{self, Difference};

/// Least time between two writes of one object when a condition changed.
pub const URGENT_GAP: Duration = Duration::from_secs(1);
/// Least time between two writes of one object when only counts changed.
pub const COUNTS_GAP: Duration = Duration::from_secs(10);
/// A new object is given this long to be enforced before anybody is told that it is not: one write instead of two.
const SETTLING: Duration = Duration::from_secs(1);

/// One request to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Write the status of an object.
    Status(Key, Box<Status>),
    /// Delete an object that is over; only that of this UID.
    Delete(Key, String),
    /// Delete the report of a node that is gone.
    Forget(String),
}

/// All objects, and when each was last written.
#[derive(Debug)]
pub struct Ledger {
    objects: BTreeMap<Key, Entry>,
    delete_after: i64,
}

#[derive(Debug)]
struct Entry {
    object: Object,
    seen: Instant,
    written: Option<Instant>,
}

/// What a round came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Requests, the most urgent first, no more than the budget.
    pub writes: Vec<Write>,
    /// When there will be something to do though nothing happens.
    pub next: Option<Duration>,
}

impl Ledger {
    /// Nothing is known; objects that are over are deleted after so many seconds.
    pub const fn new(delete_after: i64) -> Self {
        Self { objects: BTreeMap::new(), delete_after }
    }

    /// What is held under a key.
    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key).map(|entry| &entry.object)
    }

    /// An object came or changed. Answers whether more than its status did.
    pub fn put(&mut self, key: Key, object: Object, now: Instant) -> bool {
        match self.objects.get_mut(&key) {
            Some(entry) => {
                let changed = entry.object != object;
                if entry.object.generation != object.generation || entry.object.uid != object.uid {
                    entry.seen = now;
                }
                entry.object = object;
                changed
            }
            None => {
                self.objects.insert(key, Entry { object, seen: now, written: None });
                true
            }
        }
    }

    /// An object went.
    pub fn gone(&mut self, key: &Key) {
        self.objects.remove(key);
    }

    /// A status stands in the API server.
    pub fn written(&mut self, key: &Key, status: Status, now: Instant) {
        if let Some(entry) = self.objects.get_mut(key) {
            entry.object.status = status;
            entry.written = Some(now);
        }
    }

    /// A status could not be written; the object waits its turn.
    pub fn refused(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.objects.get_mut(key) {
            entry.written = Some(now);
        }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// What is to be written now, at most `budget` requests.
    pub fn round(&self, fleet: &mut Fleet, clock: Clock, budget: usize) -> Round {
        let mut plan = Plan { due: Vec::new(), clock, next: None };
        let (orphans, next) = fleet.orphans(clock.time);
        plan.due.extend(orphans.into_iter().map(|name| (Difference::Counts, None, Write::Forget(name))));
        plan.next = next.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let mut view = fleet.view(clock.time);
        for (key, entry) in &self.objects {
            let object = &entry.object;
            if verdict::is_to_be_deleted(object, clock.time, self.delete_after) {
                plan.delete(key, entry);
                continue;
            }
            let (uid, version, nodes) = (&*object.uid, object.version, object.nodes.as_ref());
            let answer = view.ask(Question { key, uid, version, nodes });
            let status = verdict::status((key.kind, object), &answer, clock.time);
            plan.status(key, entry, status);
            plan.wake_at(verdict::next_moment(object, clock.time, self.delete_after));
        }
        plan.cut(budget)
    }
}

/// Both clocks: one is written into objects, the other only ever goes on.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// What time it is.
    pub time: Timestamp,
    /// Since whenever.
    pub steady: Instant,
}

impl Clock {
    /// Both, now.
    pub fn now() -> Self {
        Self { time: Timestamp::now(), steady: Instant::now() }
    }
}

struct Plan {
    /// How urgent, when the object was last written, and what is to be done.
    due: Vec<(Difference, Option<Instant>, Write)>,
    clock: Clock,
    next: Option<Duration>,
}

impl Plan {
    fn delete(&mut self, key: &Key, entry: &Entry) {
        if self.may(entry, COUNTS_GAP) {
            let write = Write::Delete(key.clone(), entry.object.uid.clone());
            self.due.push((Difference::Counts, entry.written, write));
        }
    }

    fn status(&mut self, key: &Key, entry: &Entry, status: Status) {
        let difference = verdict::difference(&entry.object.status, &status);
        let gap = match difference {
            Difference::None => return,
            Difference::Counts => COUNTS_GAP,
            Difference::Conditions => URGENT_GAP,
        };
        let pending = status.common.conditions.iter().any(|condition| condition.reason == "Pending");
        let settled = self.clock.steady.saturating_duration_since(entry.seen);
        if pending && settled < SETTLING {
            return self.wake_in(SETTLING - settled);
        }
        if self.may(entry, gap) {
            self.due.push((difference, entry.written, Write::Status(key.clone(), Box::new(status))));
        }
    }

    /// Whether an object may be written again; if not, the plan wakes when it may.
    fn may(&mut self, entry: &Entry, gap: Duration) -> bool {
        let since = entry.written.map(|written| self.clock.steady.saturating_duration_since(written));
        match since.and_then(|since| gap.checked_sub(since)).filter(|rest| !rest.is_zero()) {
            None => true,
            Some(rest) => {
                self.wake_in(rest);
                false
            }
        }
    }

    fn wake_at(&mut self, moment: Option<Timestamp>) {
        let Some(moment) = moment else { return };
        let wait = moment.duration_since(self.clock.time);
        self.wake_in(Duration::try_from(wait).unwrap_or(Duration::ZERO));
    }

    fn wake_in(&mut self, wait: Duration) {
        self.next = Some(self.next.map_or(wait, |next| next.min(wait)));
    }

    fn cut(mut self, budget: usize) -> Round {
        // Whoever has waited longest goes first, or the last of the alphabet would wait for ever.
        self.due.sort_by_key(|(difference, written, _)| (std::cmp::Reverse(*difference), *written));
        if self.due.len() > budget {
            self.wake_in(Duration::ZERO);
        }
        let writes = self.due.into_iter().take(budget).map(|(_, _, write)| write).collect();
        Round { writes, next: self.next }
    }
}

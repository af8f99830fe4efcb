//! What the planner owes the DNS proxy: the book before the rules that need it, and word when the kernel holds what
//! pods are about to learn.
use std::net::IpAddr;
use std::time::Duration;

use podwall_engine::model::{ListId, PodUid};
use podwall_engine::readers::Book;
use podwall_engine::{Change, Engine, Lesson};
use podwall_ruleset::Deadline;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::domains::Classroom;

/// How long rules wait for the proxy to read the book they need.
const READING: Duration = Duration::from_millis(250);
/// Commits for pods that wait for an answer are so far apart at least (decision Q3).
const BATCH: Duration = Duration::from_millis(1);
/// A proxy that is replaced is away for less.
const REPLACING: Duration = Duration::from_secs(30);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Teaching {
    classroom: Classroom,
    pupils: Vec<oneshot::Sender<()>>,
    /// When the last of them were served.
    served: Option<Instant>,
    /// Something changed that the book may depend on.
    dirty: bool,
    /// A book the proxy has not read yet, and until when that is waited for.
    reading: Option<(u64, Instant)>,
    stood: Vec<(ListId, IpAddr, IpAddr, Deadline)>,
    /// Since when a proxy has been missed.
    missed: Option<Instant>,
}

impl Teaching {
    pub(super) const fn new(classroom: Classroom) -> Self {
        Self {
            classroom,
            pupils: Vec::new(),
            served: None,
            dirty: true,
            reading: None,
            stood: Vec::new(),
            missed: None,
        }
    }

    /// Something happened.
    pub(super) const fn note(&mut self, change: &Change) {
        if !matches!(change, Change::Learned(_) | Change::Clock(_)) {
            self.dirty = true;
        }
    }

    /// Somebody waits for what was just taken in.
    pub(super) fn wait(&mut self, pupil: oneshot::Sender<()>) {
        self.pupils.push(pupil);
    }

    /// Is it time to serve those who wait?
    pub(super) fn is_urgent(&self, now: Instant) -> bool {
        !self.pupils.is_empty() && self.served.is_none_or(|served| now >= served + BATCH)
    }

    /// All who wait; they are served now.
    pub(super) fn pupils(&mut self, now: Instant) -> Vec<oneshot::Sender<()>> {
        if !self.pupils.is_empty() {
            self.served = Some(now);
        }
        std::mem::take(&mut self.pupils)
    }

    /// The proxy works by the book of this revision.
    pub(super) fn read(&mut self, revision: u64) {
        if self.reading.is_some_and(|(wanted, _)| revision >= wanted) {
            self.reading = None;
        }
    }

    /// Publishes the book if it is another one; must rules wait for it to be read?
    pub(super) fn publish(&mut self, engine: &Engine, now: Instant) -> bool {
        if std::mem::take(&mut self.dirty)
            && let Some(revision) = self.classroom.publish(engine.book())
            && self.classroom.is_attended()
        {
            self.reading = Some((revision, now + READING));
        }
        match self.reading {
            Some((_, until)) if now < until => true,
            Some((revision, _)) => {
                tracing::warn!(
                    revision,
                    "the DNS proxy does not read its book: rules do not wait any longer"
                );
                self.reading = None;
                false
            }
            None => false,
        }
    }

    /// What to do where pods have policies of names and nobody takes their queries.
    pub(super) fn unattended(&mut self, now: Instant) -> Option<String> {
        let pods = self.classroom.pupils();
        if pods == 0 || self.classroom.is_attended() {
            self.missed = None;
            return None;
        }
        let missed = *self.missed.get_or_insert(now);
        (now >= missed + REPLACING).then(|| {
            format!(
                "no podwall dns runs on this node, so names lead pods with DomainPolicies nowhere new ({pods} pods): start \
                 it with the same --backend"
            )
        })
    }

    /// Nothing is judged any more: the proxy lets go of all queries, and nobody waits.
    pub(super) fn end(&mut self) {
        self.classroom.publish(Book::default());
        self.pupils.clear();
        self.reading = None;
    }

    /// When there is something to do without news.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let served = (!self.pupils.is_empty()).then(|| self.served.map_or(now, |served| served + BATCH));
        let reading = self.reading.map(|(_, until)| until);
        match (served, reading) {
            // Whoever waits for a book waits for the same commit.
            (_, Some(until)) => Some(until),
            (served, None) => served,
        }
    }

    /// What the kernel held when the agent started.
    pub(super) fn stood(&mut self, lessons: Vec<(ListId, IpAddr, IpAddr, Deadline)>) {
        self.stood = lessons;
    }

    /// The same as lessons of those who learned them; where nobody wrote down who that was, it was nobody.
    pub(super) fn adopt(&mut self) -> Vec<Lesson> {
        if self.stood.is_empty() {
            return Vec::new();
        }
        let readers = self.classroom.earlier_readers();
        let lesson = |(list, pod, address, ends): (ListId, IpAddr, IpAddr, Deadline)| {
            let owner = PodUid(readers.get(&pod)?.as_str().into());
            Some(Lesson { pod, owner, list, address, ends })
        };
        std::mem::take(&mut self.stood).into_iter().filter_map(lesson).collect()
    }
}

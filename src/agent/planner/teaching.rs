//! What the planner owes the DNS proxy: the book before the rules that need it, and word when the kernel holds what
//! pods are about to learn.
use std::net::IpAddr;
use std::time::{Duration, Instant as Moment};

use podwall_engine::model::{ListId, PodUid};
use podwall_engine::readers::Book;
use podwall_engine::{Change, Engine, Lesson};
use podwall_ruleset::Deadline;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::domains::{Classroom, Owners};
use super::Planner;

/// How long rules wait for the proxy to read the book they need.
const READING: Duration = Duration::from_millis(250);
/// So long the proxy holds back an answer (`src/dns/exchange.rs`).
const EARLY: Duration = Duration::from_secs(2);
/// A proxy that is replaced is away for less.
const REPLACING: Duration = Duration::from_secs(30);

/// What a pod is about to learn, and who waits to hear that the kernel holds it.
type Taught = (Vec<Lesson>, oneshot::Sender<()>);

/// How far the proxy is with the book that the next rules need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// They need none, or that was settled.
    Settled,
    /// It has not read it yet; waited for until then.
    Awaited(u64, Instant),
    /// It has, and the rules were not handed on yet.
    Read,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Teaching {
    classroom: Classroom,
    pupils: Vec<oneshot::Sender<()>>,
    /// What was told before all pods were known, and when.
    early: Vec<(Instant, Taught)>,
    /// Something changed that the book may depend on.
    dirty: bool,
    reading: Reading,
    /// Who has which address by a book whose rules the kernel does not hold yet.
    owners: Option<Owners>,
    /// The same, with the rules under way; and word when they stand.
    settling: Option<(Owners, oneshot::Receiver<()>)>,
    stood: Vec<(ListId, IpAddr, IpAddr, Deadline)>,
    /// Since when a proxy has been missed.
    missed: Option<Instant>,
}

impl Planner {
    /// Takes in what a pod is about to learn. What the engine does not take is never confirmed: the pod is gone, or
    /// another one by now.
    pub(super) fn teach(&mut self, lessons: Vec<Lesson>, pupil: oneshot::Sender<()>, at: Moment) {
        let mut held = true;
        for lesson in lessons {
            let (pod, subject, ends) = (lesson.pod, (lesson.list.clone(), lesson.address), lesson.ends);
            let owner = lesson.owner.clone();
            self.change(Change::Learned(lesson), at);
            let known = self.engine.cluster().lessons();
            held &= known.owner(pod) == Some(&owner) && known.end_of(pod, &subject) >= Some(ends);
        }
        self.oldest.get_or_insert(at);
        if held {
            self.teaching.pupils.push(pupil);
        }
    }
}

impl Teaching {
    pub(super) const fn new(classroom: Classroom) -> Self {
        Self {
            classroom,
            pupils: Vec::new(),
            early: Vec::new(),
            dirty: true,
            reading: Reading::Settled,
            owners: None,
            settling: None,
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

    /// Somebody tells of a pod before all pods are known: it is looked at then, unless its pod was told meanwhile that
    /// there is no answer.
    pub(super) fn keep(&mut self, lessons: Vec<Lesson>, pupil: oneshot::Sender<()>, now: Instant) {
        self.early.retain(|(since, _)| now < *since + EARLY);
        self.early.push((now, (lessons, pupil)));
    }

    /// All that was told so early.
    pub(super) fn early(&mut self, now: Instant) -> Vec<Taught> {
        let kept = std::mem::take(&mut self.early).into_iter();
        kept.filter(|(since, _)| now < *since + EARLY).map(|(_, taught)| taught).collect()
    }

    /// Does anybody wait? The apply thread sees to it that their commits are not too many.
    pub(super) const fn is_urgent(&self) -> bool {
        !self.pupils.is_empty()
    }

    /// All who wait; they are served now.
    pub(super) fn pupils(&mut self) -> Vec<oneshot::Sender<()>> {
        std::mem::take(&mut self.pupils)
    }

    /// Something is handed on: with it goes who has to hear when it stands.
    pub(super) fn hand_on(&mut self, pupils: &mut Vec<oneshot::Sender<()>>) {
        if let Some(owners) = self.owners.take() {
            let (word, stands) = oneshot::channel();
            self.settling = Some((owners, stands));
            pupils.push(word);
        }
    }

    /// What was under way is done, one way or the other.
    pub(super) fn done(&mut self) {
        let Some((owners, mut stands)) = self.settling.take() else { return };
        if stands.try_recv().is_ok() {
            self.classroom.write_owners(&owners);
        } else {
            self.owners.get_or_insert(owners);
        }
    }

    /// The proxy works by the book of this revision.
    pub(super) fn read(&mut self, revision: u64) {
        if matches!(self.reading, Reading::Awaited(wanted, _) if revision >= wanted) {
            self.reading = Reading::Read;
        }
    }

    /// Is there a book whose rules were not handed on? What is news to it waits: where pods come and go all the time the
    /// rules would for ever need another one.
    pub(super) fn holds(&self) -> bool {
        self.reading != Reading::Settled
    }

    /// Publishes the book if it is another one; must rules wait for it to be read?
    pub(super) fn publish(&mut self, engine: &Engine, now: Instant) -> bool {
        match self.reading {
            Reading::Awaited(_, until) if now < until => return true,
            Reading::Awaited(revision, _) => {
                tracing::warn!(
                    revision,
                    "the DNS proxy does not read its book: rules do not wait any longer"
                );
                self.reading = Reading::Settled;
                return false;
            }
            Reading::Settled | Reading::Read => self.reading = Reading::Settled,
        }
        if std::mem::take(&mut self.dirty)
            && let Some(revision) = self.classroom.publish(engine.book())
        {
            self.owners = Some(self.classroom.owners());
            if self.classroom.is_attended() {
                self.reading = Reading::Awaited(revision, now + READING);
            }
        }
        self.holds()
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
        self.classroom.write_owners(&Owners::new());
        (self.owners, self.settling) = (None, None);
        self.pupils.clear();
        self.reading = Reading::Settled;
    }

    /// When there is something to do without news.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.reading {
            Reading::Awaited(_, until) => Some(until),
            Reading::Settled | Reading::Read => None,
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
        let readers = self.classroom.earlier_owners();
        let lesson = |(list, pod, address, ends): (ListId, IpAddr, IpAddr, Deadline)| {
            let owner = PodUid(readers.get(&pod)?.as_str().into());
            Some(Lesson { pod, owner, list, address, ends })
        };
        std::mem::take(&mut self.stood).into_iter().filter_map(lesson).collect()
    }
}

#[cfg(test)]
mod tests {
    use podwall_engine::{NodeName, Options, ingest};
    use serde_json::json;

    use super::super::super::domains::classroom;
    use super::*;

    /// An engine whose only pod may ask for names.
    fn engine(uid: &str) -> Engine {
        let mut engine = Engine::new(NodeName::from("a"), Options::default());
        let objects = [
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": "shop", "name": "web", "uid": uid}, "spec": {"nodeName": "a"},
                "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}}),
            json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "DomainPolicy",
                "metadata": {"namespace": "shop", "name": "x", "uid": "p"},
                "spec": {"podSelector": {}, "egress": [{"domains": ["a.example"]}], "dnsServers": ["192.0.2.53"]}}),
        ];
        for object in &objects {
            engine.apply(ingest::object(object).unwrap().unwrap().0);
        }
        engine
    }

    #[tokio::test]
    async fn whose_an_address_is_is_written_down_once_the_kernel_holds_nothing_of_the_pod_before() {
        let folder = tempfile::tempdir().unwrap();
        let written = || classroom(folder.path()).0.earlier_owners();
        let mut teaching = Teaching::new(classroom(folder.path()).0);
        let (now, address) = (Instant::now(), IpAddr::from([10, 0, 0, 1]));
        let mut turn = |uid: &str, stands: bool| {
            teaching.dirty = true;
            teaching.publish(&engine(uid), now);
            let mut pupils = teaching.pupils();
            teaching.hand_on(&mut pupils);
            let before = written();
            if stands {
                pupils.into_iter().for_each(|pupil| pupil.send(()).unwrap());
            } else {
                drop(pupils);
            }
            teaching.done();
            (before.get(&address).cloned(), written().get(&address).cloned())
        };
        let some = |uid: &str| Some(uid.to_owned());
        assert_eq!(turn("first", true), (None, some("first")));
        // The commit failed: what the first one learned may stand there still.
        assert_eq!(turn("heir", false), (some("first"), some("first")));
        assert_eq!(turn("heir", true), (some("first"), some("heir")));
    }
}

//! Which events there are, how often what they tell of happened, and what is to be written next. Pure but for the
//! time it is given.
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use podwall_ruleset::Digest;
use tokio::time::Instant;

use super::form::{Form, regarding};
use crate::drops::record::{Carried, Cause};
use crate::drops::report::{End, Report, Side, Who};

/// Events there may be.
const MOST: usize = 2048;
/// Of one side of one object: a scan of all ports is one more, not 65,536.
const MOST_OF_ONE: usize = 8;
/// What has been quiet for so long is forgotten, and counts anew.
const FORGET: Duration = Duration::from_secs(600);
/// How often it is looked for: a look walks through all, and a flood asks thousands of times a second.
const SWEEP: Duration = Duration::from_secs(10);
/// How soon the count of one that goes on is written first.
const SOON: Duration = Duration::from_secs(10);
/// Writes at once, and a second.
const BURST: u32 = 25;
const RATE: f64 = 5.0;
/// The first pause after a write that failed, and the longest.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Kind, namespace, name and UID of the object.
    object: [String; 4],
    /// Which end of the packet it is.
    pub side: Side,
    /// The other end.
    pub peer: Peer,
    /// What the packet carried, but for the port its client chose.
    carried: Option<Carried>,
    /// Who dropped it.
    cause: String,
}

/// The other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A pod, by UID; it may have two addresses.
    Pod(String),
    /// Anybody else.
    Address(IpAddr),
    /// More than are told apart.
    Many,
}

impl Key {
    fn of(report: &Report, side: Side) -> Option<Self> {
        let object = regarding(report.end(side))?;
        let text = |text: Option<String>| text.unwrap_or_default();
        let other: &End = report.other(side);
        Some(Self {
            object: [text(object.kind), text(object.namespace), text(object.name), text(object.uid)],
            side,
            peer: match &other.who {
                Who::Pod(pod) => Peer::Pod(pod.uid.0.to_string()),
                Who::Node(_) | Who::Service(_) | Who::Stranger => Peer::Address(other.address),
            },
            carried: Some(report.record.carried.without_source()),
            cause: cause(report),
        })
    }

    fn many(&self) -> Self {
        Self { peer: Peer::Many, carried: None, cause: String::new(), ..self.clone() }
    }

    /// What the object's name ends in.
    pub fn digest(&self, node: &str) -> Digest {
        let [kind, namespace, name, uid] = &self.object;
        let rest = format!("{:?} {:?} {:?}", self.side, self.peer, self.carried);
        Digest::of([node, kind, namespace, name, uid, &rest, &self.cause])
    }
}

/// Both families of a pod have chains of their own, of the same policies.
fn cause(report: &Report) -> String {
    match (&report.blame, &report.record.cause) {
        (Some(blame), _) => {
            use podwall_engine::explain::Blame;
            match blame {
                Blame::Policies { mode, direction, policies, decided, .. } => {
                    format!(
                        "{mode:?} {direction} {policies:?} {:?}",
                        decided.as_ref().map(|d| (&d.policy, &d.rule))
                    )
                }
                Blame::Bans(mode, bans) => format!("{mode:?} {bans:?}"),
                Blame::Doors(mode, doors) => format!("{mode:?} {doors:?}"),
                Blame::Fixed(tail) => tail.as_str().to_owned(),
            }
        }
        (None, Cause::Ours(chain)) => chain.clone(),
        (None, Cause::Theirs(prefix)) => prefix.clone(),
    }
}

/// What came of telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noted {
    /// It is counted there.
    In(Key),
    /// There is no object to tell it on.
    Nobody,
    /// There are too many already.
    Full,
}

#[derive(Debug)]
struct Series {
    event: Box<Event>,
    first: Timestamp,
    last: Timestamp,
    /// Packets.
    count: u64,
    /// Of them told the API server.
    written: u64,
    state: State,
    /// When it may be written; `None`: there is nothing to write.
    due: Option<Instant>,
    wrote: Instant,
    pause: Duration,
    heard: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The API server has no such object, as far as we know.
    New,
    /// It has one from before we started.
    Older,
    /// It has ours.
    Stands,
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Job {
    /// The object.
    Create(Box<Event>),
    /// Look how far an older agent counted.
    Read(Place),
    /// Its count.
    Count(Place, u64, Timestamp),
}

/// Where an event is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What came of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was.
    Done,
    /// There is one of that name already.
    Exists,
    /// An older agent counted so far.
    Found(u64),
    /// There is none of that name.
    Missing,
    /// It will never be: the object, its namespace or the right is missing.
    Refused,
    /// The API server is away, or has too much to do.
    Failed,
}

/// The desk.
#[derive(Debug)]
pub struct Desk {
    node: String,
    form: Form,
    series: HashMap<Key, Series>,
    of_one: HashMap<([String; 4], Side), usize>,
    due: BTreeSet<(Instant, Key)>,
    tokens: f64,
    refilled: Instant,
    failures: u32,
    not_before: Instant,
    /// When the quiet ones are looked for next.
    sweep: Instant,
}

impl Desk {
    /// Nothing was told yet.
    pub fn new(node: String, form: Form, now: Instant) -> Self {
        Self {
            node,
            form,
            series: HashMap::new(),
            of_one: HashMap::new(),
            due: BTreeSet::new(),
            tokens: f64::from(BURST),
            refilled: now,
            failures: 0,
            not_before: now,
            sweep: now + SWEEP,
        }
    }

    /// A packet, seen from one end.
    pub fn note(&mut self, report: &Report, side: Side, reverse: Option<&str>, now: Instant) -> Noted {
        let Some(mut key) = Key::of(report, side) else { return Noted::Nobody };
        if !self.series.contains_key(&key) {
            let owner = (key.object.clone(), side);
            if self.of_one.get(&owner).is_some_and(|count| *count >= MOST_OF_ONE) {
                key = key.many();
            }
        }
        if self.series.contains_key(&key) {
            self.count(&key, 1, report.record.at, now);
            return Noted::In(key);
        }
        if self.series.len() >= MOST && !self.forget_one() {
            return Noted::Full;
        }
        let event = Box::new(self.form.event(report, &key, &self.node, reverse));
        let at = report.record.at;
        let series = Series {
            event,
            first: at,
            last: at,
            count: 1,
            written: 0,
            state: State::New,
            due: None,
            wrote: now,
            pause: SOON.min(self.form.interval),
            heard: now,
        };
        self.series.insert(key.clone(), series);
        *self.of_one.entry((key.object.clone(), side)).or_default() += 1;
        self.put_due(&key, Some(now));
        Noted::In(key)
    }

    /// More packets of the same kind, which no record told of one by one.
    pub fn more(&mut self, key: &Key, packets: u64, now: Instant) {
        if let Some(series) = self.series.get(key) {
            let last = series.last;
            self.count(key, packets, last, now);
        }
    }

    fn count(&mut self, key: &Key, packets: u64, at: Timestamp, now: Instant) {
        let Some(series) = self.series.get_mut(key) else { return };
        series.count += packets;
        series.last = series.last.max(at);
        series.heard = now;
        if series.due.is_none() {
            let due = (series.wrote + series.pause).max(now);
            self.put_due(key, Some(due));
        }
    }

    fn put_due(&mut self, key: &Key, due: Option<Instant>) {
        let Some(series) = self.series.get_mut(key) else { return };
        if let Some(old) = std::mem::replace(&mut series.due, due) {
            self.due.remove(&(old, key.clone()));
        }
        if let Some(due) = due {
            self.due.insert((due, key.clone()));
        }
    }

    /// When there is something to write; `None`: there is nothing.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let (first, _) = self.due.first()?;
        let tokens = self.tokens_at(now);
        let token = if tokens >= 1.0 { now } else { now + Duration::from_secs_f64((1.0 - tokens) / RATE) };
        Some((*first).max(self.not_before).max(token))
    }

    /// What is to be written now.
    pub fn next(&mut self, now: Instant) -> Option<(Key, Job)> {
        self.forget(now);
        if self.next_due(now)? > now {
            return None;
        }
        let (_, key) = self.due.first()?.clone();
        self.tokens = self.tokens_at(now) - 1.0;
        self.refilled = now;
        self.put_due(&key, None);
        let series = self.series.get(&key)?;
        let place = place(&series.event);
        let job = match series.state {
            State::New => {
                let mut event = series.event.clone();
                event.event_time = Some(super::form::micro(series.first));
                event.series = series.as_series();
                Job::Create(event)
            }
            State::Older => Job::Read(place),
            State::Stands => Job::Count(place, series.count, series.last),
        };
        Some((key, job))
    }

    /// What came of it; `told` is the count that was written.
    pub fn done(&mut self, key: &Key, written: Written, told: u64, now: Instant) {
        match written {
            Written::Failed => {
                self.failures += 1;
                let pause = SHORTEST_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures.min(16) - 1));
                self.not_before = now + pause.min(LONGEST_PAUSE);
                return self.put_due(key, Some(now));
            }
            Written::Done | Written::Exists | Written::Found(_) | Written::Missing | Written::Refused => {
                self.failures = 0
            }
        }
        let interval = self.form.interval;
        let Some(series) = self.series.get_mut(key) else { return };
        let due = match written {
            Written::Done => {
                // The first count follows soon, those after it ever more rarely.
                if series.state == State::Stands {
                    series.pause = (series.pause * 2).min(interval);
                }
                (series.state, series.written, series.wrote) = (State::Stands, told, now);
                (series.count > series.written).then(|| now + series.pause)
            }
            Written::Exists => {
                series.state = State::Older;
                Some(now)
            }
            Written::Found(before) => {
                series.count += before;
                series.state = State::Stands;
                Some(now)
            }
            // It was quiet for an hour (`--event-ttl`), and goes on as a new one.
            Written::Missing => {
                series.count -= series.written.min(series.count);
                (series.state, series.first, series.written) = (State::New, series.last, 0);
                Some(now)
            }
            Written::Refused => {
                series.wrote = now;
                series.pause = LONGEST_PAUSE;
                None
            }
            Written::Failed => None,
        };
        self.put_due(key, due);
    }

    /// The count an event will have been written with.
    pub fn count_of(&self, key: &Key) -> u64 {
        self.series.get(key).map_or(0, |series| series.count)
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        let refill = now.duration_since(self.refilled).as_secs_f64() * RATE;
        (self.tokens + refill).min(f64::from(BURST))
    }

    fn forget(&mut self, now: Instant) {
        if now < self.sweep {
            return;
        }
        self.sweep = now + SWEEP;
        let idle = |series: &Series| series.due.is_none() && now.duration_since(series.heard) > FORGET;
        let gone: Vec<Key> =
            self.series.iter().filter(|(_, series)| idle(series)).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| self.remove(key));
    }

    /// Makes room: the one that has been quiet for longest and owes nothing.
    fn forget_one(&mut self) -> bool {
        let idle = self.series.iter().filter(|(_, series)| series.due.is_none());
        let oldest = idle.min_by_key(|(_, series)| series.heard).map(|(key, _)| key.clone());
        if let Some(key) = &oldest {
            self.remove(key);
        }
        oldest.is_some()
    }

    fn remove(&mut self, key: &Key) {
        self.put_due(key, None);
        self.series.remove(key);
        let owner = (key.object.clone(), key.side);
        if let Some(count) = self.of_one.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.of_one.remove(&owner);
            }
        }
    }
}

impl Series {
    /// A series starts with the second packet (`validation/events.go`).
    fn as_series(&self) -> Option<k8s_openapi::api::events::v1::EventSeries> {
        (self.count > 1).then(|| k8s_openapi::api::events::v1::EventSeries {
            count: i32::try_from(self.count).unwrap_or(i32::MAX),
            last_observed_time: super::form::micro(self.last),
        })
    }
}

fn place(event: &Event) -> Place {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Place { namespace: text(&event.metadata.namespace), name: text(&event.metadata.name) }
}

#[cfg(test)]
mod tests;

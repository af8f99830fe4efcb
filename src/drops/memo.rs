//! The planner's part: attributes records by what is known at the time, and waits a moment where a pod may still be
//! told of.
//!
//! In a flood most records are alike, so what was found for one is used again for those that follow at once.
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use podwall_engine::explain::{Blame, Counted};
use podwall_engine::{Change, Engine};
use podwall_ruleset::Counter;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::attribute::{self, Certainty};
use super::record::{Carried, Cause, Record};
use super::report::{End, Report, Sample};
use super::tenants::{Beginning, Tenants};

/// How long a record waits for a pod that has its address already: the kubelet tells of it within about a second.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How many wait.
const MOST_WAITING: usize = 1024;
/// What was found holds so long.
const FRESH: Duration = Duration::from_secs(1);
/// How much of it is kept.
const MOST_KNOWN: usize = 4096;

/// What comes in.
#[derive(Debug)]
pub enum Taken {
    /// Records, with copies of their packets.
    Records(Vec<(Record, Sample)>),
    /// Every counter of our rules.
    Counters(Vec<Counter>),
}

/// What goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A drop.
    Drop(Box<Report>),
    /// How often rules that drop were met, by rule.
    Counts(Vec<(Counter, Counted)>),
}

/// Where it goes.
pub type Onward = mpsc::Sender<Told>;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Alike(Cause, IpAddr, IpAddr, Carried, Option<String>);

#[derive(Debug)]
struct Known {
    source: End,
    destination: End,
    blame: Option<Blame>,
}

/// The desk.
#[derive(Debug)]
pub struct Desk {
    onward: Onward,
    tenants: Tenants,
    waiting: VecDeque<(Instant, Record, Sample)>,
    known: HashMap<Alike, Known>,
    known_since: Instant,
    /// Something was told since those who wait were looked at.
    news: bool,
    /// Reports that found no room behind us.
    pub lost: u64,
}

impl Desk {
    /// A desk that hands on to the hub.
    pub fn new(onward: Onward) -> Self {
        Self {
            onward,
            tenants: Tenants::default(),
            waiting: VecDeque::new(),
            known: HashMap::new(),
            known_since: Instant::now(),
            news: false,
            lost: 0,
        }
    }

    /// Takes note of a change before the engine does.
    pub fn note(&mut self, change: &Change, engine: &Engine, beginning: Beginning) {
        self.tenants.note(change, engine.cluster(), Timestamp::now(), beginning);
        self.known.clear();
        self.news = true;
    }

    /// Deals with what came.
    pub fn take(&mut self, taken: Taken, engine: &Engine, now: Instant) {
        match taken {
            Taken::Records(records) => {
                records.into_iter().for_each(|(record, sample)| self.record(record, sample, engine, now));
            }
            Taken::Counters(counters) => {
                let drops = |counter: Counter| Some((engine.counted(&counter)?, counter));
                let told =
                    counters.into_iter().filter_map(drops).map(|(counted, counter)| (counter, counted));
                self.tell(Told::Counts(told.collect()));
            }
        }
    }

    /// Deals with what has waited long enough, or need not wait any more.
    pub fn settle(&mut self, engine: &Engine, now: Instant) {
        if std::mem::take(&mut self.news) {
            for (due, record, sample) in std::mem::take(&mut self.waiting) {
                let (report, certainty) =
                    attribute::report(engine, &self.tenants, record.clone(), sample.clone());
                match certainty {
                    Certainty::Settled => self.tell(Told::Drop(Box::new(report))),
                    Certainty::Early => self.waiting.push_back((due, record, sample)),
                }
            }
        }
        while self.waiting.front().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, record, sample)) = self.waiting.pop_front() else { return };
            let (report, _) = attribute::report(engine, &self.tenants, record, sample);
            self.tell(Told::Drop(Box::new(report)));
        }
    }

    /// When to settle next.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|(due, ..)| *due)
    }

    fn record(&mut self, record: Record, sample: Sample, engine: &Engine, now: Instant) {
        if now.duration_since(self.known_since) > FRESH || self.known.len() >= MOST_KNOWN {
            self.known.clear();
            self.known_since = now;
        }
        let alike = alike(&record);
        if let Some(Known { source, destination, blame }) = self.known.get(&alike) {
            let (source, destination, blame) = (source.clone(), destination.clone(), blame.clone());
            return self.tell(Told::Drop(Box::new(Report { record, source, destination, blame, sample })));
        }
        let waits = record.clone();
        let (report, certainty) = attribute::report(engine, &self.tenants, record, sample.clone());
        if certainty == Certainty::Early && self.waiting.len() < MOST_WAITING {
            return self.waiting.push_back((now + PATIENCE, waits, sample));
        }
        let Report { source, destination, blame, .. } = report.clone();
        self.known.insert(alike, Known { source, destination, blame });
        self.tell(Told::Drop(Box::new(report)));
    }

    fn tell(&mut self, told: Told) {
        if self.onward.try_send(told).is_err() {
            self.lost += 1;
        }
    }
}

fn alike(record: &Record) -> Alike {
    let Record { source, destination, carried, cause, arrived_by, .. } = record;
    Alike(cause.clone(), *source, *destination, carried.without_source(), arrived_by.clone())
}

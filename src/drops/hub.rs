//! Where every drop comes together: named, counted, shown to whoever looks, and told in events.
//!
//! One task, which never waits for anybody: DNS is asked beside it, and so is the API server.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use podwall_engine::explain::Counted;
use podwall_engine::model::ban::Mode;
use podwall_ruleset::Counter;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use super::events::desk::{Job, Noted, Written};
use super::events::{Desk, Form, Key, writer};
use super::memo::Told;
use super::record::Cause;
use super::report::{Report, Reporting, Side, Who};
use super::reverse::{Look, Names, Resolver};
use super::tally::Tally;
use crate::telemetry::metrics::{
    DropEventResult, DroppedLabels, Metrics, NamespacesLabels, PolicyLabels, RecordResult,
};

/// Drops that may wait for the hub.
pub const QUEUE: usize = 4096;
/// Drops that whoever looks on may lag behind.
const LAG: usize = 1024;
/// Drops that wait for a name.
const MOST_HELD: usize = 1024;
/// Series of one metric that has names in its labels; what is beyond goes to `other`.
const MOST_SERIES: usize = 1000;
/// Records of a source from which on it may have been sampled: a second's worth.
const SAMPLED: u64 = 10;
/// What came through so late tells nobody anything new.
pub const EXPIRED: Duration = Duration::from_secs(600);

/// A drop as those see it who look on.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The drop.
    pub report: Arc<Report>,
    /// What DNS says of its stranger.
    pub reverse: Option<String>,
}

/// Where drops are shown.
#[derive(Debug, Clone)]
pub struct Live(broadcast::Sender<Seen>);

impl Default for Live {
    fn default() -> Self {
        Self(broadcast::channel(LAG).0)
    }
}

impl Live {
    /// From now on.
    pub fn look(&self) -> broadcast::Receiver<Seen> {
        self.0.subscribe()
    }
}

/// What the hub is given.
pub struct Setup {
    /// This node.
    pub node: String,
    /// What events look like.
    pub form: Form,
    /// Where events go; `None`: nowhere.
    pub client: Option<kube::Client>,
    /// Who knows names of strangers; `None`: nobody is asked.
    pub resolver: Option<Arc<dyn Resolver>>,
    /// Where drops are shown.
    pub live: Live,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
    /// How many records are kept for each second and source.
    pub rate: u32,
    /// What comes through later than this is told nobody.
    pub expiry: Duration,
}

/// One flow, for the tally: the events it counts in, and its namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Flow {
    keys: Vec<Key>,
    src: String,
    dst: String,
}

type Writing = BoxFuture<'static, (Key, u64, Written, Kind)>;
type Asking = BoxFuture<'static, (IpAddr, Option<String>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Create,
    Read,
    Count,
}

struct Hub {
    client: Option<kube::Client>,
    expiry: Duration,
    desk: Desk,
    names: Names,
    live: Live,
    metrics: Arc<Metrics>,
    tally: Tally<Flow>,
    held: HashMap<IpAddr, Vec<Report>>,
    holding: usize,
    asking: FuturesUnordered<Asking>,
    writing: FuturesUnordered<Writing>,
    counted: BTreeMap<String, (u64, u64)>,
    looked: Looked,
    writes: Writes,
    policies: BTreeSet<(String, &'static str)>,
    namespaces: BTreeSet<(String, String)>,
}

/// What came of the last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    Done,
    Failed,
}

/// Were the kernel's counters looked at before?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    Never,
    Before,
}

/// Runs until nobody is left who tells of drops.
pub async fn run(setup: Setup, mut told: mpsc::Receiver<Told>) {
    let mut hub = Hub::new(setup);
    loop {
        let now = Instant::now();
        hub.write(now);
        // One write at a time: the next is looked for when it is done.
        let due = if hub.writing.is_empty() { hub.desk.next_due(now) } else { None };
        tokio::select! {
            next = told.recv() => match next {
                Some(told) => hub.told(told),
                None => return,
            },
            Some((address, name)) = hub.asking.next() => hub.named(address, name),
            Some((key, count, written, kind)) = hub.writing.next() => hub.written(&key, count, written, kind),
            () = sleep_until(due) => {}
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Hub {
    fn new(setup: Setup) -> Self {
        Self {
            client: setup.client,
            expiry: setup.expiry,
            desk: Desk::new(setup.node, setup.form, Instant::now()),
            names: Names::new(setup.resolver),
            live: setup.live,
            metrics: setup.metrics,
            tally: Tally::new(SAMPLED.min(u64::from(setup.rate)).max(1)),
            held: HashMap::new(),
            holding: 0,
            asking: FuturesUnordered::new(),
            writing: FuturesUnordered::new(),
            counted: BTreeMap::new(),
            looked: Looked::Never,
            writes: Writes::Done,
            policies: BTreeSet::new(),
            namespaces: BTreeSet::new(),
        }
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Drop(report) => self.name(*report),
            Told::Counts(counts) => self.counts(&counts),
        }
    }

    /// Holds a drop until its stranger has a name, or will have none.
    fn name(&mut self, report: Report) {
        let now = Instant::now();
        let Some(address) = stranger(&report) else { return self.publish(report, None) };
        let look = self.names.look(address, now);
        match look {
            Look::Known(name) => self.publish(report, name),
            Look::Ask | Look::Asked => {
                if look == Look::Ask {
                    self.asking.push(self.names.ask(address));
                }
                if self.holding >= MOST_HELD {
                    return self.publish(report, None);
                }
                self.holding += 1;
                self.held.entry(address).or_default().push(report);
            }
        }
    }

    fn named(&mut self, address: IpAddr, name: Option<String>) {
        self.names.learn(address, name.clone(), Instant::now());
        for report in self.held.remove(&address).unwrap_or_default() {
            self.holding -= 1;
            self.publish(report, name.clone());
        }
    }

    fn publish(&mut self, report: Report, reverse: Option<String>) {
        let age = jiff::Timestamp::now().duration_since(report.record.at);
        if age.unsigned_abs() > self.expiry && age.is_positive() {
            return self.record(RecordResult::Expired);
        }
        let muted = Side::BOTH.iter().any(|side| report.end(*side).reporting == Reporting::Off);
        self.record(if muted { RecordResult::Muted } else { RecordResult::Told });
        let report = Arc::new(report);
        let keys = self.events(&report, reverse.as_deref());
        let space = |side| report.end(side).namespace().unwrap_or_default().to_owned();
        let flow = Flow { keys, src: space(Side::Sending), dst: space(Side::Receiving) };
        self.count_namespaces(&flow, 1);
        if let Cause::Ours(chain) = &report.record.cause {
            self.tally.record(chain, report.record.source, flow);
        }
        // Nobody may look just now.
        drop(self.live.0.send(Seen { report, reverse }));
    }

    fn events(&mut self, report: &Report, reverse: Option<&str>) -> Vec<Key> {
        if self.client.is_none() {
            return Vec::new();
        }
        let now = Instant::now();
        let mut keys = Vec::new();
        for side in Side::BOTH.into_iter().filter(|side| report.concerns(*side)) {
            match self.desk.note(report, side, reverse, now) {
                Noted::In(key) => keys.push(key),
                Noted::Nobody => {}
                Noted::Full => self.event(DropEventResult::Full),
            }
        }
        keys
    }

    /// Starts the next write, if one is due and none is under way.
    fn write(&mut self, now: Instant) {
        let Some(client) = self.client.clone().filter(|_| self.writing.is_empty()) else { return };
        let Some((key, job)) = self.desk.next(now) else { return };
        let count = self.desk.count_of(&key);
        let kind = match &job {
            Job::Create(_) => Kind::Create,
            Job::Read(_) => Kind::Read,
            Job::Count(..) => Kind::Count,
        };
        let writing = writer::write(client, job);
        self.writing.push(Box::pin(async move { (key, count, writing.await, kind) }));
    }

    fn written(&mut self, key: &Key, count: u64, written: Written, kind: Kind) {
        match (written, kind) {
            (Written::Done, Kind::Create) => self.event(DropEventResult::Created),
            (Written::Done, Kind::Count | Kind::Read) => self.event(DropEventResult::Counted),
            (Written::Failed, _) => self.event(DropEventResult::Failed),
            (Written::Refused, _) => self.event(DropEventResult::Refused),
            (Written::Exists | Written::Found(_) | Written::Missing, _) => {}
        }
        self.say(if written == Written::Failed { Writes::Failed } else { Writes::Done });
        self.desk.done(key, written, count, Instant::now());
    }

    /// Once for each time the API server goes and comes.
    fn say(&mut self, now: Writes) {
        match (std::mem::replace(&mut self.writes, now), now) {
            (Writes::Done, Writes::Failed) => tracing::warn!(
                "events about dropped packets cannot be written just now; what they tell of is counted meanwhile"
            ),
            (Writes::Failed, Writes::Done) => {
                tracing::info!("events about dropped packets are written again")
            }
            (Writes::Done, Writes::Done) | (Writes::Failed, Writes::Failed) => {}
        }
    }

    /// What the kernel counted, since it was looked at last.
    fn counts(&mut self, counts: &[(Counter, Counted)]) {
        let mut by_chain: BTreeMap<String, u64> = BTreeMap::new();
        let mut now: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (counter, counted) in counts {
            *by_chain.entry(counter.chain.to_string()).or_default() += counter.packets;
            let rule = format!("{} {}", counter.chain, counter.rule);
            let before = match (self.looked, self.counted.get(&rule)) {
                (Looked::Before, Some((packets, bytes))) if *packets <= counter.packets => (*packets, *bytes),
                // It was made anew.
                (Looked::Before, Some(_) | None) => (0, 0),
                // What earlier agents saw is not ours to count.
                (Looked::Never, _) => (counter.packets, counter.bytes),
            };
            self.count(counted, counter.packets - before.0, counter.bytes.saturating_sub(before.1));
            now.insert(rule, (counter.packets, counter.bytes));
        }
        (self.counted, self.looked) = (now, Looked::Before);
        let at = Instant::now();
        for (flow, packets) in self.tally.look(&by_chain) {
            flow.keys.iter().for_each(|key| self.desk.more(key, packets, at));
            self.count_namespaces(&flow, packets);
        }
    }

    fn count(&mut self, counted: &Counted, packets: u64, bytes: u64) {
        if packets == 0 {
            return;
        }
        let direction = match counted.tail.direction() {
            Some(podwall_engine::model::Direction::Ingress) => "ingress",
            Some(podwall_engine::model::Direction::Egress) => "egress",
            None => "",
        };
        let mode = match counted.mode {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
        };
        let labels = DroppedLabels { reason: counted.tail.as_str(), direction, mode };
        self.metrics.dropped_packets.get_or_create(&labels).inc_by(packets);
        self.metrics.dropped_bytes.get_or_create(&labels).inc_by(bytes);
        for policy in &counted.policies {
            let key = (policy.to_string(), direction);
            let known = self.policies.contains(&key) || self.policies.len() < MOST_SERIES;
            let labels = if known {
                self.policies.insert(key);
                PolicyLabels {
                    kind: policy.kind.as_str(),
                    policy_namespace: policy.namespace.to_string(),
                    policy: policy.name.to_string(),
                    direction,
                }
            } else {
                let (policy_namespace, policy) = (String::new(), "other".to_owned());
                PolicyLabels { kind: "", policy_namespace, policy, direction }
            };
            self.metrics.policy_dropped_packets.get_or_create(&labels).inc_by(packets);
            self.metrics.policy_dropped_bytes.get_or_create(&labels).inc_by(bytes);
        }
    }

    fn count_namespaces(&mut self, flow: &Flow, packets: u64) {
        let key = (flow.src.clone(), flow.dst.clone());
        let known = self.namespaces.contains(&key) || self.namespaces.len() < MOST_SERIES;
        let labels = if known {
            self.namespaces.insert(key);
            NamespacesLabels { src: flow.src.clone(), dst: flow.dst.clone() }
        } else {
            NamespacesLabels { src: "other".to_owned(), dst: "other".to_owned() }
        };
        self.metrics.packet_drops.get_or_create(&labels).inc_by(i64::try_from(packets).unwrap_or(i64::MAX));
    }

    fn record(&self, result: RecordResult) {
        self.metrics.drop_records.get_or_create(&result.into()).inc();
    }

    fn event(&self, result: DropEventResult) {
        self.metrics.drop_events.get_or_create(&result.into()).inc();
    }
}

/// The end that is nobody's in the cluster, if one is.
fn stranger(report: &Report) -> Option<IpAddr> {
    let ends = [&report.source, &report.destination];
    ends.into_iter().find(|end| end.who == Who::Stranger).map(|end| end.address)
}

#[cfg(test)]
mod tests;

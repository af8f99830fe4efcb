//! Reads records of dropped packets from the kernel, looks at the counters now and then, and starts whoever tells of
//! them.
//!
//! A thread, because netlink sockets block. In a flood it reads as much as it can tell of and sleeps: what it leaves in
//! the kernel is lost there, and counted.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use podwall_engine::Options;
use podwall_engine::compile::names::LOG_PREFIX;
use podwall_netlink::nflog::{Logged, Nflog};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::work::{Work, Works};
use crate::drops::events::Form;
use crate::drops::hub::{self, Live};
use crate::drops::memo::{Onward, Taken};
use crate::drops::packet;
use crate::drops::record::{Cause, Record};
use crate::drops::report::Sample;
use crate::drops::reverse::{Dns, Resolver};
use crate::telemetry::health::Concern;
use crate::telemetry::metrics::RecordResult;
use crate::telemetry::server::Telemetry;

/// Batches that may wait for the planner.
const QUEUE: usize = 64;
/// How soon the thread notices that it is no longer needed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon a group that cannot be read is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Records told of in one window, and how long that is: more would tell nobody more.
const MOST: u64 = 400;
const WINDOW: Duration = Duration::from_millis(100);
/// How long the name of an interface is believed: their numbers are used again only after all others were.
const NAMES: Duration = Duration::from_secs(60);
/// How often counters are looked at while something is dropped, and otherwise.
const OFTEN: Duration = Duration::from_secs(5);
const SELDOM: Duration = Duration::from_secs(30);

/// How dropped packets are told of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DropSettings {
    /// What events look like; `None`: there are none.
    pub events: Option<Form>,
    /// Whether strangers are called as DNS calls them.
    pub reverse_dns: ReverseDns,
}

/// Whether strangers are called as DNS calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ReverseDns {
    /// The node's own name servers are asked
    #[default]
    On,
    /// Nobody is asked
    Off,
}

/// Without name servers strangers go by their addresses.
pub(crate) fn resolver(choice: ReverseDns) -> Option<Arc<dyn Resolver>> {
    match choice {
        ReverseDns::Off => None,
        ReverseDns::On => match Dns::of_host() {
            Ok(dns) => Some(Arc::new(dns)),
            Err(error) => {
                tracing::info!(%error, "addresses outside the cluster are told without names");
                None
            }
        },
    }
}

/// What telling of drops needs.
pub struct Site<'a> {
    /// This node.
    pub node: String,
    /// What the operator chose.
    pub settings: DropSettings,
    /// Where events go, if there is an API server.
    pub client: Option<kube::Client>,
    /// How records are made.
    pub options: &'a Options,
    /// The apply thread.
    pub works: Works,
    /// Metrics and health.
    pub telemetry: Telemetry,
}

/// What others hold of it.
#[derive(Debug)]
pub struct Ends {
    /// For the planner, to tell.
    pub onward: Onward,
    /// For the planner, to hear.
    pub taken: mpsc::Receiver<Taken>,
    /// For whoever looks on.
    pub live: Live,
}

/// Starts the thread that hears, and the tasks that count and tell.
pub fn start(site: Site<'_>, tasks: &mut JoinSet<&'static str>) -> std::io::Result<Ends> {
    let (onward, told) = mpsc::channel(hub::QUEUE);
    let (taking, taken) = mpsc::channel(QUEUE);
    let (live, heard) = (Live::default(), Arc::default());
    let setup = hub::Setup {
        node: site.node,
        client: site.client.filter(|_| site.settings.events.is_some()),
        form: site.settings.events.unwrap_or_default(),
        resolver: resolver(site.settings.reverse_dns),
        live: live.clone(),
        metrics: Arc::clone(&site.telemetry.metrics),
        rate: site.options.log_rate,
        expiry: hub::EXPIRED,
    };
    tasks.spawn(async move {
        hub::run(setup, told).await;
        "hub of drops"
    });
    let look = look(site.works, taking.clone(), Arc::clone(&heard));
    tasks.spawn(async move {
        look.await;
        "reader of counters"
    });
    let (group, copy, telemetry) = (site.options.log_group, site.options.log_snaplen, site.telemetry);
    let ear = Ear { group, copy, onward: taking, heard, telemetry };
    std::thread::Builder::new().name("podwall-drops".to_owned()).spawn(move || listen(&ear))?;
    Ok(Ends { onward, taken, live })
}

/// Where records are read, and where they go.
#[derive(Debug, Clone)]
struct Ear {
    /// NFLOG group.
    group: u16,
    /// Bytes of each packet.
    copy: u32,
    /// The planner.
    onward: mpsc::Sender<Taken>,
    /// How many were read so far.
    heard: Arc<AtomicU64>,
    /// Metrics and health.
    telemetry: Telemetry,
}

/// Reads until nobody takes what is read.
fn listen(ear: &Ear) {
    while !ear.onward.is_closed() {
        let mut log = match Nflog::open(ear.group, ear.copy) {
            Ok(log) => log,
            Err(error) => {
                let words = format!(
                    "nothing is told of dropped packets: {error} (does another program read NFLOG group {}? choose \
                     another with --drop-log-group)",
                    ear.group
                );
                ear.telemetry.health.raise(Concern::Drops, words);
                std::thread::sleep(AGAIN);
                continue;
            }
        };
        ear.telemetry.health.clear(Concern::Drops);
        if let Err(error) = ear.read(&mut log) {
            tracing::warn!(error = &error as &dyn std::error::Error, "reading records of dropped packets");
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

impl Ear {
    fn read(&self, log: &mut Nflog) -> Result<(), podwall_netlink::Error> {
        let mut links = Links::default();
        let (mut window, mut read) = (Instant::now(), 0);
        while !self.onward.is_closed() {
            let mut records = Vec::new();
            let mut malformed = 0;
            let heard = log.next(PATIENCE, &mut |logged| match record(logged, &mut links) {
                Some(record) => records.push(record),
                None => malformed += 1,
            })?;
            self.count(RecordResult::LostKernel, heard.lost);
            self.count(RecordResult::Malformed, heard.malformed + malformed);
            self.heard.fetch_add(heard.packets, Ordering::Relaxed);
            if !records.is_empty() {
                self.hand_on(records);
            }
            if window.elapsed() >= WINDOW {
                (window, read) = (Instant::now(), 0);
            }
            read += heard.packets;
            if read >= MOST {
                std::thread::sleep(WINDOW.saturating_sub(window.elapsed()));
            }
        }
        Ok(())
    }

    fn hand_on(&self, records: Vec<(Record, Sample)>) {
        let number = records.len() as u64;
        if self.onward.try_send(Taken::Records(records)).is_err() {
            self.count(RecordResult::LostQueue, number);
        }
    }

    fn count(&self, result: RecordResult, number: u64) {
        if number > 0 {
            self.telemetry.metrics.drop_records.get_or_create(&result.into()).inc_by(number);
        }
    }
}

/// A record of ours; `None`: it is not, or cannot be read.
fn record(logged: &Logged<'_>, links: &mut Links) -> Option<(Record, Sample)> {
    let chain = logged.prefix.strip_prefix(LOG_PREFIX)?.strip_prefix(':')?;
    let chain = chain.strip_suffix(':').unwrap_or(chain);
    let headers = packet::read(logged.packet)?;
    let record = Record {
        at: Timestamp::now(),
        source: headers.source,
        destination: headers.destination,
        carried: headers.carried,
        arrived_by: logged.arrived_by.and_then(|index| links.name(index)),
        leaving_by: logged.leaving_by.and_then(|index| links.name(index)),
        cause: Cause::Ours(chain.to_owned()),
    };
    Some((record, Sample { bytes: logged.packet.into(), length: headers.length }))
}

/// Names of interfaces, by number.
#[derive(Default)]
struct Links {
    socket: Option<rustix::fd::OwnedFd>,
    names: HashMap<u32, (String, Instant)>,
}

impl Links {
    fn name(&mut self, index: u32) -> Option<String> {
        if let Some((name, since)) = self.names.get(&index)
            && since.elapsed() < NAMES
        {
            return Some(name.clone());
        }
        if self.socket.is_none() {
            let (family, kind) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM);
            self.socket = rustix::net::socket(family, kind, None).ok();
        }
        let name = rustix::net::netdevice::index_to_name(self.socket.as_ref()?, index).ok()?;
        if self.names.len() > 4096 {
            self.names.clear();
        }
        self.names.insert(index, (name.clone(), Instant::now()));
        Some(name)
    }
}

/// Looks at the counters until nobody takes what is seen.
async fn look(works: Works, onward: mpsc::Sender<Taken>, heard: Arc<AtomicU64>) {
    let mut before = 0;
    let mut rested = SELDOM;
    loop {
        let now = heard.load(Ordering::Relaxed);
        if now != before || rested >= SELDOM {
            (before, rested) = (now, Duration::ZERO);
            let (reply, answer) = oneshot::channel();
            if works.send(Work::Counters(reply)).is_err() {
                return;
            }
            match answer.await {
                Ok(Ok(counters)) => {
                    if onward.send(Taken::Counters(counters)).await.is_err() {
                        return;
                    }
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "reading counters");
                    rested = SELDOM;
                }
                Err(_) => return,
            }
        }
        tokio::time::sleep(OFTEN).await;
        rested += OFTEN;
    }
}

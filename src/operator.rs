//! The operator: node reports in, status of bans and exposures out.
//!
//! ```text
//! mirror (nodes, nodereports, bans, serviceexposures) --> fleet, ledger --round--> writer --> API server
//!                                              lease --^
//! ```
//!
//! Owns who leads, when a round is worked out, and how the parts are put together. Agents enforce without it: it only
//! tells what they report, and deletes what is over. `fleet`, `object`, `verdict` and `ledger` are pure.
pub mod fleet;
pub mod lease;
pub mod ledger;
pub mod mirror;
pub mod object;
pub mod telemetry;
pub mod verdict;
pub mod writer;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::DynamicObject;
use podwall_crd::ResourceVersion;
use podwall_crd::node_report::NodeReportSpec;
use serde::Deserialize as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::agent::{self, AgentError};
use fleet::{Fleet, Node, Patience};
use lease::{Candidate, Lost};
use ledger::{Clock, Ledger, Write};
use mirror::{Collection, Heard};
use object::{Key, Object};
use telemetry::Telemetry;
use writer::Written;

/// Least time between two rounds.
const ROUND: Duration = Duration::from_millis(250);
/// A round may take this part of the operator's time at most.
const SHARE: u32 = 10;
/// How often the loop turns even if nothing happens.
const TICK: Duration = Duration::from_secs(5);
/// Messages that may wait; a page of a list is 500.
const QUEUE: usize = 1024;

/// Everything that can be chosen.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The API server; without a file, the one of the cluster this process runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Where the lease is.
    pub namespace: String,
    /// Who this replica is.
    pub identity: String,
    /// Where metrics and health are served.
    pub listen: SocketAddr,
    /// How long the lease lasts unless renewed.
    pub lease: Duration,
    /// How long a ban that is over stays, and the report of a node that is gone.
    pub delete_after: Duration,
    /// How long a node that joined may take before it is waited for.
    pub joining: Duration,
    /// Requests a second that change something.
    pub writes_per_second: u32,
}

/// Why the operator could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// There is no way to the API server.
    #[error(transparent)]
    Client(AgentError),
    /// An address or signal cannot be had.
    #[error("{doing}")]
    Io {
        /// The step.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It no longer leads; a restart makes it a candidate again.
    #[error(transparent)]
    Lost(Lost),
    /// A part of it stopped by itself.
    #[error("the {0} stopped unexpectedly")]
    Died(&'static str),
}

/// Runs until SIGTERM or SIGINT, or until somebody else leads.
pub fn run(settings: Settings) -> Result<(), OperatorError> {
    let failed = |source| OperatorError::Io { doing: "starting the runtime".to_owned(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let result = runtime.block_on(start(settings));
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn start(settings: Settings) -> Result<(), OperatorError> {
    let (client, _) =
        agent::client::client(settings.kubeconfig.as_deref()).await.map_err(OperatorError::Client)?;
    let listener = TcpListener::bind(settings.listen).await.map_err(|source| OperatorError::Io {
        doing: format!("listening on {} (choose another with --listen)", settings.listen),
        source,
    })?;
    let telemetry = Arc::new(Telemetry::default());
    let mut tasks = JoinSet::new();
    let shared = Arc::clone(&telemetry);
    tasks.spawn(async move {
        if let Err(error) = telemetry::serve(listener, shared).await {
            tracing::error!(%error, "serving metrics and health");
        }
        "HTTP server"
    });
    tracing::info!(identity = settings.identity, "podwall operator {} starts", env!("CARGO_PKG_VERSION"));
    let identity = settings.identity.clone();
    let mut candidate = Candidate::new(client.clone(), &settings.namespace, identity, settings.lease);
    let result = tokio::select! {
        stopped = stop() => stopped,
        ended = tasks.join_next() => Err(died(ended)),
        lost = lead(&mut candidate, client, settings, telemetry) => lost,
    };
    if result.is_ok() {
        candidate.release().await;
    }
    result
}

fn died(ended: Option<Result<&'static str, tokio::task::JoinError>>) -> OperatorError {
    OperatorError::Died(ended.and_then(Result::ok).unwrap_or("a task"))
}

async fn stop() -> Result<(), OperatorError> {
    let failed = |source| OperatorError::Io { doing: "listening for signals".to_owned(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping; agents go on by themselves"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping; agents go on by themselves"),
    }
    Ok(())
}

/// Waits for its turn, then works until it is over.
async fn lead(
    candidate: &mut Candidate,
    client: Client,
    settings: Settings,
    telemetry: Arc<Telemetry>,
) -> Result<(), OperatorError> {
    {
        // A candidate that only waits is alive.
        let beat = async {
            loop {
                telemetry.turn();
                tokio::time::sleep(TICK).await;
            }
        };
        tokio::select! {
            () = candidate.win() => {}
            () = beat => {}
        }
    }
    tracing::info!("leading");
    telemetry.leading.set(1);
    let (heard, received) = mpsc::channel(QUEUE);
    let mut mirrors = JoinSet::new();
    for collection in Collection::ALL {
        let following = mirror::follow(client.clone(), collection, heard.clone());
        mirrors.spawn(async move {
            following.await;
            "watch"
        });
    }
    let operator = Operator::new(client, &settings, telemetry);
    tokio::select! {
        lost = candidate.hold() => Err(OperatorError::Lost(lost)),
        ended = mirrors.join_next() => Err(died(ended)),
        () = operator.turn(received) => Err(OperatorError::Died("main loop")),
    }
}

/// The main loop's state.
struct Operator {
    client: Client,
    telemetry: Arc<Telemetry>,
    fleet: Fleet,
    ledger: Ledger,
    /// Collections not yet read whole: until then nothing is written.
    missing: BTreeSet<Collection>,
    budget: Budget,
    next_round: Option<Instant>,
    earliest: Instant,
}

impl Operator {
    fn new(client: Client, settings: &Settings, telemetry: Arc<Telemetry>) -> Self {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let delete_after = seconds(settings.delete_after);
        let patience = Patience { joining: seconds(settings.joining), forget_after: delete_after };
        let now = Instant::now();
        Self {
            client,
            telemetry,
            fleet: Fleet::new(patience),
            ledger: Ledger::new(delete_after),
            missing: Collection::ALL.into(),
            budget: Budget::new(settings.writes_per_second, now),
            next_round: None,
            earliest: now,
        }
    }

    async fn turn(mut self, mut received: mpsc::Receiver<Heard>) {
        loop {
            let wake = self.next_round.map_or_else(|| Instant::now() + TICK, |next| next.max(self.earliest));
            tokio::select! {
                biased;
                heard = received.recv() => match heard {
                    Some(heard) => self.take_in(heard),
                    None => return,
                },
                () = tokio::time::sleep_until(wake) => {}
            }
            self.telemetry.turn();
            let now = Instant::now();
            if self.missing.is_empty() && self.next_round.is_some_and(|next| now >= next.max(self.earliest)) {
                self.round(&mut received).await;
            }
        }
    }

    fn soon(&mut self) {
        let now = Instant::now();
        self.next_round = Some(self.next_round.map_or(now, |next| next.min(now)));
    }

    fn take_in(&mut self, heard: Heard) {
        let changed = match heard {
            Heard::Put(collection, object) => self.put(collection, *object),
            Heard::Gone(Collection::Nodes, _, name) => {
                self.fleet.node_gone(&name);
                true
            }
            Heard::Gone(Collection::Reports, _, name) => {
                self.fleet.report_gone(&name);
                true
            }
            Heard::Gone(collection, namespace, name) => {
                if let Some(kind) = collection.reported() {
                    self.ledger.gone(&Key { kind, namespace, name });
                }
                false
            }
            Heard::Complete(collection) => {
                self.missing.remove(&collection);
                true
            }
        };
        if changed {
            self.soon();
        }
    }

    /// Takes an object in; answers whether anything could follow from it.
    fn put(&mut self, collection: Collection, object: DynamicObject) -> bool {
        let name = object.metadata.name.clone().unwrap_or_default();
        match collection {
            Collection::Nodes => {
                let labels = object.metadata.labels.unwrap_or_default();
                let born = object.metadata.creation_timestamp.map(|time| time.0).unwrap_or_default();
                self.fleet.node(name, Node { labels, born })
            }
            Collection::Reports => self.report(&name, &object),
            Collection::Bans | Collection::Exposures | Collection::Domains => {
                let Some(kind) = collection.reported() else { return false };
                let key =
                    Key { kind, namespace: object.metadata.namespace.clone().unwrap_or_default(), name };
                let Some((key, object)) = Object::read(object, self.ledger.get(&key)) else { return false };
                self.ledger.put(key, object, Instant::now())
            }
        }
    }

    fn report(&mut self, name: &str, object: &DynamicObject) -> bool {
        let version = object.metadata.resource_version.as_deref().and_then(ResourceVersion::parse);
        let spec = object.data.get("spec").map(NodeReportSpec::deserialize).transpose();
        match (spec, version) {
            (Ok(spec), Some(version)) => self.fleet.report(name, version, spec.unwrap_or_default()),
            (Err(error), _) => {
                tracing::warn!("nodereport {name} cannot be read and counts as empty: {error}");
                self.fleet.report(name, ResourceVersion::NONE, NodeReportSpec::default());
            }
            (Ok(_), None) => return false,
        }
        true
    }

    /// Works out what to write, and writes it; what is heard meanwhile is taken in between two requests.
    async fn round(&mut self, received: &mut mpsc::Receiver<Heard>) {
        let clock = Clock::now();
        let budget = self.budget.whole(clock.steady);
        let round = self.ledger.round(&mut self.fleet, clock, budget);
        let took = clock.steady.elapsed();
        self.telemetry.round_seconds.observe(took.as_secs_f64());
        self.count();
        self.next_round = round.next.map(|wait| Instant::now() + wait);
        self.earliest = Instant::now() + ROUND.max(took * SHARE);
        for write in round.writes {
            self.budget.spend();
            self.write(write).await;
            while let Ok(heard) = received.try_recv() {
                self.take_in(heard);
            }
        }
    }

    async fn write(&mut self, write: Write) {
        let written = writer::write(&self.client, &write).await;
        let now = Instant::now();
        if let Written::Failed(reason) = &written {
            self.telemetry.failed_writes.inc();
            tracing::warn!("{}: {reason}", doing(&write));
        }
        match (write, written) {
            (Write::Status(key, status), Written::Done) => {
                self.telemetry.status_writes.inc();
                self.ledger.written(&key, *status, now);
            }
            (Write::Delete(key, _), Written::Done) => {
                self.telemetry.deletions.inc();
                self.ledger.refused(&key, now);
            }
            (Write::Forget(_), Written::Done) => drop(self.telemetry.deletions.inc()),
            (Write::Status(key, _) | Write::Delete(key, _), Written::Failed(_)) => {
                self.ledger.refused(&key, now);
                self.soon();
            }
            (Write::Forget(_), Written::Failed(_)) => {}
        }
    }

    fn count(&self) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (nodes, reports) = self.fleet.counts();
        self.telemetry.nodes.set(gauge(nodes));
        self.telemetry.reports.set(gauge(reports));
        self.telemetry.objects.set(gauge(self.ledger.len()));
    }
}

fn doing(write: &Write) -> String {
    match write {
        Write::Status(key, _) => format!("writing the status of {:?} {}", key.kind, key.name),
        Write::Delete(key, _) => format!("deleting {:?} {}, whose time is over", key.kind, key.name),
        Write::Forget(name) => format!("deleting the report of {name}, which is gone"),
    }
}

/// A token bucket of requests.
#[derive(Debug)]
struct Budget {
    each_second: u32,
    tokens: f64,
    filled: Instant,
}

impl Budget {
    const fn new(each_second: u32, now: Instant) -> Self {
        Self { each_second, tokens: each_second as f64, filled: now }
    }

    /// Whole tokens there are now; at most a second's worth are saved.
    fn whole(&mut self, now: Instant) -> usize {
        let rate = f64::from(self.each_second);
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * rate).min(rate);
        self.filled = now;
        self.tokens.max(0.0) as usize
    }

    fn spend(&mut self) {
        self.tokens -= 1.0;
    }
}

#[cfg(test)]
mod tests;

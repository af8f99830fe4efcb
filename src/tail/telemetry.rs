//! What `podwall tail` counts, and where it is asked: `/metrics`, `/healthz`, `/readyz`.
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::line::Unread;
use super::source::Loss;
use crate::drops::record::Record;
use crate::telemetry::server::{self, metrics_page};

/// The reader turns several times a second; after this long without it hangs.
const HANGING: Duration = Duration::from_secs(90);
/// How often it is said that drops are expired.
const REMIND: Duration = Duration::from_secs(600);

/// What became of a line that tells of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is reported.
    Drop,
    /// It is too old.
    Expired,
    /// It has another prefix.
    OtherPrefix,
    /// Another program than the kernel wrote it.
    NotTheKernel,
    /// It does not say when.
    NoTime,
    /// It is not about IP.
    NotIp,
    /// A field is missing or makes no sense.
    Broken,
}

impl From<Unread> for Outcome {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::OtherPrefix => Self::OtherPrefix,
            Unread::NotTheKernel => Self::NotTheKernel,
            Unread::NoTime => Self::NoTime,
            Unread::NotIp => Self::NotIp,
            Unread::NoPacket | Unread::Broken(_) => Self::Broken,
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        use fmt::Write as _;
        encoder.write_str(match self {
            Self::Drop => "drop",
            Self::Expired => "expired",
            Self::OtherPrefix => "other_prefix",
            Self::NotTheKernel => "not_the_kernel",
            Self::NoTime => "no_time",
            Self::NotIp => "not_ip",
            Self::Broken => "broken",
        })
    }
}

impl EncodeLabelValue for Loss {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        use fmt::Write as _;
        encoder.write_str(match self {
            Self::TooLong => "line_too_long",
            Self::RotatedAway => "rotated_away",
            Self::Damaged => "journal_damaged",
        })
    }
}

/// The label of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// What became of it.
    pub outcome: Outcome,
}

/// The label of a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LossLabel {
    /// Of what.
    pub reason: Loss,
}

/// What is counted. Cloning a metric shares it.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    /// What is counted as the agent counts it.
    pub(super) shared: server::Telemetry,
    turned: Mutex<Instant>,
    warned: Mutex<Option<Instant>>,
    named: AtomicBool,
    lines: Family<OutcomeLabel, Counter>,
    losses: Family<LossLabel, Counter>,
    source: Gauge,
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::default();
        let (lines, losses, source) = (Family::default(), Family::default(), Gauge::default());
        let tail = registry.sub_registry_with_prefix("podwall_tail");
        tail.register(
            "lines",
            "Lines of the log that tell of a packet, by what became of them",
            Family::clone(&lines),
        );
        tail.register("losses", "What could not be read, by reason", Family::clone(&losses));
        tail.register("source_stands", "1 while there is a log to read", Gauge::clone(&source));
        Self {
            registry,
            shared: server::Telemetry::default(),
            turned: Mutex::new(Instant::now()),
            warned: Mutex::new(None),
            named: AtomicBool::new(false),
            lines,
            losses,
            source,
        }
    }
}

impl Telemetry {
    /// The reader turns.
    pub(super) fn turn(&self) {
        *self.turned.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn read(&self, outcome: Outcome) {
        self.lines.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn lose(&self, losses: &[Loss]) {
        for reason in losses.iter().copied() {
            self.losses.get_or_create(&LossLabel { reason }).inc();
        }
    }

    /// A drop is too old. Silence would look like peace, so now and then that is said.
    pub(super) fn expire(&self, record: &Record, now: Timestamp) {
        self.read(Outcome::Expired);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() > REMIND) {
            *warned = Some(Instant::now());
            let age = now.duration_since(record.at).as_secs() / 60;
            tracing::warn!(
                "drops too old to be told are passed over: one is {age} minutes old; \
                 if it was just written, see --time-zone"
            );
        }
    }

    pub(super) fn stands(&self, stands: bool) {
        self.source.set(i64::from(stands));
    }

    /// The cluster was read, so that names are known.
    pub fn names_are_known(&self) {
        self.named.store(true, Ordering::Relaxed);
    }

    fn concerns(&self) -> Vec<&'static str> {
        let source = (self.source.get() == 0).then_some("there is no log to read");
        let names = (!self.named.load(Ordering::Relaxed)).then_some("the cluster's pods were not read yet");
        source.into_iter().chain(names).collect()
    }

    fn page(&self) -> Result<String, fmt::Error> {
        let mut page = shared(&self.shared.metrics.page()?);
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// What means the same here as on the agent's page; all else there is about rules, of which there are none here.
const SHARED: [&str; 6] = [
    "packet_drops_count",
    "podwall_build",
    "podwall_drop_events",
    "podwall_drop_records",
    "podwall_resident_memory_bytes",
    "podwall_watch_connected",
];

fn shared(page: &str) -> String {
    let name = |line: &str| {
        let line = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")).unwrap_or(line);
        line.split([' ', '{']).next().unwrap_or_default().to_owned()
    };
    let is_shared = |line: &&str| {
        let name = name(line);
        SHARED.iter().any(|shared| {
            name.strip_prefix(shared).is_some_and(|rest| matches!(rest, "" | "_total" | "_info"))
        })
    };
    page.lines().filter(is_shared).map(|line| format!("{line}\n")).collect()
}

/// Answers until the task is dropped.
pub async fn serve(listener: TcpListener, telemetry: Arc<Telemetry>) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(telemetry);
    axum::serve(listener, routes).await
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> Response {
    metrics_page(telemetry.page())
}

async fn healthz(State(telemetry): State<Arc<Telemetry>>) -> Response {
    let turned = *telemetry.turned.lock().unwrap_or_else(PoisonError::into_inner);
    if turned.elapsed() > HANGING {
        return (StatusCode::INTERNAL_SERVER_ERROR, "hanging: the reader\n").into_response();
    }
    "alive\n".into_response()
}

async fn readyz(State(telemetry): State<Arc<Telemetry>>) -> Response {
    let concerns = telemetry.concerns();
    if concerns.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", concerns.join("\n"))).into_response()
}

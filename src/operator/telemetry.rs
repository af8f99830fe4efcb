//! The operator's metrics and endpoints. Apart from the agent's: it shares none of its workers or concerns.
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::telemetry::server::metrics_page;

/// The main loop turns every few seconds; after this long without it hangs.
const HANGING: Duration = Duration::from_secs(90);
/// Upper bounds in seconds: from a handful of objects to 100,000 on 5,000 nodes.
const SECONDS: [f64; 10] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// What is counted. Cloning a metric shares it.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    turned: Mutex<Instant>,
    /// 1 while this replica leads.
    pub leading: Gauge,
    /// Bans and exposures known.
    pub objects: Gauge,
    /// Nodes known.
    pub nodes: Gauge,
    /// Node reports known.
    pub reports: Gauge,
    /// Statuses written.
    pub status_writes: Counter,
    /// Objects deleted because their time was over, and reports of nodes that are gone.
    pub deletions: Counter,
    /// Requests the API server refused or did not answer.
    pub failed_writes: Counter,
    /// How long working out one round took.
    pub round_seconds: Histogram,
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("podwall_operator");
        let telemetry = Self {
            registry: Registry::default(),
            turned: Mutex::new(Instant::now()),
            leading: Gauge::default(),
            objects: Gauge::default(),
            nodes: Gauge::default(),
            reports: Gauge::default(),
            status_writes: Counter::default(),
            deletions: Counter::default(),
            failed_writes: Counter::default(),
            round_seconds: Histogram::new(SECONDS),
        };
        registry.register("leading", "1 while this replica leads", telemetry.leading.clone());
        registry.register("objects", "Bans and exposures known", telemetry.objects.clone());
        registry.register("nodes", "Nodes known", telemetry.nodes.clone());
        registry.register("reports", "Node reports known", telemetry.reports.clone());
        registry.register("status_writes", "Statuses written", telemetry.status_writes.clone());
        registry.register(
            "deletions",
            "Objects whose time was over and reports of nodes that are gone, deleted",
            telemetry.deletions.clone(),
        );
        registry.register(
            "failed_writes",
            "Requests the API server refused or did not answer",
            telemetry.failed_writes.clone(),
        );
        registry.register(
            "round_seconds",
            "Seconds it took to work out what to write",
            telemetry.round_seconds.clone(),
        );
        Self { registry, ..telemetry }
    }
}

impl Telemetry {
    /// The main loop turns.
    pub fn turn(&self) {
        *self.turned.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_hanging(&self) -> bool {
        self.turned.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > HANGING
    }

    fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// Answers until the task is dropped.
pub async fn serve(listener: TcpListener, telemetry: Arc<Telemetry>) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        // A replica that waits for the lease is as ready as the one that leads.
        .route("/readyz", get(|| async { "ready\n" }))
        .with_state(telemetry);
    axum::serve(listener, routes).await
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> Response {
    metrics_page(telemetry.page())
}

async fn healthz(State(telemetry): State<Arc<Telemetry>>) -> Response {
    if telemetry.is_hanging() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "hanging\n").into_response();
    }
    "alive\n".into_response()
}

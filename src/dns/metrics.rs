//! What the proxy counts, and where it is read.
use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::upstream::Transport;

/// How a query came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByTransport {
    /// `udp` or `tcp`.
    transport: &'static str,
}

impl From<Transport> for ByTransport {
    fn from(transport: Transport) -> Self {
        let transport = match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        Self { transport }
    }
}

/// Why a query or its answer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub enum Refusal {
    /// No pod that may use names has this address.
    Stranger,
    /// The pod may not ask this server.
    Server,
    /// A public name with a private address.
    Rebinding,
    /// The kernel did not confirm the addresses in time.
    Unconfirmed,
    /// The pod holds as many addresses for these names as it may.
    Full,
    /// The pod has too many questions open.
    Busy,
    /// The server did not answer.
    Silent,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: Refusal,
}

/// Counters, gauges and histograms.
#[derive(Debug)]
pub struct Metrics {
    queries: Family<ByTransport, Counter>,
    refused: Family<ByReason, Counter>,
    /// Lessons that were told to the agent.
    pub told: Counter,
    /// Answers whose addresses were all known to stand.
    pub known: Counter,
    /// What the proxy adds to a query, beside the server's own time.
    pub added_seconds: Histogram,
    /// Pods whose queries are taken.
    pub pods: Gauge,
    /// Whether the agent is there.
    pub agent: Gauge,
    registry: Registry,
}

impl Default for Metrics {
    fn default() -> Self {
        let bounds =
            [0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.5, 2.0];
        let mut metrics = Self {
            queries: Family::default(),
            refused: Family::default(),
            told: Counter::default(),
            known: Counter::default(),
            added_seconds: Histogram::new(bounds),
            pods: Gauge::default(),
            agent: Gauge::default(),
            registry: Registry::with_prefix("podwall_dns"),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("queries", "Queries of pods, by how they came", self.queries.clone());
        registry.register("refused", "Queries or answers that were refused, by reason", self.refused.clone());
        registry.register("lessons", "Addresses that the agent was told to open", self.told.clone());
        registry.register("known", "Answers whose addresses were known to be open", self.known.clone());
        let added = self.added_seconds.clone();
        registry.register("added_seconds", "What the proxy adds to the time a query takes", added);
        registry.register("pods", "Addresses of pods whose queries are taken", self.pods.clone());
        registry.register("agent_connected", "Whether the agent is there", self.agent.clone());
    }

    /// A query came.
    pub fn query(&self, transport: Transport) {
        self.queries.get_or_create(&transport.into()).inc();
    }

    /// One was refused.
    pub fn refuse(&self, reason: Refusal) {
        self.refused.get_or_create(&ByReason { reason }).inc();
    }

    fn page(&self) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// Answers until the task is dropped.
pub async fn serve(listener: tokio::net::TcpListener, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let page = move || {
        let page = metrics.page();
        async move { respond(page) }
    };
    let routes = Router::new().route("/metrics", get(page)).route("/healthz", get(async || "alive\n"));
    axum::serve(listener, routes).await
}

fn respond(page: Result<String, std::fmt::Error>) -> Response {
    /// <https://prometheus.io/docs/specs/om/open_metrics_spec/#content-type>
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match page {
        Ok(page) => ([(header::CONTENT_TYPE, OPEN_METRICS)], page).into_response(),
        Err(error) => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

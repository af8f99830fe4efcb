//! The HTTP endpoints: `/metrics`, `/healthz`, `/readyz`. Owns addresses and formats, no meaning.
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::health::Health;
use super::metrics::Metrics;

/// What the endpoints read.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Readiness and liveness.
    pub health: Arc<Health>,
}

impl Default for Telemetry {
    fn default() -> Self {
        let metrics = Arc::new(Metrics::default());
        Self { health: Arc::new(Health::new(Arc::clone(&metrics))), metrics }
    }
}

/// Takes the address, so that a port in use is noticed before anything else is done.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until the task is dropped.
pub async fn serve(listener: TcpListener, telemetry: Telemetry) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(telemetry);
    axum::serve(listener, routes).await
}

async fn metrics(State(telemetry): State<Telemetry>) -> Response {
    metrics_page(telemetry.metrics.page())
}

/// A page of metrics as scrapers want it.
pub fn metrics_page(page: Result<String, std::fmt::Error>) -> Response {
    /// <https://prometheus.io/docs/specs/om/open_metrics_spec/#content-type>
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match page {
        Ok(page) => ([(header::CONTENT_TYPE, OPEN_METRICS)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn healthz(State(telemetry): State<Telemetry>) -> Response {
    let hanging = telemetry.health.hanging();
    if hanging.is_empty() {
        return "alive\n".into_response();
    }
    (StatusCode::INTERNAL_SERVER_ERROR, format!("hanging: {hanging:?}\n")).into_response()
}

async fn readyz(State(telemetry): State<Telemetry>, headers: HeaderMap) -> Response {
    let report = telemetry.health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let wants_json = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    if wants_json {
        return (status, axum::Json(report)).into_response();
    }
    (status, report.to_string()).into_response()
}

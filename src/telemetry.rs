//! What podwall tells the outside about itself: metrics, health, Kubernetes events, logs. Decides nothing.
pub mod events;
pub mod health;
pub mod log;
pub mod metrics;
pub mod server;

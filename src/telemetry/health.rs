//! Health and readiness: what keeps this node from keeping its promises, each reason with a line that says what to
//! do.
//!
//! Whoever notices a reason raises it here and clears it when it is gone; each change is logged once. Liveness is
//! apart: it fails only when a worker has stopped turning, because a restart cures nothing else.
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use serde::Serialize;

use super::metrics::{Metrics, label, values};

label! {
    /// Why a node is not ready, or what is worth knowing while it is.
    ConcernLabel { concern: Concern }
    /// Objects are still being read for the first time.
    Caches = "caches",
    /// The first commit has not been made.
    Uncommitted = "uncommitted",
    /// Commits do not go through; the last good rules stand.
    Commits = "commits",
    /// There is no node of our name.
    NodeName = "node_name",
    /// Bridged traffic passes by our rules.
    Bridge = "bridge",
    /// A pod hangs where its packets are not seen, or not told from others'.
    Unseen = "unseen",
    /// The kernel cannot check reverse paths: forged sources pass.
    SpoofGuard = "spoof_guard",
    /// VLAN-tagged frames between bridged pods pass by our rules.
    BridgeVlan = "bridge_vlan",
    /// IPv6 rules cannot be loaded on a host that speaks IPv6.
    Ipv6 = "ipv6",
    /// kube-proxy runs in IPVS mode.
    Ipvs = "ipvs",
    /// The node's pod range cannot be told, so new pods are not kept shut until they are judged.
    PodRange = "pod_range",
    /// The host's interfaces and routes cannot be read.
    Links = "links",
    /// Somebody asked for the rules to be removed.
    TornDown = "torn_down",
    /// A watch is down; what is known is enforced.
    Watch = "watch",
    /// Addresses of API servers cannot be read, so that bans may name them.
    ApiServers = "api_servers",
    /// Manifest files cannot be read; their last good content is enforced.
    Manifests = "manifests",
    /// The kernel refused chains of some policies, or they need more than a node bears; their pods are shut. Or chains of
    /// bans, which are not in force, or of doors, which are shut.
    Refused = "refused",
    /// Something about the packet filter that carries the rules is worth knowing.
    Backend = "backend",
    /// Rules of an earlier agent stand in another packet filter and cannot be taken out.
    Remains = "remains",
    /// Conntrack cannot be asked; flows that a policy no longer allows live on until they end.
    Flows = "flows",
    /// Records of dropped packets cannot be read: nothing is told of drops.
    Drops = "drops",
    /// Pods have policies of names, and no DNS proxy is there: names open nothing.
    Names = "names",
    /// This node's NodeReport cannot be written; the operator does not hear what is enforced here.
    Report = "report",
}

/// Whether a concern keeps the node from being ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// A promise is broken.
    Blocks,
    /// Everything known is enforced, but people should know.
    Told,
}

impl Concern {
    /// A restart of the API server must not make a fleet unready: what is only told does not block.
    pub const fn weight(self) -> Weight {
        match self {
            Self::Caches
            | Self::Uncommitted
            | Self::Commits
            | Self::NodeName
            | Self::Bridge
            | Self::Unseen
            | Self::SpoofGuard
            | Self::Ipv6
            | Self::Ipvs
            | Self::PodRange
            | Self::Links
            | Self::TornDown
            | Self::Remains => Weight::Blocks,
            Self::BridgeVlan
            | Self::Watch
            | Self::ApiServers
            | Self::Manifests
            | Self::Refused
            | Self::Backend
            | Self::Flows
            | Self::Drops
            | Self::Names
            | Self::Report => Weight::Told,
        }
    }
}

/// Workers whose standstill is a reason to restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worker {
    /// Turns changes into deltas.
    Planner,
    /// Owns the kernel.
    Apply,
}

/// A worker shows itself every few seconds; after this long without, it hangs. A full load of a large node takes a
/// second or two.
const HANGING: Duration = Duration::from_secs(90);

/// The shared board.
#[derive(Debug)]
pub struct Health {
    metrics: Arc<Metrics>,
    board: Mutex<Board>,
}

#[derive(Debug, Default)]
struct Board {
    concerns: BTreeMap<Concern, String>,
    seen: BTreeMap<Worker, Instant>,
}

/// What `/readyz` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Every promise is kept.
    pub ready: bool,
    /// What blocks, and what is worth knowing.
    pub concerns: Vec<Finding>,
}

/// One concern with its words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which, as in metrics.
    pub concern: &'static str,
    /// Does it block?
    pub weight: Weight,
    /// What is the matter and what to do.
    pub detail: String,
}

impl Health {
    /// A board that starts out with the first commit missing.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let health = Self { metrics, board: Mutex::default() };
        health.board().concerns.insert(Concern::Uncommitted, "nothing was committed yet".to_owned());
        health.publish();
        health
    }

    /// Notes a concern, or new words for it; logs what changed.
    pub fn raise(&self, concern: Concern, detail: impl Into<String>) {
        let detail = detail.into();
        let before = self.board().concerns.insert(concern, detail.clone());
        if before.as_ref() == Some(&detail) {
            return;
        }
        match concern.weight() {
            // New words for an old concern, and the wait at the start that every agent has.
            _ if before.is_some() || concern == Concern::Caches => {
                tracing::info!(concern = concern.as_str(), "{detail}");
            }
            Weight::Blocks => tracing::error!(concern = concern.as_str(), "not ready: {detail}"),
            Weight::Told => tracing::warn!(concern = concern.as_str(), "{detail}"),
        }
        self.publish();
    }

    /// The concern is gone.
    pub fn clear(&self, concern: Concern) {
        if self.board().concerns.remove(&concern).is_some() {
            tracing::info!(concern = concern.as_str(), ready = self.report().ready, "no longer a concern");
            self.publish();
        }
    }

    /// Raises the concern when there are words for it, clears it otherwise.
    pub fn set(&self, concern: Concern, detail: Option<String>) {
        match detail {
            Some(detail) => self.raise(concern, detail),
            None => self.clear(concern),
        }
    }

    /// Everything on the board.
    pub fn report(&self) -> Report {
        let concerns: Vec<Finding> = self.board().concerns.iter().map(Finding::of).collect();
        Report { ready: concerns.iter().all(|finding| finding.weight == Weight::Told), concerns }
    }

    /// A worker shows that it turns.
    pub fn beat(&self, worker: Worker) {
        self.board().seen.insert(worker, Instant::now());
    }

    /// The workers that have not shown themselves for too long.
    pub fn hanging(&self) -> Vec<Worker> {
        let board = self.board();
        board.seen.iter().filter(|(_, seen)| seen.elapsed() > HANGING).map(|(worker, _)| *worker).collect()
    }

    fn publish(&self) {
        let report = self.report();
        self.metrics.ready.set(i64::from(report.ready));
        self.metrics.concerns.clear();
        for concern in self.board().concerns.keys() {
            self.metrics.concerns.get_or_create(&(*concern).into()).set(1);
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // Each lock holder leaves the maps whole, so a panic elsewhere does not spoil them.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Finding {
    fn of((concern, detail): (&Concern, &String)) -> Self {
        Self { concern: concern.as_str(), weight: concern.weight(), detail: detail.clone() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.ready { "ready\n" } else { "not ready\n" })?;
        for finding in &self.concerns {
            let weight = match finding.weight {
                Weight::Blocks => "blocks",
                Weight::Told => "told",
            };
            writeln!(f, "{weight} {}: {}", finding.concern, finding.detail)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(Arc::new(Metrics::default()))
    }

    #[test]
    fn a_node_is_ready_once_nothing_blocks_and_what_is_told_does_not_block() {
        let health = health();
        assert_eq!(health.report().to_string(), "not ready\nblocks uncommitted: nothing was committed yet\n");
        health.clear(Concern::Uncommitted);
        health.raise(Concern::Watch, "pods: connection refused");
        assert_eq!(health.report().to_string(), "ready\ntold watch: pods: connection refused\n");
        assert!(health.metrics.page().unwrap().contains("podwall_concerns{concern=\"watch\"} 1\n"));
    }

    #[test]
    fn a_cleared_concern_leaves_the_metrics_too() {
        let health = health();
        health.set(Concern::Bridge, Some("bridged traffic passes by".to_owned()));
        health.set(Concern::Bridge, None);
        assert!(!health.metrics.page().unwrap().contains("bridge"));
    }

    #[test]
    fn a_worker_that_turns_does_not_hang() {
        let health = health();
        health.beat(Worker::Apply);
        assert_eq!(health.hanging(), []);
    }
}

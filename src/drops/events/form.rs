//! What an event about a drop looks like.
use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::desk::{Key, Peer};
use crate::drops::line::{Line, Packets};
use crate::drops::report::{End, Report, Side, Who};
use crate::drops::words::{self, PodName};
use crate::telemetry::events::cut;

/// The annotation with all that is known of the first packet, as JSON.
pub const DROP_ANNOTATION: &str = "podwall.dev/drop";
/// `note` may have 1024 bytes (`validation/events.go`).
const NOTE_LIMIT: usize = 1024;

/// What an operator chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// `reason`.
    pub reason: String,
    /// `reportingController`.
    pub component: String,
    /// How much is said.
    pub text: Text,
    /// What pods are called.
    pub names: PodName,
    /// How often the count of one that goes on is written, at most.
    pub interval: Duration,
}

/// How much an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Text {
    /// Who, which port, which policy, and which rule came closest
    #[default]
    Full,
    /// Who and which port, word for word as kube-iptables-tailer
    Short,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            reason: "PacketDrop".to_owned(),
            component: "podwall.dev/agent".to_owned(),
            text: Text::default(),
            names: PodName::default(),
            interval: Duration::from_secs(120),
        }
    }
}

/// The object an event is about; `None`: it is no object.
pub fn regarding(end: &End) -> Option<ObjectReference> {
    let some = |text: &str| Some(text.to_owned());
    match &end.who {
        Who::Pod(pod) => Some(ObjectReference {
            api_version: some("v1"),
            kind: some("Pod"),
            namespace: some(&pod.namespace),
            name: some(&pod.name),
            uid: some(&pod.uid.0),
            ..ObjectReference::default()
        }),
        // Events of the kubelet bear the node's name for its UID, and kubectl looks for those.
        Who::Node(node) => Some(ObjectReference {
            api_version: some("v1"),
            kind: some("Node"),
            name: some(&node.0),
            uid: some(&node.0),
            ..ObjectReference::default()
        }),
        Who::Service(_) | Who::Stranger => None,
    }
}

impl Form {
    /// The event as it is written first.
    pub fn event(&self, report: &Report, key: &Key, node: &str, reverse: Option<&str>) -> Event {
        let side = key.side;
        let regarding = regarding(report.end(side)).unwrap_or_default();
        let name = regarding.name.as_deref().unwrap_or_default();
        let line = Line::of(report, node, reverse, Packets::Without);
        let annotation = serde_json::to_string(&line).unwrap_or_default();
        let some = |text: &str| Some(text.to_owned());
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{}", cut(name, 200), key.digest(node))),
                namespace: Some(regarding.namespace.clone().unwrap_or_else(|| "default".to_owned())),
                annotations: Some(BTreeMap::from([(DROP_ANNOTATION.to_owned(), annotation)])),
                ..ObjectMeta::default()
            },
            event_time: Some(micro(report.record.at)),
            action: some(if report.is_audit() { "Audit" } else { "Drop" }),
            reason: Some(self.reason.clone()),
            type_: some("Warning"),
            note: Some(cut(&self.note(report, key, reverse), NOTE_LIMIT)),
            related: if key.peer == Peer::Many { None } else { self::regarding(report.other(side)) },
            regarding: Some(regarding),
            reporting_controller: Some(self.component.clone()),
            reporting_instance: Some(cut(node, 128)),
            ..Event::default()
        }
    }

    fn note(&self, report: &Report, key: &Key, reverse: Option<&str>) -> String {
        if key.peer == Peer::Many {
            let doing = match key.side {
                Side::Sending => "sending traffic to",
                Side::Receiving => "receiving traffic from",
            };
            return format!(
                "Packets dropped when {doing} many others or on many ports; `podwall drops` lists them"
            );
        }
        let sentence = words::sentence(report, key.side, &self.names, reverse);
        let why = match self.text {
            Text::Full => words::why(report),
            Text::Short => String::new(),
        };
        if why.is_empty() { sentence } else { format!("{sentence}: {why}") }
    }
}

/// As events write times.
pub fn micro(at: Timestamp) -> MicroTime {
    MicroTime(at)
}

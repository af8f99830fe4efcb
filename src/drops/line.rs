//! A drop as one line of JSON: what `podwall drops --output json` prints, the control socket carries, and an event's
//! annotation holds.
//!
//! Plain text and numbers only, so that a program written against it never needs to know ours.
use podwall_engine::explain::Blame;
use serde::{Deserialize, Serialize};

use super::record::{Carried, Cause};
use super::report::{End, Report, Side, Who};
use super::words::{self, PodName};

/// One drop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// RFC 3339, by the clock of the node.
    pub time: String,
    /// The node that dropped it.
    pub node: String,
    /// `dropped`, or `would-drop` for what is only audited.
    pub verdict: String,
    /// policy, ban, exposure, pending, forged, nameless, refused, stray, other.
    pub reason: String,
    /// `ingress` or `egress`, where it is a pod's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    /// TCP, UDP, ..., or a number.
    pub protocol: String,
    /// Type and code of ICMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, u8)>,
    /// Who sent it.
    pub source: EndLine,
    /// Whom it was for.
    pub destination: EndLine,
    /// Policies that isolate, `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// The rule that denies: `policy ingress[0]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The rule that came closest to allowing it: `policy ingress[0]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
    /// What did not fit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misses: Option<String>,
    /// Bans of one of the ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bans: Vec<String>,
    /// Our chain, or the other firewall's prefix.
    pub chain: String,
    /// Interface of arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived_by: Option<String>,
    /// Interface it would have left by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving_by: Option<String>,
    /// All of the reason in words.
    pub why: String,
    /// Packets, where several were told at once.
    #[serde(default = "one")]
    pub packets: u64,
    /// The packet's bytes in hexadecimal, as far as they were copied, when they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
    /// Its length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
}

/// One end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndLine {
    /// Its address.
    pub address: String,
    /// Its port, where there are ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// pod, node, service, stranger.
    pub kind: String,
    /// Of pods and Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The object's name, or what DNS says of a stranger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// What made the pod: `Deployment web`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The pod's node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Services whose pod it is, `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
}

const fn one() -> u64 {
    1
}

/// Whether a line carries the packet's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packets {
    /// It does not.
    #[default]
    Without,
    /// It does.
    With,
}

impl Line {
    /// That of a report. `reverse`: what DNS says of its stranger.
    pub fn of(report: &Report, node: &str, reverse: Option<&str>, packets: Packets) -> Self {
        let carried = report.record.carried;
        let chain = match &report.record.cause {
            Cause::Ours(chain) => chain.clone(),
            Cause::Theirs(prefix) => prefix.clone(),
        };
        let mut line = Self {
            time: report.record.at.to_string(),
            node: node.to_owned(),
            verdict: if report.is_audit() { "would-drop" } else { "dropped" }.to_owned(),
            reason: report.reason().to_owned(),
            direction: report.direction().map(|direction| direction.to_string()),
            protocol: words::protocol_name(carried.protocol()),
            icmp: match carried {
                Carried::Icmp { kind, code, .. } => Some((kind, code)),
                Carried::Ports { .. } | Carried::Other(_) => None,
            },
            source: EndLine::of(report, Side::Sending, reverse),
            destination: EndLine::of(report, Side::Receiving, reverse),
            policies: Vec::new(),
            rule: None,
            nearest: None,
            misses: None,
            bans: Vec::new(),
            chain,
            arrived_by: report.record.arrived_by.clone(),
            leaving_by: report.record.leaving_by.clone(),
            why: words::why(report),
            packets: 1,
            sample: None,
            length: (report.sample.length > 0).then_some(report.sample.length),
        };
        line.blame(report.blame.as_ref());
        match packets {
            Packets::With => line.sample = Some(hex(&report.sample.bytes)),
            Packets::Without => {}
        }
        line
    }

    fn blame(&mut self, blame: Option<&Blame>) {
        match blame {
            Some(Blame::Policies { policies, decided, nearest, .. }) => {
                self.policies = policies.iter().map(ToString::to_string).collect();
                self.rule = decided.as_ref().map(|decided| format!("{} {}", decided.policy, decided.rule));
                self.nearest = nearest.as_ref().map(|nearest| format!("{} {}", nearest.policy, nearest.rule));
                self.misses = nearest.as_ref().map(|nearest| nearest.misses.clone());
            }
            Some(Blame::Bans(_, bans)) => self.bans = bans.iter().map(ToString::to_string).collect(),
            Some(Blame::Doors(..) | Blame::Fixed(_)) | None => {}
        }
    }

    /// `TCP/8080`, `ICMP 8/0`, `ESP`.
    pub fn service(&self) -> String {
        match (self.icmp, self.destination.port) {
            (Some((kind, code)), _) => format!("{} {kind}/{code}", self.protocol),
            (None, Some(port)) => format!("{}/{port}", self.protocol),
            (None, None) => self.protocol.clone(),
        }
    }
}

impl EndLine {
    fn of(report: &Report, side: Side, reverse: Option<&str>) -> Self {
        let end: &End = report.end(side);
        let port = match side {
            Side::Sending => report.record.carried.source_port(),
            Side::Receiving => report.record.carried.port(),
        };
        let line = Self { address: end.address.to_string(), port, ..Self::default() };
        let services = end.services.iter().map(ToString::to_string).collect();
        let some = |text: &str| Some(text.to_owned());
        match &end.who {
            Who::Pod(pod) => Self {
                kind: "pod".to_owned(),
                namespace: some(&pod.namespace),
                name: some(&pod.name),
                uid: some(&pod.uid.0),
                workload: pod.workload.as_ref().map(ToString::to_string),
                node: pod.node.as_ref().map(ToString::to_string),
                services,
                ..line
            },
            Who::Node(node) => Self { kind: "node".to_owned(), name: some(&node.0), ..line },
            Who::Service(service) => Self {
                kind: "service".to_owned(),
                namespace: some(&service.namespace),
                name: some(&service.name),
                ..line
            },
            Who::Stranger => Self { kind: "stranger".to_owned(), name: reverse.map(str::to_owned), ..line },
        }
    }

    /// `shop/web`, a node's name, or an address.
    pub fn label(&self) -> String {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            (None, Some(name)) => name.clone(),
            (_, None) => self.address.clone(),
        }
    }
}

/// Names pods in full, whatever events call them.
pub const NAMES: PodName = PodName::NamespacedName;

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

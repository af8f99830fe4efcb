//! `ServiceExposure`: who outside the cluster may reach a Service through the doors it has on nodes.
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::condition::{Condition, LastError, NodeCounts};
use crate::selector::LabelSelector;

/// Which Services, and who may reach them from outside. Outside is whoever is neither a pod nor a node; a Service that
/// any exposure selects is closed to them but for what some exposure allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "podwall.dev",
    version = "v1alpha1",
    kind = "ServiceExposure",
    plural = "serviceexposures",
    shortname = "svcx",
    category = "podwall",
    status = "ServiceExposureStatus",
    derive = "PartialEq",
    namespaced,
    doc = "A ServiceExposure says who outside the cluster may reach Services of its namespace through a node port, a load balancer address, an external IP or a host port; judged by the client's real address, on every node.",
    printcolumn(
        name = "Enforced",
        type_ = "string",
        json_path = ".status.enforcedOn",
        description = "On how many nodes"
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct ServiceExposureSpec {
    /// Which Services of the namespace this is about.
    pub services: ServiceChoice,
    /// Who may reach them; what any entry allows is allowed, also if it is another object's. Empty or absent: nobody
    /// outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub allow: Vec<ExposureRule>,
    /// Whether packets are refused (`Enforce`), or only counted and logged as if they were (`Audit`).
    #[serde(default)]
    pub mode: ExposureMode,
}

/// Services, by name or by label: exactly one of both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.names) != has(self.selector)").message("give exactly one of names and selector"))]
pub struct ServiceChoice {
    /// Their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub names: Option<Vec<String>>,
    /// Their own labels (not those of their pods). The empty selector `{}` means every Service of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Some clients, and the ports they may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExposureRule {
    /// Who. Everybody is `0.0.0.0/0` and `::/0`: leaving it out must not open a door.
    #[schemars(length(min = 1, max = 64))]
    pub from: Vec<ExposureSource>,
    /// Which ports of the Service. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub ports: Option<Vec<ExposurePort>>,
}

/// A block of client addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.except) || !isCIDR(self.cidr) || self.except.all(e, !isCIDR(e) || (cidr(self.cidr).containsCIDR(e) && cidr(e).prefixLength() > cidr(self.cidr).prefixLength()))").message("each must be a strict part of cidr").field_path(".except"))]
pub struct ExposureSource {
    /// The block, without bits beyond its prefix: `203.0.113.0/24`, `2001:db8::/48`, `192.0.2.7/32`.
    #[schemars(length(min = 4, max = 43), transform = crate::definitions::cidr_only)]
    pub cidr: String,
    /// Parts of it that are not meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 4, max = 43)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"), transform = crate::definitions::cidrs_only)]
    pub except: Vec<String>,
}

/// One port of a Service, whatever number it has on the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.name) != has(self.port)").message("give exactly one of name and port"))]
pub struct ExposurePort {
    /// The port's name in the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: Option<String>,
    /// The port's number in the Service (`spec.ports[].port`, not the node port).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The protocol that goes with `port`. Absent: TCP. A name needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<ServiceProtocol>,
}

/// The protocols a Service can have.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum ServiceProtocol {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp,
}

/// Whether packets are refused.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum ExposureMode {
    /// They are.
    #[default]
    Enforce,
    /// They pass, and are counted and logged.
    Audit,
}

/// What came of an exposure; written by the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceExposureStatus {
    /// The `metadata.generation` that all of this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The resource version with which that generation was first seen; nodes whose mark is at least this have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub observed_version: Option<String>,
    /// `Accepted` and `Enforced`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// On how many nodes it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// The same for people: `37/37`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub enforced_on: Option<String>,
    /// The last node that cannot enforce it, and why. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

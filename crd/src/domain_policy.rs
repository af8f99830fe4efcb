//! `DomainPolicy`: which names pods may talk to, and nothing else.
//!
//! Owns what it may say. What a name matches is the engine's; addresses are learned by `podwall dns`.
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::condition::{Condition, LastError, NodeCounts};
use crate::selector::LabelSelector;

/// What stands for the cluster's own DNS in [`DomainPolicySpec::dns_servers`].
pub const CLUSTER_DNS: &str = "ClusterDNS";

/// Whom it isolates, and what they may reach all the same. Policies add up, among each other and with NetworkPolicies:
/// what any of them allows is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "podwall.dev",
    version = "v1alpha1",
    kind = "DomainPolicy",
    plural = "domainpolicies",
    shortname = "dompol",
    category = "podwall",
    status = "DomainPolicyStatus",
    derive = "PartialEq",
    namespaced,
    doc = "A DomainPolicy lets pods of its namespace talk to domain names, and to nothing else. Their DNS queries are seen on their way, and an address is open to the pod that asked before the answer reaches it.",
    printcolumn(
        name = "Enforced",
        type_ = "string",
        json_path = ".status.enforcedOn",
        description = "On how many nodes"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct DomainPolicySpec {
    /// Which pods of the namespace. The empty selector `{}` means all of them.
    pub pod_selector: LabelSelector,
    /// What they may talk to; empty or absent: nothing but the DNS servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub egress: Vec<DomainRule>,
    /// Ports on which they may be reached, by anybody. Absent: this policy says nothing about inbound. Empty: by nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub listening_ports: Option<Vec<DomainPort>>,
    /// Whom they may ask for names: `ClusterDNS` or addresses. Absent: `ClusterDNS`. Empty: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), inner(length(min = 2, max = 39)), transform = crate::definitions::dns_servers_only)]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub dns_servers: Option<Vec<String>>,
    /// What becomes of answers that give a name outside the cluster a private or local address, which is how a stranger
    /// makes a pod talk to its own neighbours.
    #[serde(default)]
    pub private_answers: PrivateAnswers,
}

/// Some names and networks, and the ports on which they may be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.domains) || has(self.cidrs)").message("give domains, cidrs or both"))]
pub struct DomainRule {
    /// Names: `example.com` is that name alone, `*.example.com` every name below it and not itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 128),
        inner(
            length(min = 3, max = 255),
            regex(
                pattern = r"^(\*\.)?([A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?\.)+[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?\.?$"
            )
        ),
        transform = crate::definitions::names_only
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub domains: Vec<String>,
    /// Networks, without bits beyond their prefix: `192.0.2.0/24`, `2001:db8::/32`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 128), inner(length(min = 4, max = 43)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"), transform = crate::definitions::cidrs_only)]
    pub cidrs: Vec<String>,
    /// Which ports. Absent: every port of every protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub ports: Option<Vec<DomainPort>>,
}

/// A protocol, and ports of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.endPort) || (has(self.port) && self.endPort >= self.port)").message("needs port, and may not be below it").field_path(".endPort"))]
pub struct DomainPort {
    /// The protocol. Absent: TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<DomainProtocol>,
    /// The port. Absent: all of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The last of a range that begins with `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<i32>,
}

/// Protocols with ports.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum DomainProtocol {
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

/// What becomes of a private address in an answer for a name outside the cluster.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum PrivateAnswers {
    /// The whole answer is refused.
    #[default]
    Refuse,
    /// It is an address like any other: for names of your own networks.
    Allow,
}

/// What came of a policy; written by the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainPolicyStatus {
    /// The `metadata.generation` that all of this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The resource version with which that generation was first seen; nodes whose mark is at least this have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub observed_version: Option<String>,
    /// `Accepted`, `Enforced` and `Resolved`.
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
    /// Names that were asked for and never had an address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 255)))]
    pub unresolved: Vec<String>,
    /// Names with more addresses than a pod may learn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 255)))]
    pub at_capacity: Vec<String>,
    /// The last node that cannot enforce it, and why. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

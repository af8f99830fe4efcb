//! `NodeReport`: what the agent of one node has put into force. The operator rolls them up into the status of bans and
//! exposures.
//!
//! Kept small (decision B4): how far the agent has come with each kind, and by name only what it could not do. So a
//! cluster of 5,000 nodes with 100,000 bans costs one object of about a kilobyte a node.
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// At most this many exceptions are told by name.
pub const MOST_EXCEPTIONS: usize = 50;
/// At most this many bans are told with their hits.
pub const MOST_HITS: usize = 50;
/// At most this many names are told of.
pub const MOST_NAMES: usize = 50;

/// What the agent of the node of the same name reports. There is no `status`: the whole object is the agent's word,
/// and nobody else may write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "podwall.dev",
    version = "v1alpha1",
    kind = "NodeReport",
    plural = "nodereports",
    shortname = "nr",
    category = "podwall",
    derive = "PartialEq",
    doc = "A NodeReport says what the agent of the node of the same name has put into force. Agents write them; they are not meant to be edited.",
    printcolumn(
        name = "Ready",
        type_ = "boolean",
        json_path = ".spec.ready",
        description = "Every promise is kept"
    ),
    printcolumn(
        name = "Backend",
        type_ = "string",
        json_path = ".spec.backend",
        description = "The packet filter that carries the rules"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".spec.version",
        description = "The agent's version"
    ),
    printcolumn(
        name = "Exceptions",
        type_ = "integer",
        json_path = ".spec.exceptionCount",
        description = "Objects that are not in force here though they should be"
    ),
    printcolumn(
        name = "Reported",
        type_ = "date",
        json_path = ".spec.reportedAt",
        description = "When something last changed"
    )
)]
pub struct NodeReportSpec {
    /// The agent's version.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub version: String,
    /// The packet filter in use: `nftables`, `iptables-nft` or `iptables-legacy`.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub backend: String,
    /// Whether the agent keeps every promise just now (its `/readyz`).
    #[serde(default)]
    pub ready: bool,
    /// Why it does not, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 512)))]
    pub concerns: Vec<String>,
    /// How far the agent has come, one entry a kind. A kind without an entry was not read yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind"]))]
    pub marks: Vec<Mark>,
    /// Objects up to the marks that are not in force here though they should be, one entry for each field at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub exceptions: Vec<Exception>,
    /// How many exceptions there are. If more than are listed, nothing is known about objects that are not listed.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub exception_count: i64,
    /// The most hit bans. A ban that is not listed was hit less, or not at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub hits: Vec<BanHits>,
    /// Names of DomainPolicies that pods of the node use and do not get as they should.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub names: Vec<NameReport>,
    /// When this report was made, RFC 3339. Reports are made when something changed: an old one is no sign of trouble.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub reported_at: Option<String>,
}

/// Kinds whose objects nodes put into force and report on.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum ReportedKind {
    /// `podwall.dev` Ban.
    Ban,
    /// `podwall.dev` ServiceExposure.
    ServiceExposure,
    /// `k8s.sers.dev` Ktban.
    Ktban,
    /// `podwall.dev` DomainPolicy.
    DomainPolicy,
}

/// How far an agent has come with one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// Which kind.
    pub kind: ReportedKind,
    /// Every object of the kind up to this resource version is in force in the packet filter as it then was, or gone
    /// from it, or is among the exceptions.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[0-9]+$"))]
    pub resource_version: String,
    /// How many objects of the kind the node holds.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub objects: i64,
}

/// An object that is not in force on the node though it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    /// Its kind.
    pub kind: ReportedKind,
    /// Its namespace; absent for kinds that have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its UID: another object of the same name is another matter.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Why, in one word.
    pub reason: ExceptionReason,
    /// Path of the field at fault, as `kubectl explain` writes it. Absent: the whole object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub field: String,
    /// What is wrong, and what the node does about it.
    #[schemars(length(max = 512))]
    pub message: String,
}

/// Why an object is not in force.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum ExceptionReason {
    /// Some of it could not be understood; that part is not in force.
    NotUnderstood,
    /// The packet filter cannot do what it asks for; the node does the nearest thing that is no more open.
    NotSupported,
    /// The kernel refused the rules.
    KernelRefused,
    /// It would cut off nodes, API servers or administrators; that part is not in force.
    Failsafe,
}

/// How often packets of one ban were refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BanHits {
    /// The ban's name.
    #[schemars(length(min = 1, max = 253))]
    pub ban: String,
    /// Its UID.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Packets that met its addresses, as long as the kernel and this agent remember. Bans that overlap share them.
    #[schemars(range(min = 0))]
    pub packets: i64,
}

/// A name that pods of the node use and do not get as they should.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameReport {
    /// Namespace of the policy that allows it.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// That policy.
    #[schemars(length(min = 1, max = 253))]
    pub policy: String,
    /// The name.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// What is wrong with it.
    pub trouble: NameTrouble,
}

/// What may be wrong with a name.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum NameTrouble {
    /// It was asked for, and never had an address.
    Unresolved,
    /// It has more addresses than a pod may learn.
    AtCapacity,
}

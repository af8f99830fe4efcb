//! Conditions, and the part of a status that all kinds which nodes enforce share.
//!
//! The operator writes them; `kubectl wait --for=condition=Enforced ban/x` reads them.
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// One aspect of an object's state, as `metav1.Condition`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect: `Accepted`, `Enforced` or `Expired`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 64))]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word a program can compare.
    #[schemars(length(min = 1, max = 128))]
    pub reason: String,
    /// Why, for people: the last error with its node and field.
    #[schemars(length(max = 4096))]
    pub message: String,
    /// The `metadata.generation` this was judged from; an older one says nothing about the object as it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// When `status` last changed, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
}

/// `metav1.ConditionStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody has said yet.
    Unknown,
}

/// On how many nodes an object is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Nodes the object concerns: all Linux nodes, less those its node selector leaves out.
    #[schemars(range(min = 0))]
    pub wanted: i64,
    /// Of these, the ones that have it in their packet filter as it is now.
    #[schemars(range(min = 0))]
    pub enforced: i64,
    /// Of these, the ones that cannot and say why.
    #[schemars(range(min = 0))]
    pub failed: i64,
}

/// The last node that said it cannot enforce the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// Which node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Path of the field at fault, as `kubectl explain` writes it: `spec.ports[1].localPort`. Empty: the whole object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub field: String,
    /// What is wrong, and what the node does about it.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Types of [`Condition`].
pub mod kinds {
    /// The object can be understood whole; false with the path of the field that cannot.
    pub const ACCEPTED: &str = "Accepted";
    /// Every node it concerns has it in its packet filter, as of `observedGeneration`.
    pub const ENFORCED: &str = "Enforced";
    /// Its time is over; no node enforces it any more.
    pub const EXPIRED: &str = "Expired";
    /// Every name that pods asked for has addresses, and no more than a pod may learn.
    pub const RESOLVED: &str = "Resolved";
}

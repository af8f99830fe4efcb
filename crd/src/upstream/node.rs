//! Node: its pod ranges and addresses.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// core/v1 Node.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Node {
    /// Name and labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Pod ranges.
    #[serde(default)]
    pub spec: Option<NodeSpec>,
    /// Addresses.
    #[serde(default)]
    pub status: Option<NodeStatus>,
}

super::core_v1!(Node, "Node", "nodes", k8s_openapi::ClusterResourceScope);

/// The part of `NodeSpec` we read.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct NodeSpec {
    /// The only or first pod range.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    /// One of each family.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Option<Vec<String>>,
}

/// The part of `NodeStatus` we read.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct NodeStatus {
    /// Addresses and names.
    pub addresses: Option<Vec<NodeAddress>>,
}

/// `NodeAddress`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct NodeAddress {
    /// An address or a host name.
    pub address: Option<String>,
}

//! Service: which ports it has on nodes, under which addresses, and which pods are behind it.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// core/v1 Service.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Service {
    /// Namespace, name, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was asked for.
    #[serde(default)]
    pub spec: Option<ServiceSpec>,
    /// What came of it.
    #[serde(default)]
    pub status: Option<ServiceStatus>,
}

super::core_v1!(Service, "Service", "services", k8s_openapi::NamespaceResourceScope);

/// The part of `ServiceSpec` we read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Labels of the pods behind it.
    pub selector: Option<BTreeMap<String, String>>,
    /// Its ports.
    pub ports: Option<Vec<ServicePort>>,
    /// Addresses inside the cluster.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    /// Addresses that somebody else routes to the nodes.
    #[serde(rename = "externalIPs")]
    pub external_ips: Option<Vec<String>>,
}

/// `ServicePort`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name; needed where there are several.
    pub name: Option<String>,
    /// Absent: TCP.
    pub protocol: Option<String>,
    /// The number on the Service's addresses.
    #[serde(default)]
    pub port: i64,
    /// The number on nodes.
    pub node_port: Option<i64>,
    /// Number or name of the pods' port; absent: `port`.
    pub target_port: Option<serde_json::Value>,
}

/// The part of `ServiceStatus` we read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// The load balancer.
    pub load_balancer: Option<LoadBalancerStatus>,
}

/// `LoadBalancerStatus`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct LoadBalancerStatus {
    /// Its addresses.
    pub ingress: Option<Vec<LoadBalancerIngress>>,
}

/// `LoadBalancerIngress`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct LoadBalancerIngress {
    /// An address; absent where there is only a host name.
    pub ip: Option<String>,
}

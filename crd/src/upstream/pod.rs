//! Pod: who it is, where it runs, which addresses and named ports it has.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// core/v1 Pod.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Pod {
    /// Namespace, name, UID, labels, deletionTimestamp.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was asked for.
    #[serde(default)]
    pub spec: Option<PodSpec>,
    /// What came of it.
    #[serde(default)]
    pub status: Option<PodStatus>,
}

super::core_v1!(Pod, "Pod", "pods", k8s_openapi::NamespaceResourceScope);

/// The part of `PodSpec` that decides verdicts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// The node it is bound to.
    pub node_name: Option<String>,
    /// It has no address of its own; its traffic is the node's.
    pub host_network: Option<bool>,
    /// Regular containers.
    pub containers: Option<Vec<Container>>,
    /// Init containers; those that restart always are sidecars.
    pub init_containers: Option<Vec<Container>>,
}

/// The part of `Container` that decides verdicts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Declared ports; only those with a name or on the node matter.
    pub ports: Option<Vec<ContainerPort>>,
    /// `Always` on an init container makes it a sidecar (KEP-753).
    pub restart_policy: Option<String>,
}

/// `ContainerPort`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// What a policy may call it.
    pub name: Option<String>,
    /// The number.
    #[serde(default)]
    pub container_port: i64,
    /// Absent: TCP.
    pub protocol: Option<String>,
    /// The number on the node, where the node answers for the pod.
    pub host_port: Option<i64>,
    /// On this address of the node only; absent or unspecified: on all.
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
}

/// The part of `PodStatus` that decides verdicts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// `Succeeded` and `Failed` are final.
    pub phase: Option<String>,
    /// The first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// At most one address of each family.
    #[serde(rename = "podIPs")]
    pub pod_ips: Option<Vec<PodIp>>,
    /// RFC 3339; decides between two claimants of an address.
    pub start_time: Option<String>,
}

/// One address of a pod.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct PodIp {
    /// As text.
    pub ip: Option<String>,
}

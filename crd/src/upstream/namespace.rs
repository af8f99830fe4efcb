//! Namespace: only its labels matter.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// core/v1 Namespace.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Namespace {
    /// Name and labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
}

super::core_v1!(Namespace, "Namespace", "namespaces", k8s_openapi::ClusterResourceScope);

//! Creating, changing and deleting objects as an administrator: the events a test is made of.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{self, Scope};
use serde_json::{Value, json};

use super::{ApiServer, ApiServerError, POLL};

/// A CustomResourceDefinition applied a moment ago takes about a second to be served.
const SERVED_WITHIN: Duration = Duration::from_secs(10);
/// What `kubectl delete` gives a pod, in seconds.
const GRACE_PERIOD: u32 = 30;

/// `status.phase` of a pod, less Unknown, which nothing has set for years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all containers have started; the pod may have addresses already.
    Pending,
    /// Has a running container.
    Running,
    /// All containers ended well: the addresses may belong to somebody else by now.
    Succeeded,
    /// All containers ended, one badly: the same holds.
    Failed,
}

impl PodPhase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

impl ApiServer {
    /// Server-side applies every object of a YAML stream, in order, and its `status` too where there is
    /// one: so a case's `objects.yaml` can be used as it stands.
    ///
    /// # Errors
    /// [`ApiServerError::Yaml`] or [`ApiServerError::NoObject`] before anything is changed;
    /// [`ApiServerError::Kube`] for the first object that is refused, those before it are applied.
    pub async fn apply_yaml(&self, yaml: &str) -> Result<(), ApiServerError> {
        let client = self.admin_client().await?;
        for manifest in Manifest::parse(yaml)? {
            let doing = format!("applying {manifest}");
            let api = manifest.api(&client).await?;
            let patch = Patch::Apply(&manifest.content);
            api.patch(&manifest.name, &field_manager(), &patch)
                .await
                .map_err(ApiServerError::kube(doing.clone()))?;
            if manifest.has_status() {
                api.patch_status(&manifest.name, &field_manager(), &patch)
                    .await
                    .map_err(ApiServerError::kube(doing))?;
            }
        }
        Ok(())
    }

    /// Deletes every object of a YAML stream at once, in order; only its kind, namespace and name are
    /// read. A pod gets no grace period and a namespace no finalizer, because there is no kubelet and no
    /// controller to end them: what is in the namespace stays.
    ///
    /// # Errors
    /// [`ApiServerError::Kube`] for the first that is not there or is refused.
    pub async fn delete_yaml(&self, yaml: &str) -> Result<(), ApiServerError> {
        let client = self.admin_client().await?;
        for manifest in Manifest::parse(yaml)? {
            let doing = format!("deleting {manifest}");
            let api = manifest.api(&client).await?;
            api.delete(&manifest.name, &DeleteParams::default().grace_period(0))
                .await
                .map_err(ApiServerError::kube(doing.clone()))?;
            if manifest.kind.kind == "Namespace" {
                finalize(&client, &manifest.name).await.map_err(ApiServerError::kube(doing))?;
            }
        }
        Ok(())
    }

    /// Marks a pod as being deleted, as `kubectl delete` does: it keeps its addresses and its status, and
    /// without a kubelet it stays so until [`ApiServer::delete_yaml`].
    ///
    /// # Errors
    /// [`ApiServerError::Kube`].
    pub async fn begin_pod_deletion(&self, namespace: &str, name: &str) -> Result<(), ApiServerError> {
        Api::<Pod>::namespaced(self.admin_client().await?, namespace)
            .delete(name, &DeleteParams::default().grace_period(GRACE_PERIOD))
            .await
            .map_err(ApiServerError::kube(format!("deleting pod {namespace}/{name}")))?;
        Ok(())
    }

    /// Says what the pod's kubelet would: its phase, and its addresses with the main one first, at most
    /// one of each family.
    ///
    /// # Errors
    /// [`ApiServerError::Kube`].
    pub async fn set_pod_status(
        &self,
        namespace: &str,
        name: &str,
        phase: PodPhase,
        ips: &[IpAddr],
    ) -> Result<(), ApiServerError> {
        let pod_ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        // A null removes the field from an earlier status.
        let status = json!({"status": {"phase": phase.as_str(), "podIP": ips.first(), "podIPs": pod_ips}});
        Api::<Pod>::namespaced(self.admin_client().await?, namespace)
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .map_err(ApiServerError::kube(format!("setting the status of pod {namespace}/{name}")))?;
        Ok(())
    }
}

/// One document of a YAML stream, with what is needed to address it.
#[derive(Debug)]
struct Manifest {
    kind: GroupVersionKind,
    namespace: Option<String>,
    name: String,
    content: Value,
}

impl Manifest {
    fn parse(yaml: &str) -> Result<Vec<Self>, ApiServerError> {
        serde_saphyr::from_multiple::<Value>(yaml)
            .map_err(|source| ApiServerError::Yaml { source: Box::new(source) })?
            .into_iter()
            .map(Self::new)
            .collect()
    }

    fn new(content: Value) -> Result<Self, ApiServerError> {
        let no_object = |reason: String| ApiServerError::NoObject { reason };
        let object: DynamicObject =
            serde_json::from_value(content.clone()).map_err(|error| no_object(error.to_string()))?;
        let types = object.types.ok_or_else(|| no_object("no apiVersion and kind".to_owned()))?;
        let kind = GroupVersionKind::try_from(&types).map_err(|error| no_object(error.to_string()))?;
        let name = object.metadata.name.ok_or_else(|| no_object(format!("{} without a name", kind.kind)))?;
        Ok(Self { kind, namespace: object.metadata.namespace, name, content })
    }

    fn has_status(&self) -> bool {
        self.content.get("status").and_then(Value::as_object).is_some_and(|status| !status.is_empty())
    }

    /// Asks the API server where this kind is served, again for a while if it is not.
    async fn api(&self, client: &kube::Client) -> Result<Api<DynamicObject>, ApiServerError> {
        let deadline = Instant::now() + SERVED_WITHIN;
        let (resource, capabilities) = loop {
            match discovery::pinned_kind(client, &self.kind).await {
                Ok(found) => break found,
                Err(error) if Instant::now() > deadline => {
                    return Err(ApiServerError::kube(format!("finding where {self} is served"))(error));
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        };
        let client = client.clone();
        Ok(match (capabilities.scope, &self.namespace) {
            (Scope::Cluster, _) => Api::all_with(client, &resource),
            (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client, namespace, &resource),
            (Scope::Namespaced, None) => Api::default_namespaced_with(client, &resource),
        })
    }
}

impl std::fmt::Display for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, namespace, name, .. } = self;
        match namespace {
            Some(namespace) => write!(f, "{} {namespace}/{name}", kind.kind),
            None => write!(f, "{} {name}", kind.kind),
        }
    }
}

/// Takes a field over from whoever set it: a test means what it says.
fn field_manager() -> PatchParams {
    PatchParams::apply("podwall-tests").force()
}

/// Lets a namespace go, which is the namespace controller's part.
async fn finalize(client: &kube::Client, name: &str) -> Result<(), kube::Error> {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {"finalizers": []},
    });
    Api::<Namespace>::all(client.clone())
        .replace_subresource("finalize", name, &PostParams::default(), &namespace)
        .await?;
    Ok(())
}

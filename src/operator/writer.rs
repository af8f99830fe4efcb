//! Makes the requests of a round, one after the other.
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use podwall_crd::node_report::ReportedKind;
use podwall_crd::{DomainPolicyStatus, ServiceExposureStatus};
use serde_json::{Value, json};

use super::ledger::Write;
use super::mirror::Collection;
use super::object::{Key, Status};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a request.
#[derive(Debug)]
pub enum Written {
    /// The API server did it, or there was nothing left to do it to.
    Done,
    /// It did not.
    Failed(String),
}

/// Makes one request.
pub async fn write(client: &Client, write: &Write) -> Written {
    let made = async {
        match write {
            Write::Status(key, status) => {
                let patch = Patch::Merge(json!({"status": fields(key.kind, status)}));
                api(client, key).patch_status(&key.name, &PatchParams::default(), &patch).await.map(drop)
            }
            Write::Delete(key, uid) => {
                let only = Preconditions { uid: Some(uid.clone()), resource_version: None };
                let parameters = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
                api(client, key).delete(&key.name, &parameters).await.map(drop)
            }
            Write::Forget(name) => {
                let api: Api<DynamicObject> = Api::all_with(client.clone(), &Collection::Reports.resource());
                api.delete(name, &DeleteParams::default()).await.map(drop)
            }
        }
    };
    match tokio::time::timeout(PATIENCE, made).await {
        Ok(Ok(())) => Written::Done,
        // Gone, or another object of its name by now: the watch tells.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Written::Done,
        Ok(Err(error)) => Written::Failed(crate::agent::watch::words(&error)),
        Err(_) => Written::Failed("no answer".to_owned()),
    }
}

fn api(client: &Client, key: &Key) -> Api<DynamicObject> {
    let collection = match key.kind {
        ReportedKind::ServiceExposure => Collection::Exposures,
        ReportedKind::DomainPolicy => Collection::Domains,
        ReportedKind::Ban | ReportedKind::Ktban => Collection::Bans,
    };
    let resource = collection.resource();
    if key.namespace.is_empty() {
        return Api::all_with(client.clone(), &resource);
    }
    Api::namespaced_with(client.clone(), &key.namespace, &resource)
}

/// Every field the kind has; one that is not there is `null`, which takes it away.
fn fields(kind: ReportedKind, status: &Status) -> Value {
    let Status { common: status, names } = status.clone();
    let common = json!({
        "observedGeneration": status.observed_generation,
        "observedVersion": status.observed_version,
        "conditions": status.conditions,
        "nodes": status.nodes,
        "enforcedOn": status.enforced_on,
        "lastError": null,
    });
    let whole = match kind {
        ReportedKind::Ban | ReportedKind::Ktban => {
            merged(json!({"expiresAt": null, "hits": null}), serde_json::to_value(&status))
        }
        ReportedKind::ServiceExposure => serde_json::to_value(ServiceExposureStatus {
            observed_generation: status.observed_generation,
            observed_version: status.observed_version,
            conditions: status.conditions,
            nodes: status.nodes,
            enforced_on: status.enforced_on,
            last_error: status.last_error,
        })
        .unwrap_or_default(),
        ReportedKind::DomainPolicy => {
            let none = json!({"unresolved": null, "atCapacity": null});
            merged(
                none,
                serde_json::to_value(DomainPolicyStatus {
                    observed_generation: status.observed_generation,
                    observed_version: status.observed_version,
                    conditions: status.conditions,
                    nodes: status.nodes,
                    enforced_on: status.enforced_on,
                    unresolved: names.unresolved,
                    at_capacity: names.at_capacity,
                    last_error: status.last_error,
                }),
            )
        }
    };
    merged(common, Ok(whole))
}

fn merged(mut under: Value, over: Result<Value, serde_json::Error>) -> Value {
    if let (Some(fields), Ok(Value::Object(over))) = (under.as_object_mut(), over) {
        fields.extend(over);
    }
    under
}

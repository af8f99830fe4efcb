//! Writes one event at a time, and says what came of it.
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::desk::{Job, Place, Written};

/// An API server that does not answer must not hold everything for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does it.
pub async fn write(client: kube::Client, job: Job) -> Written {
    let done = async {
        match &job {
            Job::Create(event) => {
                let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
                let api: Api<Event> = Api::namespaced(client, namespace);
                match api.create(&PostParams::default(), event).await {
                    // It is the namespace that is missing.
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(Written::Refused),
                    created => created.map(|_| Written::Done),
                }
            }
            // A patch that says nothing answers with the object, which needs no right to read.
            Job::Read(place) => {
                patch(client, place, json!({})).await.map(|event| Written::Found(count(&event)))
            }
            Job::Count(place, packets, last) => {
                let count = i32::try_from((*packets).max(2)).unwrap_or(i32::MAX);
                let series =
                    json!({"series": {"count": count, "lastObservedTime": super::form::micro(*last)}});
                patch(client, place, series).await.map(|_| Written::Done)
            }
        }
    };
    match tokio::time::timeout(PATIENCE, done).await {
        Ok(Ok(written)) => written,
        Ok(Err(error)) => judge(&error),
        Err(_) => {
            tracing::debug!("writing an event about a drop: no answer within {} s", PATIENCE.as_secs());
            Written::Failed
        }
    }
}

async fn patch(client: kube::Client, place: &Place, change: serde_json::Value) -> kube::Result<Event> {
    let api: Api<Event> = Api::namespaced(client, &place.namespace);
    api.patch(&place.name, &PatchParams::default(), &Patch::Merge(change)).await
}

fn count(event: &Event) -> u64 {
    event.series.as_ref().and_then(|series| u64::try_from(series.count).ok()).unwrap_or(1)
}

fn judge(error: &kube::Error) -> Written {
    let written = match error {
        kube::Error::Api(status) => match status.code {
            409 => Written::Exists,
            404 => Written::Missing,
            // A namespace that goes takes nothing new; for the rest nobody has the right just now. A server that
            // starts knows of no rights for a moment, and whoever lacks them may be given them.
            401 | 403 if !status.message.contains("being terminated") => Written::Failed,
            // Too many requests, and whatever the server itself could not do.
            429 | 500.. => Written::Failed,
            _ => Written::Refused,
        },
        _ => Written::Failed,
    };
    match written {
        Written::Refused => {
            tracing::warn!(error = error as &dyn std::error::Error, "writing an event about a drop");
        }
        Written::Failed => {
            tracing::debug!(error = error as &dyn std::error::Error, "writing an event about a drop");
        }
        Written::Done | Written::Exists | Written::Found(_) | Written::Missing => {}
    }
    written
}

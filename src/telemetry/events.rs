//! Kubernetes events on objects podwall could not fully understand or enforce (`events.k8s.io/v1`).
//!
//! Whoever writes an event (`src/agent/reports/teller.rs`) gives it a name made from what it says: when a second agent
//! writes the same, or the same one after a restart, it is told that it exists. Writing is paced, the queue is bounded, and a failure is only
//! logged: nothing here may slow enforcement down.
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use podwall_engine::{NodeName, ObjectRef, Warning};
use podwall_ruleset::Digest;
use tokio::sync::mpsc;

use super::metrics::{EventResult, Metrics};

/// Events that may wait; a storm of broken policies is told by the `warnings` gauge instead.
const QUEUE: usize = 256;
/// At most five a second from one node.
const PACE: Duration = Duration::from_millis(200);
/// An API server that does not answer must not hold the queue for ever.
const PATIENCE: Duration = Duration::from_secs(10);
/// `note` may have 1024 bytes (`validation/events.go`).
const NOTE_LIMIT: usize = 1024;

/// The sending end. Without an API server there is nobody to tell, and telling does nothing.
#[derive(Debug, Clone)]
pub struct Events {
    queue: Option<mpsc::Sender<Warning>>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// For agents that read from a folder.
    pub const fn nowhere(metrics: Arc<Metrics>) -> Self {
        Self { queue: None, metrics }
    }

    /// Events go to the cluster the client talks to, in the name of the node. The future writes them.
    pub fn to_cluster(
        client: kube::Client,
        node: NodeName,
        metrics: Arc<Metrics>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (
            Self { queue: Some(queue), metrics: Arc::clone(&metrics) },
            write_all(waiting, client, node, metrics),
        )
    }

    /// Queues an event about the warning's object; never waits.
    pub fn tell(&self, warning: &Warning) {
        let Some(queue) = &self.queue else { return };
        if warning.object.name.is_empty() {
            return;
        }
        if queue.try_send(warning.clone()).is_err() {
            self.metrics.events.get_or_create(&EventResult::Dropped.into()).inc();
        }
    }
}

async fn write_all(
    mut waiting: mpsc::Receiver<Warning>,
    client: kube::Client,
    node: NodeName,
    metrics: Arc<Metrics>,
) {
    while let Some(warning) = waiting.recv().await {
        let event = event(&warning, &node, Timestamp::now());
        let result = write(&client, &event).await;
        metrics.events.get_or_create(&result.into()).inc();
        tokio::time::sleep(PACE).await;
    }
}

async fn write(client: &kube::Client, event: &Event) -> EventResult {
    let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let parameters = PostParams::default();
    match tokio::time::timeout(PATIENCE, api.create(&parameters, event)).await {
        Ok(Ok(_)) => EventResult::Written,
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => EventResult::Known,
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "writing an event");
            EventResult::Failed
        }
        Err(_) => {
            tracing::warn!("writing an event: no answer within {} s", PATIENCE.as_secs());
            EventResult::Failed
        }
    }
}

fn event(warning: &Warning, node: &NodeName, now: Timestamp) -> Event {
    let object = &warning.object;
    let namespace = if object.namespace.is_empty() { "default" } else { &object.namespace };
    let text = |text: &str| Some(text.to_owned());
    Event {
        metadata: ObjectMeta {
            name: Some(name(warning)),
            namespace: text(namespace),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        action: text("Isolate"),
        reason: text("NotFullyEnforced"),
        type_: text("Warning"),
        note: Some(cut(&format!("{}: {}", warning.field, warning.problem), NOTE_LIMIT)),
        regarding: Some(regarding(object)),
        reporting_controller: text("podwall.dev/agent"),
        reporting_instance: Some(cut(&node.0, 128)),
        ..Event::default()
    }
}

/// The same words about the same object have the same name, whichever node writes them.
fn name(warning: &Warning) -> String {
    let object = &warning.object;
    let parts: [&str; 4] = [object.kind, &object.uid, &warning.field, &warning.problem];
    format!("{}.{}", cut(&object.name, 230), Digest::of(parts))
}

fn regarding(object: &ObjectRef) -> ObjectReference {
    let version = match object.kind {
        "NetworkPolicy" => "networking.k8s.io/v1",
        "DomainPolicy" => "podwall.dev/v1alpha1",
        _ => "v1",
    };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ObjectReference {
        api_version: some(version),
        kind: some(object.kind),
        namespace: some(&object.namespace),
        name: some(&object.name),
        uid: some(&object.uid),
        ..ObjectReference::default()
    }
}

/// At most `limit` bytes, on a character's boundary.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(problem: &str) -> Warning {
        let object = ObjectRef {
            kind: "NetworkPolicy",
            namespace: "shop".into(),
            name: "web".into(),
            uid: "1234".into(),
        };
        Warning { object, field: "spec.ingress[0].from[0]".to_owned(), problem: problem.to_owned() }
    }

    #[test]
    fn two_nodes_give_one_complaint_one_name_and_two_complaints_two() {
        let name = |problem: &str, node: &str| {
            event(&warning(problem), &NodeName::from(node), Timestamp::UNIX_EPOCH).metadata.name
        };
        assert_eq!(name("unknown field", "a"), name("unknown field", "b"));
        assert_ne!(name("unknown field", "a"), name("no such range", "a"));
    }

    #[test]
    fn an_event_points_at_its_object_and_lies_in_its_namespace() {
        let event = event(&warning("unknown field"), &NodeName::from("a"), Timestamp::UNIX_EPOCH);
        assert_eq!(event.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(event.note.as_deref(), Some("spec.ingress[0].from[0]: unknown field"));
        let regarding = event.regarding.unwrap();
        assert_eq!(regarding.api_version.as_deref(), Some("networking.k8s.io/v1"));
        assert_eq!((regarding.name.as_deref(), regarding.uid.as_deref()), (Some("web"), Some("1234")));
    }

    /// Takes one event, refuses the second as known and the third for good.
    async fn server() -> (kube::Client, tokio::task::JoinHandle<()>) {
        use axum::http::StatusCode;
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let answer = move |axum::Json(event): axum::Json<serde_json::Value>| {
            let asked = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let code = [201, 409, 403].get(asked).copied().unwrap_or(500);
            let status = serde_json::json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "no",
                "code": code});
            let body = if code == 201 { event } else { status };
            async move { (StatusCode::from_u16(code).unwrap(), axum::Json(body)) }
        };
        let path = "/apis/events.k8s.io/v1/namespaces/shop/events";
        let routes = axum::Router::new().route(path, axum::routing::post(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        (kube::Client::try_from(config).unwrap(), serving)
    }

    #[tokio::test]
    async fn an_event_is_written_once_and_neither_a_twin_nor_a_refusal_stops_the_queue() {
        let (client, serving) = server().await;
        let metrics = Arc::new(Metrics::default());
        let (events, writer) = Events::to_cluster(client, NodeName::from("a"), Arc::clone(&metrics));
        for problem in ["one", "two", "three"] {
            events.tell(&warning(problem));
        }
        drop(events);
        writer.await;
        serving.abort();
        let count = |result: EventResult| metrics.events.get_or_create(&result.into()).get();
        assert_eq!(
            [count(EventResult::Written), count(EventResult::Known), count(EventResult::Failed)],
            [1, 1, 1]
        );
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut(&"x".repeat(2000), NOTE_LIMIT).len(), NOTE_LIMIT);
    }
}

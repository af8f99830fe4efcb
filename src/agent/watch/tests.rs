//! The watch against a server that plays a script: each request gets the next answer and is written down.
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use podwall_crd::node_report::ReportedKind;
use podwall_engine::Change;
use podwall_engine::model::PodUid;
use serde_json::{Value, json};

use super::kinds::Pods;
use super::*;
use crate::agent::input::{Feed, Stamped};

enum Step {
    /// A page of a list with its continue token; the version is 10.
    Page(&'static [&'static str], &'static str),
    /// Anything, with HTTP status 200.
    Answer(Value),
    /// An HTTP status.
    Refuse(u16),
    /// A watch that says this and ends.
    Watch(Vec<Value>),
    /// A watch that stays open.
    Stay(Vec<Value>),
}

#[derive(Default)]
struct Script {
    steps: VecDeque<Step>,
    asked: Vec<String>,
}

type Server = Arc<Mutex<Script>>;

fn pod(uid: &str, version: &str) -> Value {
    let metadata = json!({"name": uid, "namespace": "shop", "uid": uid, "resourceVersion": version});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": {}})
}

fn event(kind: &str, uid: &str, version: &str) -> Value {
    json!({"type": kind, "object": pod(uid, version)})
}

fn bookmark(version: &str) -> Value {
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": version}});
    json!({"type": "BOOKMARK", "object": object})
}

fn gone() -> Value {
    json!({"type": "ERROR", "object": status(410)})
}

fn status(code: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "no", "reason": "no", "code": code})
}

async fn answer(State(server): State<Server>, uri: Uri) -> Response {
    let query: Vec<(&str, &str)> =
        uri.query().unwrap().split('&').filter_map(|p| p.split_once('=')).collect();
    let get = |key: &str| query.iter().find(|(k, _)| *k == key).map_or("", |(_, value)| *value);
    let mut script = server.lock().unwrap();
    let asked = match get("watch") {
        "" => format!("list limit={} continue={}", get("limit"), get("continue")),
        _ => format!("watch from={}", get("resourceVersion")),
    };
    script.asked.push(asked);
    let lines = |events: &[Value]| events.iter().map(|e| format!("{e}\n")).collect::<String>();
    match script.steps.pop_front() {
        Some(Step::Page(uids, next)) => {
            let items: Vec<Value> = uids.iter().map(|uid| pod(uid, "5")).collect();
            let metadata = json!({"resourceVersion": "10", "continue": next});
            axum::Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}))
                .into_response()
        }
        Some(Step::Answer(body)) => axum::Json(body).into_response(),
        Some(Step::Refuse(code)) => {
            (StatusCode::from_u16(code).unwrap(), axum::Json(status(code))).into_response()
        }
        Some(Step::Watch(events)) => lines(&events).into_response(),
        Some(Step::Stay(events)) => {
            let first = futures::stream::iter([Ok::<_, std::io::Error>(lines(&events))]);
            Body::from_stream(first.chain(futures::stream::pending())).into_response()
        }
        None => Body::from_stream(futures::stream::pending::<std::io::Result<String>>()).into_response(),
    }
}

struct Played {
    server: Server,
    received: tokio::sync::mpsc::Receiver<Stamped>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Drop for Played {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn play(steps: impl IntoIterator<Item = Step>) -> Played {
    follow::<Pods>(steps).await
}

async fn follow<M: Mirrored>(steps: impl IntoIterator<Item = Step>) -> Played {
    let script = Script { steps: steps.into_iter().collect(), asked: Vec::new() };
    let server = Arc::new(Mutex::new(script));
    let routes =
        Router::new().route("/api/v1/pods", axum::routing::get(answer)).with_state(Arc::clone(&server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let mut config = kube::Config::new(format!("http://{address}").parse().unwrap());
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    let (inputs, received) = Inputs::channel();
    let watching = tokio::spawn(async move {
        let Stopping = run::<M>(client, inputs, Telemetry::default()).await;
    });
    Played { server, received, tasks: [serving, watching] }
}

impl Played {
    /// The next messages, in words.
    async fn hears(&mut self, count: usize) -> Vec<String> {
        let mut heard = Vec::new();
        for _ in 0..count {
            let next = tokio::time::timeout(Duration::from_secs(10), self.received.recv()).await;
            heard.push(match next.expect("a message within ten seconds").unwrap().input {
                Input::Object { change: Change::Pod(pod), .. } => format!("+{}", pod.name),
                Input::Object { change: Change::PodGone(PodUid(uid)), .. } => format!("-{uid}"),
                Input::Reached { version, objects, news, .. } => format!("{version}: {objects} {news:?}"),
                Input::Complete(Feed::Pods) => "complete".to_owned(),
                Input::Watch(Feed::Pods, None) => "current".to_owned(),
                Input::Watch(Feed::Pods, Some(_)) => "stale".to_owned(),
                other => format!("{other:?}"),
            });
        }
        heard
    }

    fn asked(&self) -> Vec<String> {
        self.server.lock().unwrap().asked.clone()
    }
}

#[tokio::test]
async fn a_list_is_read_page_by_page_and_watched_from_its_version() {
    let mut played = play([
        Step::Page(&["a", "b"], "more"),
        Step::Page(&["c"], ""),
        Step::Stay(vec![event("ADDED", "d", "11"), event("DELETED", "a", "12")]),
    ])
    .await;
    assert_eq!(played.hears(7).await, ["+a", "+b", "+c", "complete", "current", "+d", "-a"]);
    let asked = ["list limit=500 continue=", "list limit=500 continue=more", "watch from=10"];
    assert_eq!(played.asked(), asked);
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_from_the_last_version_it_saw_bookmarks_included() {
    let mut played = play([
        Step::Page(&[], ""),
        Step::Watch(vec![event("ADDED", "a", "11"), bookmark("20")]),
        Step::Stay(vec![event("ADDED", "b", "21")]),
    ])
    .await;
    assert_eq!(played.hears(5).await, ["complete", "current", "+a", "current", "+b"]);
    assert_eq!(played.asked()[1..], ["watch from=10", "watch from=20"]);
}

#[tokio::test]
async fn after_a_gap_too_long_to_resume_what_vanished_is_taken_away() {
    for step in [Step::Watch(vec![gone()]), Step::Refuse(410)] {
        let mut played = play([
            Step::Page(&["a", "b"], ""),
            step,
            Step::Page(&["b"], ""),
            Step::Stay(vec![event("ADDED", "c", "30")]),
        ])
        .await;
        let heard = played.hears(8).await.join(" ").replacen("current ", "", 1);
        assert!(heard.starts_with("+a +b complete +b -a complete"), "{heard}");
        assert!(played.asked().ends_with(&["watch from=10".to_owned()]), "{:?}", played.asked());
    }
}

#[tokio::test]
async fn an_outage_turns_stale_after_a_while_and_current_when_it_is_over() {
    let refused = (0..4).map(|_| Step::Refuse(503));
    let steps = [Step::Page(&["a"], ""), Step::Watch(vec![bookmark("15")])];
    let mut played =
        play(steps.into_iter().chain(refused).chain([Step::Page(&["a"], ""), Step::Stay(Vec::new())])).await;
    let mut heard = played.hears(4).await;
    while !heard.ends_with(&["complete".to_owned(), "current".to_owned()]) || heard.len() < 5 {
        heard.extend(played.hears(1).await);
    }
    heard.dedup();
    let back = ["+a", "complete", "current", "stale", "+a", "current", "complete", "current"];
    assert_eq!(heard, back);
    let watches = played.asked().iter().filter(|asked| *asked == "watch from=15").count();
    assert_eq!(watches, 3, "three refusals, then the version is given up: {:?}", played.asked());
}

#[tokio::test]
async fn a_list_that_expires_between_pages_is_asked_for_whole() {
    let mut played = play([
        Step::Page(&["a"], "more"),
        Step::Refuse(410),
        Step::Page(&["a", "b"], ""),
        Step::Stay(Vec::new()),
    ])
    .await;
    assert_eq!(played.hears(5).await, ["+a", "+a", "+b", "complete", "current"]);
    assert_eq!(played.asked()[2], "list limit= continue=");
}

#[tokio::test]
async fn an_answer_that_is_no_list_of_pods_takes_nothing_away() {
    let version = json!({"resourceVersion": "10"});
    for strange in [
        json!({"kind": "List", "apiVersion": "v1", "metadata": version, "items": []}),
        json!({"kind": "NodeList", "apiVersion": "v1", "metadata": version, "items": []}),
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}),
        json!({"kind": "PodList", "apiVersion": "v1", "items": []}),
        json!({"metadata": version, "items": []}),
        json!({}),
        status(200),
    ] {
        let mut played = play([
            Step::Page(&["a"], ""),
            Step::Watch(vec![gone()]),
            Step::Answer(strange.clone()),
            Step::Page(&["a"], ""),
            Step::Stay(vec![event("ADDED", "b", "11")]),
        ])
        .await;
        let heard = played.hears(6).await.join(" ").replacen("current ", "", 1);
        assert!(heard.starts_with("+a complete +a complete"), "{strange}: {heard}");
    }
}

/// Pods, if they were reported on.
struct Counted;

impl Mirrored for Counted {
    type Object = podwall_crd::Pod;
    type Key = PodUid;
    const FEED: Feed = Feed::Pods;
    const LIST: &'static str = "PodList";
    const REPORTED: Option<ReportedKind> = Some(ReportedKind::Ban);

    fn api(client: Client) -> Api<podwall_crd::Pod> {
        Pods::api(client)
    }

    fn read(object: podwall_crd::Pod) -> kinds::Read<PodUid> {
        Pods::read(object)
    }

    fn gone(key: PodUid) -> Change {
        Pods::gone(key)
    }
}

#[tokio::test]
async fn a_kind_that_is_reported_on_says_how_far_it_has_come_behind_each_object() {
    let generation = |kind: &str, version: &str, generation: u32| {
        let mut event = event(kind, "a", version);
        *event.pointer_mut("/object/metadata").unwrap() = json!({"name": "a", "namespace": "shop", "uid": "a", "resourceVersion": version, "generation": generation});
        event
    };
    let mut played = follow::<Counted>([
        Step::Page(&["b"], ""),
        Step::Stay(vec![
            generation("ADDED", "11", 1),
            generation("MODIFIED", "12", 1),
            generation("MODIFIED", "13", 2),
            generation("DELETED", "14", 2),
        ]),
    ])
    .await;
    assert_eq!(played.hears(4).await, ["+b", "10: 1 Spec", "complete", "current"]);
    let heard = ["+a", "11: 2 Spec", "+a", "12: 2 Idle", "+a", "13: 2 Spec", "-a", "14: 1 Idle"];
    assert_eq!(played.hears(8).await, heard);
}

//! Questions over a real socket, with a thread that answers in the apply thread's place.
use std::io::{BufRead, Write};
use std::sync::mpsc;

use podwall_ruleset::Ruleset;

use super::*;
use crate::telemetry::server::Telemetry;

fn apply_thread() -> Works {
    let (works, received) = mpsc::channel();
    std::thread::spawn(move || {
        for work in received {
            match work {
                Work::Show(reply) => drop(reply.send(Ruleset::default())),
                Work::TearDown(reply) => {
                    drop(reply.send(Ok(Removed { chains: 9, sets: 4, elements: 20 })));
                }
                _ => {}
            }
        }
    });
    works
}

async fn ask(question: &'static str) -> String {
    let state = tempfile::tempdir().unwrap();
    let listener = bind(state.path()).unwrap();
    let health = Telemetry::default().health;
    let desk = Desk { node: NodeName::from("a"), works: apply_thread(), health, live: Live::default() };
    let server = tokio::spawn(serve(listener, desk));
    let socket = state.path().join("agent.sock");
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.write_all(question.as_bytes()).unwrap();
        let mut line = String::new();
        io::BufReader::new(stream).read_line(&mut line).unwrap();
        line
    });
    let answer = answer.await.unwrap();
    server.abort();
    answer
}

#[tokio::test]
async fn a_teardown_answers_with_what_was_taken_away() {
    assert_eq!(
        ask("{\"command\":\"teardown\"}\n").await,
        "{\"removed\":{\"chains\":9,\"sets\":4,\"elements\":20}}\n"
    );
}

#[tokio::test]
async fn a_status_says_what_is_not_as_it_should_be() {
    let status: serde_json::Value = serde_json::from_str(&ask("{\"command\":\"status\"}\n").await).unwrap();
    assert_eq!(status["status"]["ready"], false);
    assert_eq!(status["status"]["concerns"][0]["concern"], "uncommitted");
}

#[tokio::test]
async fn nonsense_is_answered_and_not_carried_out() {
    let answer = ask("rm -rf\n").await;
    assert!(answer.starts_with("{\"error\":\"not a question this agent knows"), "{answer}");
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_only_root_may_ask() {
    let state = tempfile::tempdir().unwrap();
    drop(bind(state.path()).unwrap());
    let _second = bind(state.path()).unwrap();
    let mode = std::fs::metadata(state.path().join("agent.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

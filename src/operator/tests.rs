use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::DynamicObject;
use podwall_crd::BanStatus;
use podwall_crd::ResourceVersion;
use podwall_crd::condition::{Condition, ConditionStatus};
use podwall_crd::node_report::{BanHits, Exception, ExceptionReason, Mark, NodeReportSpec, ReportedKind};
use podwall_crd::read::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::fleet::{Fleet, Node, Patience};
use super::ledger::{COUNTS_GAP, Clock, Ledger, Write};
use super::object::{Key, Object};
use super::*;

mod names;

const LONG_AGO: &str = "2025-01-01T00:00:00Z";
const NOW: &str = "2026-01-01T12:00:00Z";

fn moment(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn version(number: u64) -> ResourceVersion {
    ResourceVersion::parse(&number.to_string()).unwrap()
}

fn node(labels: &[(&str, &str)]) -> Node {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Node { labels: labels.collect(), born: moment(LONG_AGO) }
}

fn up_to(number: u64) -> NodeReportSpec {
    let mark = |kind| Mark { kind, resource_version: number.to_string(), objects: 0 };
    NodeReportSpec {
        marks: vec![mark(ReportedKind::Ban), mark(ReportedKind::ServiceExposure)],
        ..NodeReportSpec::default()
    }
}

fn cannot(uid: &str, field: &str, message: &str) -> Exception {
    Exception {
        kind: ReportedKind::Ban,
        namespace: String::new(),
        name: "x".to_owned(),
        uid: uid.to_owned(),
        reason: ExceptionReason::NotSupported,
        field: field.to_owned(),
        message: message.to_owned(),
    }
}

fn key(name: &str) -> Key {
    Key { kind: ReportedKind::Ban, namespace: String::new(), name: name.to_owned() }
}

/// A world with one ban of version 100 and three nodes that have come to 50, 100 and 150.
struct World {
    fleet: Fleet,
    ledger: Ledger,
    clock: Clock,
}

impl World {
    fn new(spec: &Value) -> Self {
        let clock = Clock { time: moment(NOW), steady: Instant::now() };
        let mut world = Self {
            fleet: Fleet::new(Patience { joining: 120, forget_after: 300 }),
            ledger: Ledger::new(600),
            clock,
        };
        for (name, mark) in [("node-a", 50), ("node-b", 100), ("node-c", 150)] {
            world.fleet.node(name.to_owned(), node(&[("name", name)]));
            world.fleet.report(name, version(mark), up_to(mark));
        }
        world.put("x", 1, 100, spec);
        world
    }

    fn put(&mut self, name: &str, generation: i64, number: u64, spec: &Value) {
        let status = self.ledger.get(&key(name)).map(|object| object.status.common.clone());
        self.put_with(name, (generation, number), spec, &json!(status));
    }

    fn put_with(&mut self, name: &str, (generation, number): (i64, u64), spec: &Value, status: &Value) {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "podwall.dev/v1alpha1", "kind": "Ban",
            "metadata": {
                "name": name, "uid": format!("uid-{name}"), "generation": generation,
                "resourceVersion": number.to_string(), "creationTimestamp": "2026-01-01T11:00:00Z",
            },
            "spec": spec, "status": status,
        }))
        .unwrap();
        let (key, object) = Object::read(object, self.ledger.get(&key(name))).unwrap();
        self.ledger.put(key, object, self.clock.steady);
    }

    fn pass(&mut self, seconds: i64) -> &mut Self {
        self.clock.time = Timestamp::from_second(self.clock.time.as_second() + seconds).unwrap();
        self.clock.steady += Duration::from_secs(u64::try_from(seconds).unwrap());
        self
    }

    fn round(&mut self) -> Vec<Write> {
        self.ledger.round(&mut self.fleet, self.clock, 1000).writes
    }

    /// Works out a round, and takes what it writes as written.
    fn settle(&mut self) -> usize {
        let writes = self.round();
        for write in &writes {
            if let Write::Status(key, status) = write {
                self.ledger.written(key, (**status).clone(), self.clock.steady);
            }
        }
        writes.len()
    }

    fn status(&mut self) -> BanStatus {
        self.pass(60).settle();
        self.ledger.get(&key("x")).unwrap().status.common.clone()
    }

    /// Status, reason and message of a condition.
    fn told(&mut self, kind: &str) -> (ConditionStatus, String, String) {
        let found: Condition =
            self.status().conditions.into_iter().find(|condition| condition.kind == kind).unwrap();
        (found.status, found.reason, found.message)
    }

    fn enforced(&mut self) -> (ConditionStatus, String, String) {
        self.told("Enforced")
    }
}

fn plain() -> Value {
    json!({"addresses": ["192.0.2.7"]})
}

fn said(status: ConditionStatus, reason: &str, message: &str) -> (ConditionStatus, String, String) {
    (status, reason.to_owned(), message.to_owned())
}

#[test]
fn a_ban_is_enforced_once_every_node_has_come_as_far_as_its_spec() {
    let mut world = World::new(&plain());
    let pending = said(ConditionStatus::False, "Pending", "enforced on 2/3 nodes; waiting for node-a");
    assert_eq!(world.enforced(), pending);
    world.fleet.report("node-a", version(160), up_to(100));
    assert_eq!(world.enforced(), said(ConditionStatus::True, "OnEveryNode", "enforced on 3/3 nodes"));
    let status = world.status();
    assert_eq!((status.enforced_on.as_deref(), status.observed_generation), (Some("3/3"), Some(1)));
}

#[test]
fn a_new_spec_has_to_be_followed_anew_but_labels_and_statuses_have_not() {
    let mut world = World::new(&plain());
    world.fleet.report("node-a", version(160), up_to(100));
    world.status();
    world.put("x", 1, 170, &plain());
    assert_eq!(world.enforced().0, ConditionStatus::True);
    world.put("x", 2, 180, &json!({"addresses": ["192.0.2.8"]}));
    assert_eq!(
        world.enforced(),
        said(ConditionStatus::False, "Pending", "enforced on 0/3 nodes; waiting for node-a")
    );
}

#[test]
fn an_operator_that_starts_anew_takes_up_what_the_one_before_it_saw() {
    let mut world = World::new(&plain());
    world.fleet.report("node-a", version(160), up_to(100));
    let status = json!(world.status());
    let mut heir = World::new(&plain());
    heir.fleet.report("node-a", version(160), up_to(100));
    heir.ledger = Ledger::new(600);
    heir.put_with("x", (1, 200), &plain(), &status);
    assert_eq!(heir.pass(60).round(), []);
    heir.put_with("x", (2, 210), &plain(), &status);
    assert_eq!(heir.enforced().0, ConditionStatus::False);
}

#[test]
fn a_node_that_cannot_is_named_with_the_field() {
    let mut world = World::new(&plain());
    let failing = |number, uid: &str| NodeReportSpec {
        exceptions: vec![cannot(uid, "spec.action", "this packet filter cannot reject")],
        exception_count: 1,
        ..up_to(number)
    };
    // Of another object of that name, and of an older spec: both say nothing.
    world.fleet.report("node-b", version(161), failing(100, "uid-of-another"));
    world.fleet.report("node-a", version(160), failing(99, "uid-x"));
    assert_eq!(world.enforced().1, "Pending");
    world.fleet.report("node-a", version(170), failing(100, "uid-x"));
    let message = "enforced on 2/3 nodes; node-a: spec.action: this packet filter cannot reject";
    assert_eq!(world.enforced(), said(ConditionStatus::False, "Failing", message));
    let status = world.status();
    assert_eq!(status.nodes.map(|nodes| (nodes.wanted, nodes.enforced, nodes.failed)), Some((3, 2, 1)));
    assert_eq!(
        status.last_error.map(|error| (error.node, error.field)),
        Some(("node-a".to_owned(), "spec.action".to_owned()))
    );
    world.fleet.report("node-a", version(180), up_to(100));
    assert_eq!(world.enforced().0, ConditionStatus::True);
}

#[test]
fn a_node_that_hides_exceptions_proves_nothing() {
    let mut world = World::new(&plain());
    world.fleet.report("node-a", version(160), NodeReportSpec { exception_count: 1, ..up_to(150) });
    let message = "enforced on 2/3 nodes; node-a has more exceptions than it can report";
    assert_eq!(world.enforced(), said(ConditionStatus::False, "Pending", message));
}

#[test]
fn only_nodes_with_the_labels_count_and_none_is_not_everywhere() {
    let with =
        |value: &str| json!({"addresses": ["192.0.2.7"], "nodeSelector": {"matchLabels": {"name": value}}});
    let mut world = World::new(&with("node-b"));
    assert_eq!(world.enforced(), said(ConditionStatus::True, "OnEveryNode", "enforced on 1/1 nodes"));
    let mut nowhere = World::new(&with("node-z"));
    let message = "no node has the labels of spec.nodeSelector";
    assert_eq!(nowhere.enforced(), said(ConditionStatus::False, "NoNodes", message));
}

#[test]
fn a_node_that_never_reports_is_missed_after_two_minutes_and_other_systems_never() {
    let mut world = World::new(&plain());
    world.fleet.report("node-a", version(160), up_to(100));
    world.fleet.node("windows".to_owned(), node(&[("kubernetes.io/os", "windows")]));
    let born = world.clock.time;
    world.fleet.node("late".to_owned(), Node { labels: BTreeMap::new(), born });
    assert_eq!(world.enforced().2, "enforced on 3/3 nodes");
    world.pass(60);
    let message = "enforced on 3/4 nodes; waiting for late, which has never reported: does its agent run?";
    assert_eq!(world.enforced(), said(ConditionStatus::False, "Pending", message));
    world.fleet.node_gone("late");
    assert_eq!(world.enforced().2, "enforced on 3/3 nodes");
}

#[test]
fn what_is_not_understood_is_neither_accepted_nor_enforced() {
    let mut world =
        World::new(&json!({"addresses": ["192.0.2.7"], "ports": [{"protocol": "tcp"}, {"protocol": "udp"}]}));
    let (status, reason, message) = world.told("Accepted");
    assert_eq!((status, reason.as_str()), (ConditionStatus::False, "NotUnderstood"));
    assert_eq!(message, "spec.ports[0].protocol: \"tcp\" is no protocol; the entry is left out; and 1 more");
    assert_eq!(world.enforced().1, "NotUnderstood");
    assert_eq!(World::new(&plain()).told("Accepted").0, ConditionStatus::True);
}

#[test]
fn a_ban_that_only_counts_says_so() {
    let mut world = World::new(&json!({"addresses": ["192.0.2.7"], "mode": "Audit"}));
    world.fleet.report("node-a", version(160), up_to(100));
    assert_eq!(world.enforced().2, "audited on 3/3 nodes");
}

#[test]
fn a_ban_expires_at_its_moment_and_is_deleted_after_its_rest() {
    let mut world = World::new(&json!({"addresses": ["192.0.2.7"], "duration": "65m"}));
    world.fleet.report("node-a", version(160), up_to(100));
    assert_eq!(world.told("Expired").0, ConditionStatus::False);
    assert_eq!(world.status().expires_at.as_deref(), Some("2026-01-01T12:05:00Z"));
    let next = world.ledger.round(&mut world.fleet, world.clock, 10).next;
    assert_eq!(next, Some(Duration::from_secs(180)));
    world.pass(180).settle();
    let status = world.ledger.get(&key("x")).unwrap().status.common.clone();
    let expired = status.conditions.iter().find(|condition| condition.kind == "Expired").unwrap();
    assert_eq!(
        (expired.status, expired.last_transition_time.as_str()),
        (ConditionStatus::True, "2026-01-01T12:05:00Z")
    );
    assert_eq!(world.enforced().1, "Expired");
    world.pass(480);
    assert_eq!(world.round(), []);
    world.pass(60);
    assert_eq!(world.round(), [Write::Delete(key("x"), "uid-x".to_owned())]);
    // The twin: one that is to be kept stays, and one whose time was extended is in force again.
    world.put("x", 2, 120, &json!({"addresses": ["192.0.2.7"], "duration": "65m", "afterExpiry": "Keep"}));
    assert_eq!(world.enforced().1, "Expired");
    assert_eq!(world.pass(60).round(), []);
    world.put("x", 3, 130, &json!({"addresses": ["192.0.2.7"], "duration": "2d"}));
    assert_eq!(world.told("Expired").0, ConditionStatus::False);
    assert_eq!(world.enforced().1, "Pending");
}

#[test]
fn hits_of_all_nodes_add_up_and_go_with_their_node() {
    let mut world = World::new(&plain());
    let hit = |packets| vec![BanHits { ban: "x".to_owned(), uid: "uid-x".to_owned(), packets }];
    world.fleet.report("node-a", version(160), NodeReportSpec { hits: hit(7), ..up_to(100) });
    world.fleet.report("node-b", version(161), NodeReportSpec { hits: hit(5), ..up_to(100) });
    assert_eq!(world.status().hits, Some(12));
    world.fleet.report("node-a", version(162), NodeReportSpec { hits: hit(8), ..up_to(100) });
    assert_eq!(world.status().hits, Some(13));
    world.fleet.report_gone("node-b");
    assert_eq!(world.status().hits, Some(8));
}

#[test]
fn a_settled_world_writes_nothing() {
    let mut world = World::new(&plain());
    assert_eq!(world.pass(60).settle(), 1);
    assert_eq!(world.pass(60).settle(), 0);
    world.fleet.report("node-b", version(170), up_to(150));
    assert_eq!(world.pass(60).settle(), 0);
}

#[test]
fn counts_wait_their_turn_and_conditions_go_first() {
    let mut world = World::new(&plain());
    world.put(
        "y",
        1,
        100,
        &json!({"addresses": ["192.0.2.8"], "nodeSelector": {"matchLabels": {"name": "node-a"}}}),
    );
    assert_eq!(world.pass(60).settle(), 2);
    // Node c falls back: only a count of x moves. Node a comes on: y is enforced everywhere now.
    world.fleet.report("node-c", version(170), up_to(60));
    world.pass(2);
    assert_eq!(world.round(), []);
    world.fleet.report("node-a", version(171), up_to(100));
    let round = world.ledger.round(&mut world.fleet, world.clock, 1);
    assert!(matches!(&*round.writes, [Write::Status(first, _)] if first.name == "y"), "{round:?}");
    world.settle();
    assert_eq!(world.pass(i64::try_from(COUNTS_GAP.as_secs()).unwrap()).round().len(), 1);
}

#[test]
fn a_new_ban_is_given_a_second_before_it_is_called_pending() {
    let mut world = World::new(&plain());
    let round = world.ledger.round(&mut world.fleet, world.clock, 10);
    assert_eq!((round.writes.len(), round.next), (0, Some(Duration::from_secs(1))));
    world.fleet.report("node-a", version(160), up_to(100));
    assert_eq!(world.settle(), 1);
    assert_eq!(world.enforced().0, ConditionStatus::True);
}

#[test]
fn more_work_than_the_budget_is_cut_and_comes_again_at_once() {
    let mut world = World::new(&plain());
    for number in 0..20 {
        world.put(&format!("ban-{number}"), 1, 100, &plain());
    }
    world.pass(60);
    let round = world.ledger.round(&mut world.fleet, world.clock, 5);
    assert_eq!((round.writes.len(), round.next), (5, Some(Duration::ZERO)));
}

#[test]
fn a_report_outlives_its_node_by_five_minutes() {
    let mut world = World::new(&plain());
    world.status();
    world.fleet.node_gone("node-c");
    world.pass(60).settle();
    assert_eq!(world.pass(299).round(), []);
    assert_eq!(world.pass(1).round(), [Write::Forget("node-c".to_owned())]);
    world.fleet.node("node-c".to_owned(), node(&[]));
    assert_eq!(world.pass(60).round().iter().filter(|write| matches!(write, Write::Forget(_))).count(), 0);
}

#[test]
fn a_budget_saves_at_most_a_second() {
    let start = Instant::now();
    let mut budget = Budget::new(50, start);
    assert_eq!(budget.whole(start + Duration::from_secs(60)), 50);
    for _ in 0..50 {
        budget.spend();
    }
    assert_eq!(budget.whole(start + Duration::from_millis(60_100)), 5);
}

#[test]
fn a_message_is_no_longer_than_the_schema_takes() {
    let mut world = World::new(&plain());
    let long = NodeReportSpec {
        exceptions: vec![cannot("uid-x", "", &"ü".repeat(600))],
        exception_count: 1,
        ..up_to(100)
    };
    world.fleet.report("node-a", version(160), long);
    let message = world.enforced().2;
    assert!(message.len() <= 1024 && message.ends_with('…'), "{}", message.len());
}

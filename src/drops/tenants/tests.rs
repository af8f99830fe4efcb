use podwall_engine::ingest;
use serde_json::json;

use super::*;

const ADDRESS: &str = "10.0.0.1";

struct World {
    tenants: Tenants,
    cluster: Cluster,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

impl World {
    fn new() -> Self {
        Self { tenants: Tenants::default(), cluster: Cluster::default() }
    }

    fn change(&mut self, change: Change, now: i64) {
        self.tenants.note(&change, &self.cluster, at(now), Beginning::Over);
        self.cluster.apply(change);
    }

    fn pod(&mut self, name: &str, phase: &str, started: i64, now: i64) {
        let object = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": name, "uid": name}, "spec": {"nodeName": "n1"},
            "status": {"phase": phase, "podIPs": [{"ip": ADDRESS}], "startTime": at(started).to_string()}});
        self.change(ingest::object(&object).unwrap().unwrap().0, now);
    }

    fn gone(&mut self, name: &str, now: i64) {
        self.change(Change::PodGone(PodUid(name.into())), now);
    }

    fn who(&self, second: i64) -> String {
        match self.tenants.at(&self.cluster, ADDRESS.parse().unwrap(), at(second)) {
            Tenant::Known(pod) => pod.name.to_string(),
            Tenant::Likely(pod) => format!("{}?", pod.name),
            Tenant::Nobody => "nobody".to_owned(),
        }
    }
}

#[test]
fn an_address_used_again_is_told_by_the_time_of_the_packet() {
    let mut world = World::new();
    world.pod("first", "Running", 0, 10);
    world.gone("first", 20);
    world.pod("second", "Running", 25, 30);
    assert_eq!(
        [15, 20, 27, 30, 99].map(|second| world.who(second)),
        ["first", "first", "second", "second", "second"]
    );
    assert_eq!(world.who(22), "first?", "the second had not started yet");
}

#[test]
fn a_pod_that_lived_two_seconds_is_found_after_it_is_gone() {
    let mut world = World::new();
    world.pod("brief", "Running", 10, 11);
    world.gone("brief", 12);
    assert_eq!([11, 12].map(|second| world.who(second)), ["brief", "brief"]);
    assert_eq!((world.who(14), world.who(60)), ("brief?".to_owned(), "nobody".to_owned()));
}

#[test]
fn a_pod_whose_end_alone_was_told_is_found_by_when_it_started() {
    let mut world = World::new();
    world.pod("job", "Succeeded", 10, 13);
    assert_eq!((world.who(11), world.who(5)), ("job".to_owned(), "nobody".to_owned()));
    world.gone("job", 14);
    assert_eq!(world.who(11), "job");
}

#[test]
fn a_finished_pod_leaves_its_address_before_it_is_deleted() {
    let mut world = World::new();
    world.pod("job", "Running", 0, 1);
    world.pod("job", "Succeeded", 0, 5);
    world.pod("next", "Running", 6, 7);
    world.gone("job", 100);
    assert_eq!([3, 8, 101].map(|second| world.who(second)), ["job", "next", "next"]);
}

#[test]
fn memory_is_bounded_in_time_and_number() {
    let mut world = World::new();
    world.pod("old", "Running", 0, 1);
    world.gone("old", 2);
    world.pod("x", "Running", 1000, 1000);
    assert_eq!(world.who(2), "x?", "too long ago to remember");
    for number in 0..2 * i64::try_from(MOST).unwrap() {
        let (name, now) = (format!("p{number}"), 1001);
        world.pod(&name, "Running", now, now);
        world.gone(&name, now);
    }
    assert!(world.tenants.leavings.len() <= MOST + 1 && world.tenants.arrivals.len() <= MOST + 1);
    assert!(world.tenants.left.values().map(Vec::len).sum::<usize>() <= MOST + 1);
}

#[test]
fn those_there_at_the_beginning_have_always_been_there() {
    let mut world = World::new();
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "web", "uid": "w"},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIPs": [{"ip": ADDRESS}]}});
    let change = ingest::object(&object).unwrap().unwrap().0;
    world.tenants.note(&change, &world.cluster, at(50), Beginning::Reading);
    world.cluster.apply(change);
    assert_eq!(world.who(10), "web");
}

//! What somebody would write who wants in, or wants the node down: odd objects that once opened something, and cheap
//! ones that were expensive.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on shall say so and stop"
)]
use std::net::IpAddr;

use podwall_engine::{Change, Engine, NodeName, Options, Warning, ingest};
use podwall_ruleset::evaluate::{Decision, evaluate};
use podwall_ruleset::packet::{Packet, Transport};
use serde_json::{Value, json};

fn node(objects: &[Value]) -> (Engine, Vec<Warning>) {
    let mut engine = Engine::new(NodeName::from("n1"), Options::default());
    let mut warnings = Vec::new();
    for object in objects {
        let (change, told) = ingest::object(object).expect("readable").expect("of use");
        engine.apply(change);
        warnings.extend(told);
    }
    (engine, warnings)
}

fn passes(engine: &Engine, from: &str, to: &str) -> bool {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let packet = Packet::opening(from, to, Transport::Tcp { port: 80, opening: true });
    matches!(evaluate(engine.ruleset(), &packet).decision, Decision::Accept)
}

fn pod(name: &str, addresses: &[&str]) -> Value {
    let list: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "x", "name": name, "labels": {"pod": name}},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "podIP": addresses[0], "podIPs": list},
    })
}

fn policy(spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "x", "name": "p", "uid": "u"}, "spec": spec,
    })
}

#[test]
fn a_pod_whose_address_is_written_as_mapped_ipv4_is_isolated_as_the_ipv4_it_is_on_the_wire() {
    for written in ["::ffff:10.244.1.5", "::ffff:af4:105", "10.244.1.005"] {
        let (engine, _) = node(&[pod("a", &[written]), policy(&json!({}))]);
        assert!(!passes(&engine, "192.0.2.1", "10.244.1.5"), "{written}");
        assert!(passes(&engine, "192.0.2.1", "10.244.1.6"), "{written}: a neighbour nobody speaks of");
    }
}

#[test]
fn a_packet_from_its_own_destination_is_shut_unless_it_was_translated() {
    let (engine, _) = node(&[pod("a", &["10.244.1.5"]), policy(&json!({}))]);
    let victim: IpAddr = "10.244.1.5".parse().unwrap();
    let packet = Packet::opening(victim, victim, Transport::Udp(80));
    let passes = |packet: &Packet| evaluate(engine.ruleset(), packet).decision == Decision::Accept;
    assert!(passes(&packet), "it came back from a service");
    assert!(!passes(&Packet { translated: false, ..packet }), "a neighbour's, with a forged source");
}

#[test]
fn an_empty_namespace_in_a_manifest_is_the_default_one_in_every_kind() {
    let mut pod = pod("a", &["10.244.1.5"]);
    pod["metadata"]["namespace"] = "".into();
    let mut policy = policy(&json!({}));
    policy["metadata"].as_object_mut().unwrap().remove("namespace");
    let (engine, _) = node(&[pod, policy]);
    assert!(!passes(&engine, "192.0.2.1", "10.244.1.5"));
}

#[test]
fn a_kind_of_ours_in_a_version_that_does_not_exist_is_told_and_somebody_elses_kind_is_not() {
    for version in ["networking.k8s.io/v2", "networking/v1", "extensions/v1beta1", "v1", ""] {
        let raw = json!({"apiVersion": version, "kind": "NetworkPolicy", "metadata": {"name": "p"}});
        let refused = ingest::object(&raw).expect_err(version);
        assert_eq!((refused.field.as_str(), &*refused.object.name), ("apiVersion", "p"), "{version}");
    }
    for version in ["projectcalico.org/v3", "crd.projectcalico.org/v1"] {
        let raw = json!({"apiVersion": version, "kind": "NetworkPolicy", "metadata": {"name": "p"}});
        assert_eq!(ingest::object(&raw), Ok(None), "{version}");
    }
}

#[test]
fn a_small_policy_cannot_ask_for_more_sets_than_a_kernel_loads_in_a_blink() {
    let peers: Vec<Value> =
        (0..300).map(|n| json!({"podSelector": {"matchLabels": {"k": format!("v{n}")}}})).collect();
    let names: Vec<Value> = (0..300).map(|n| json!({"port": format!("p{n}")})).collect();
    let spec = json!({"policyTypes": ["Egress"], "egress": [
        {"to": peers, "ports": names},
        {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
    ]});
    let (engine, warnings) = node(&[pod("a", &["10.244.1.5"]), policy(&spec)]);
    let fields: Vec<&str> = warnings.iter().map(|warning| warning.field.as_str()).collect();
    assert_eq!(fields, ["spec.egress[0]"]);
    assert!(engine.ruleset().sets.len() < 50, "{}", engine.ruleset().sets.len());
    assert!(!passes(&engine, "10.244.1.5", "198.51.100.1"), "it isolates all the same");
    assert!(passes(&engine, "10.244.1.5", "192.0.2.1"), "and its other rules stand");
}

#[test]
fn a_policy_of_a_thousand_selectors_is_taken_as_it_is() {
    let rules: Vec<Value> = (0..1000)
        .map(|n| json!({"from": [{"podSelector": {"matchLabels": {"k": format!("v{n}")}}}], "ports": [{"port": 80}, {"port": 81}]}))
        .collect();
    let (_, warnings) = node(&[pod("a", &["10.244.1.5"]), policy(&json!({"ingress": rules}))]);
    assert_eq!(warnings, []);
}

#[test]
fn objects_as_large_as_an_api_server_takes_are_read_and_judged() {
    let labels: serde_json::Map<String, Value> =
        (0..20_000).map(|n| (format!("{n}.example/{}", "k".repeat(50)), json!("ü".repeat(20)))).collect();
    let mut huge = pod("a", &["10.244.1.5"]);
    huge["metadata"]["labels"] = labels.into();
    huge["spec"]["containers"] = json!([{"name": "c", "ports":
        (1..=10_000).map(|n| json!({"name": format!("p{n}"), "containerPort": n})).collect::<Vec<_>>()}]);
    let (engine, _) = node(&[huge, policy(&json!({}))]);
    assert!(!passes(&engine, "192.0.2.1", "10.244.1.5"));
    let (mut engine, _) = node(&[policy(&json!({}))]);
    let named = pod(&"n".repeat(253), &["10.244.1.5"]);
    engine.apply(Change::Pod(ingest::pod(&serde_json::from_value(named).unwrap()).unwrap().0));
    assert!(!passes(&engine, "192.0.2.1", "10.244.1.5"));
}

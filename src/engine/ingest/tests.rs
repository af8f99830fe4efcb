//! Bad input: what cannot be understood is named by its exact field, closes, and never panics.
//!
//! What good input means is proven with packets, in `tests/semantics`.
mod random;

use serde_json::{Value, json};

use super::*;
use crate::model::ban::Mode;
use crate::model::{Life, Network, Peer, Peers, PolicyRule, Ports};

fn policy_of(spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "x", "name": "p", "uid": "u"},
        "spec": spec,
    })
}

fn read(spec: &Value) -> Ingested {
    network_policy(&policy_of(spec)).expect("it has a name")
}

/// Fields that were warned about.
fn fields(spec: &Value) -> Vec<String> {
    read(spec).warnings.into_iter().map(|warning| warning.field).collect()
}

fn only_ingress_rule(spec: &Value) -> PolicyRule {
    let rules = read(spec).policy.ingress.expect("ingress is in force");
    let [rule] = rules.as_slice() else { panic!("{spec}: {rules:?}") };
    rule.clone()
}

/// A peer beside a good one, and where it is complained about.
fn peer_alone(bad: &Value, field: &str) {
    let good = json!({"podSelector": {"matchLabels": {"app": "good"}}});
    let spec = json!({"ingress": [{"from": [bad, good]}]});
    assert_eq!(fields(&spec), [field], "{bad}");
    let Peers::List(peers) = only_ingress_rule(&spec).peers else { panic!("{bad}") };
    let [Peer::Never, Peer::Pods(_)] = peers.as_slice() else { panic!("{bad}: {peers:?}") };
}

/// A port beside a good one, and where it is complained about.
fn port_alone(bad: &Value, field: &str) {
    let good = json!({"port": 443});
    let spec = json!({"ingress": [{"ports": [bad, good]}]});
    assert_eq!(fields(&spec), [field], "{bad}");
    let alone = only_ingress_rule(&json!({"ingress": [{"ports": [good]}]})).ports;
    assert_eq!(only_ingress_rule(&spec).ports, alone, "{bad}");
}

#[test]
fn an_unknown_field_closes_the_smallest_thing_that_holds_it() {
    peer_alone(&json!({"podSelector": {}, "serviceSelector": {}}), "spec.ingress[0].from[0].serviceSelector");
    peer_alone(
        &json!({"podSelector": {"matchFields": []}}),
        "spec.ingress[0].from[0].podSelector.matchFields",
    );
    peer_alone(
        &json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "value": "b"}]}}),
        "spec.ingress[0].from[0].namespaceSelector.matchExpressions[0].value",
    );
    peer_alone(
        &json!({"ipBlock": {"cidr": "10.0.0.0/8", "excepts": []}}),
        "spec.ingress[0].from[0].ipBlock.excepts",
    );
    port_alone(&json!({"port": 80, "portEnd": 90}), "spec.ingress[0].ports[0].portEnd");
}

#[test]
fn an_unknown_field_of_a_rule_makes_it_allow_nothing_and_leaves_its_neighbour_standing() {
    let spec = json!({"ingress": [{"form": [{"podSelector": {}}]}, {}]});
    assert_eq!(fields(&spec), ["spec.ingress[0].form"]);
    let rules = read(&spec).policy.ingress.expect("in force");
    let [closed, open] = rules.as_slice() else { panic!("{rules:?}") };
    assert_eq!((&closed.peers, &open.peers), (&Peers::List(Vec::new()), &Peers::Any));
}

#[test]
fn an_unknown_field_of_the_spec_isolates_the_whole_namespace_both_ways() {
    for spec in
        [json!({"podSelectors": {}, "ingress": [{}]}), json!({"tier": 1}), json!([]), json!("x"), json!(1)]
    {
        let Ingested { policy, warnings } = read(&spec);
        assert_eq!(warnings.len(), 1, "{spec}");
        assert!(warnings[0].field.starts_with("spec"), "{warnings:?}");
        assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), Some(Vec::new())), "{spec}");
        assert!(policy.subject.pods.is_everything(), "{spec}");
    }
}

#[test]
fn only_the_very_word_takes_a_policy_out_of_force() {
    let read = |annotations: Value| {
        let mut raw = policy_of(&json!({}));
        raw["metadata"]["annotations"] = annotations;
        let Ingested { policy, warnings } = network_policy(&raw).expect("it has a name");
        (policy.mode, warnings.into_iter().map(|warning| warning.field).collect::<Vec<_>>())
    };
    let mark = |word: Value| read(json!({"podwall.dev/mode": word, "example.com/mode": "audit"}));
    assert_eq!(mark(json!("audit")), (Mode::Audit, vec![]));
    assert_eq!(mark(json!("enforce")), (Mode::Enforce, vec![]));
    assert_eq!(mark(json!(null)), (Mode::Enforce, vec![]));
    for odd in
        ["Audit", " audit", "audit ", "off", "true", ""].map(Value::from).into_iter().chain([json!(true)])
    {
        let told = vec!["metadata.annotations[podwall.dev/mode]".to_owned()];
        assert_eq!(mark(odd.clone()), (Mode::Enforce, told), "{odd}");
    }
    for none in [json!(null), json!({}), json!({"example.com/x": "y"})] {
        assert_eq!(read(none), (Mode::Enforce, vec![]));
    }
    assert_eq!(read(json!("audit")), (Mode::Enforce, vec!["metadata.annotations".to_owned()]));
    let misspelt = vec!["metadata.annotations[podwall.dev/mod]".to_owned()];
    assert_eq!(read(json!({"podwall.dev/mod": "audit"})), (Mode::Enforce, misspelt));
}

#[test]
fn every_unknown_field_is_named() {
    assert_eq!(fields(&json!({"a": 1, "b": 2, "ingress": [{}]})), ["spec.a", "spec.b"]);
    let two = json!({"ingress": [{"x": 1, "y": 1}], "egress": [{"z": 1}]});
    assert_eq!(fields(&two), ["spec.ingress[0].x", "spec.ingress[0].y", "spec.egress[0].z"]);
}

#[test]
fn a_subject_selector_that_is_wrong_isolates_the_whole_namespace() {
    for (selector, field) in [
        (json!("web"), "spec.podSelector"),
        (json!({"matchLabels": []}), "spec.podSelector.matchLabels"),
        (json!({"matchLabels": {"app": 1}}), "spec.podSelector.matchLabels[app]"),
        (json!({"matchExpressions": {}}), "spec.podSelector.matchExpressions"),
        (json!({"matchExpressions": ["x"]}), "spec.podSelector.matchExpressions[0]"),
        (
            json!({"matchExpressions": [{"key": 1, "operator": "Exists"}]}),
            "spec.podSelector.matchExpressions[0].key",
        ),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}),
            "spec.podSelector.matchExpressions[0].operator",
        ),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "In", "values": [1]}]}),
            "spec.podSelector.matchExpressions[0].values[0]",
        ),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            "spec.podSelector.matchExpressions[0].values",
        ),
    ] {
        let spec = json!({"podSelector": selector, "ingress": [{}], "policyTypes": ["Ingress"]});
        assert_eq!(fields(&spec), [field], "{selector}");
        let policy = read(&spec).policy;
        assert!(policy.subject.pods.is_everything(), "{selector}");
        assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), Some(Vec::new())), "{selector}");
    }
}

#[test]
fn an_unknown_policy_type_puts_both_directions_in_force() {
    for (types, field) in [
        (json!(["Ingres"]), "spec.policyTypes[0]"),
        (json!(["Ingress", "Both"]), "spec.policyTypes[1]"),
        (json!([1]), "spec.policyTypes[0]"),
        (json!([null]), "spec.policyTypes[0]"),
        (json!("Ingress"), "spec.policyTypes"),
        (json!({}), "spec.policyTypes"),
    ] {
        let spec = json!({"policyTypes": types});
        assert_eq!(fields(&spec), [field], "{types}");
        let policy = read(&spec).policy;
        assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), Some(Vec::new())), "{types}");
    }
}

#[test]
fn a_rule_list_that_is_none_still_isolates_and_allows_nothing() {
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for wrong in [json!({}), json!("all"), json!(true)] {
            let spec = json!({direction: wrong});
            assert_eq!(fields(&spec), [format!("spec.{direction}")]);
            let policy = read(&spec).policy;
            let rules = if direction == "ingress" { policy.ingress } else { policy.egress };
            let closed =
                rules.is_some_and(|rules| rules.iter().all(|rule| rule.peers == Peers::List(Vec::new())));
            assert!(closed, "{spec}");
        }
        for wrong in [json!(null), json!([]), json!("x")] {
            assert_eq!(fields(&json!({direction: [wrong]})), [format!("spec.{direction}[0]")]);
        }
        assert_eq!(fields(&json!({direction: [{peers: {}}]})), [format!("spec.{direction}[0].{peers}")]);
        assert_eq!(fields(&json!({direction: [{"ports": "80"}]})), [format!("spec.{direction}[0].ports")]);
    }
    let no_list = only_ingress_rule(&json!({"ingress": [{"from": {"podSelector": {}}}]}));
    assert_eq!(no_list.peers, Peers::List(Vec::new()));
    let no_list = only_ingress_rule(&json!({"ingress": [{"ports": {"port": 80}}]}));
    assert_eq!(no_list.ports, Ports::List(Vec::new()));
}

#[test]
fn the_key_of_the_other_direction_is_unknown() {
    assert_eq!(fields(&json!({"ingress": [{"to": []}]})), ["spec.ingress[0].to"]);
    assert_eq!(fields(&json!({"egress": [{"from": []}]})), ["spec.egress[0].from"]);
}

#[test]
fn a_bad_peer_matches_nobody() {
    let at = "spec.ingress[0].from[0]";
    peer_alone(&json!({}), at);
    peer_alone(&json!(null), at);
    peer_alone(&json!([]), at);
    peer_alone(&json!("10.0.0.0/8"), at);
    peer_alone(&json!({"podSelector": null}), at);
    peer_alone(&json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}), at);
    peer_alone(&json!({"namespaceSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}), at);
    peer_alone(&json!({"podSelector": "all"}), "spec.ingress[0].from[0].podSelector");
    peer_alone(&json!({"namespaceSelector": 7}), "spec.ingress[0].from[0].namespaceSelector");
    peer_alone(
        &json!({"namespaceSelector": {"matchLabels": {"a": null}}}),
        "spec.ingress[0].from[0].namespaceSelector.matchLabels[a]",
    );
}

#[test]
fn a_bad_block_matches_nobody() {
    let cidr = "spec.ingress[0].from[0].ipBlock.cidr";
    for wrong in [
        json!("10.0.0.0"),
        json!("10.0.0.0/33"),
        json!("10.0.0/8"),
        json!("10.0.0.256/32"),
        json!("::/129"),
        json!("10.0.0.0/8/8"),
        json!("10.0.0.0/-1"),
        json!("10.0.0.0/+8"),
        json!("10.0.0.0/ 8"),
        json!("/8"),
        json!(""),
        json!("everything"),
        json!(10),
        json!(null),
    ] {
        peer_alone(&json!({"ipBlock": {"cidr": wrong}}), cidr);
    }
    peer_alone(&json!({"ipBlock": {}}), cidr);
    peer_alone(&json!({"ipBlock": "10.0.0.0/8"}), "spec.ingress[0].from[0].ipBlock");
    let except = |wrong: Value| json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": wrong}});
    peer_alone(&except(json!("10.1.0.0/16")), "spec.ingress[0].from[0].ipBlock.except");
    let first = "spec.ingress[0].from[0].ipBlock.except[0]";
    for wrong in
        [json!("x"), json!(1), json!(null), json!("11.0.0.0/16"), json!("fd00::/64"), json!("10.0.0.0/7")]
    {
        peer_alone(&except(json!([wrong])), first);
    }
    peer_alone(&except(json!(["10.1.0.0/16", "x"])), "spec.ingress[0].from[0].ipBlock.except[1]");
}

#[test]
fn a_bad_port_matches_nothing() {
    let at = "spec.ingress[0].ports[0]";
    for wrong in [json!(null), json!(80), json!("80"), json!([])] {
        port_alone(&wrong, at);
    }
    let port = "spec.ingress[0].ports[0].port";
    for wrong in [json!(0), json!(65536), json!(-1), json!(80.5), json!(true), json!({}), json!([80])] {
        port_alone(&json!({"port": wrong}), port);
    }
    for name in ["80", "", "Web", "web_1", "-web", "web-", "we--b", "a-name-of-sixteen", "wéb"] {
        port_alone(&json!({"port": name}), port);
    }
    let protocol = "spec.ingress[0].ports[0].protocol";
    for wrong in [json!("tcp"), json!("ICMP"), json!(""), json!(6), json!([])] {
        port_alone(&json!({"protocol": wrong, "port": 80}), protocol);
    }
    let end = "spec.ingress[0].ports[0].endPort";
    port_alone(&json!({"endPort": 90}), end);
    port_alone(&json!({"port": "web", "endPort": 90}), end);
    port_alone(&json!({"port": null, "endPort": 90}), end);
}

#[test]
fn an_impossible_end_of_a_range_leaves_its_single_start() {
    for end in [json!(79), json!(0), json!(65536), json!("90"), json!(-1), json!(85.5), json!([])] {
        let spec = json!({"ingress": [{"ports": [{"port": 80, "endPort": end}]}]});
        assert_eq!(fields(&spec), ["spec.ingress[0].ports[0].endPort"], "{end}");
        let single = only_ingress_rule(&json!({"ingress": [{"ports": [{"port": 80}]}]})).ports;
        assert_eq!(only_ingress_rule(&spec).ports, single, "{end}");
    }
}

#[test]
fn when_all_peers_or_all_ports_are_bad_the_rule_allows_nothing_rather_than_everything() {
    let rule = only_ingress_rule(&json!({"ingress": [{"from": [{}], "ports": [{"port": 0}]}]}));
    assert_eq!((rule.peers, rule.ports), (Peers::List(vec![Peer::Never]), Ports::List(Vec::new())));
}

#[test]
fn a_warning_names_the_object_and_the_field_for_a_person() {
    let warning = read(&json!({"ingress": [{"ports": [{"port": 0}]}]})).warnings.remove(0);
    assert_eq!(
        warning.to_string(),
        "NetworkPolicy x/p: spec.ingress[0].ports[0].port: must be between 1 and 65535"
    );
}

#[test]
fn an_object_without_a_name_or_of_a_wrong_type_is_refused_with_its_field() {
    let refused = |raw: Value| object(&raw).expect_err("refused").field;
    let typed =
        |group: &str, kind: &str, meta: Value| json!({"apiVersion": group, "kind": kind, "metadata": meta});
    assert_eq!(refused(typed("networking.k8s.io/v1", "NetworkPolicy", json!({}))), "metadata.name");
    assert_eq!(refused(typed("networking.k8s.io/v1", "NetworkPolicy", json!({"name": 1}))), "metadata.name");
    let nowhere = json!({"name": "p", "namespace": 1});
    assert_eq!(refused(typed("networking.k8s.io/v1", "NetworkPolicy", nowhere)), "metadata.namespace");
    for kind in ["Pod", "Namespace", "Node"] {
        assert_eq!(refused(typed("v1", kind, json!({}))), "metadata.name", "{kind}");
        assert_eq!(refused(typed("v1", kind, json!({"name": ""}))), "metadata.name", "{kind}");
    }
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "status": {"podIPs": "x"}});
    assert!(object(&pod).expect_err("refused").problem.contains("podIPs") || object(&pod).is_err());
}

#[test]
fn kinds_of_no_use_are_passed_over() {
    for (group, kind) in [("v1", "ConfigMap"), ("apps/v1", "Deployment"), ("example.com/v1", "Pod"), ("", "")]
    {
        let raw = json!({"apiVersion": group, "kind": kind, "metadata": {"name": "a"}});
        assert_eq!(object(&raw).expect("readable"), None, "{kind}");
    }
    assert_eq!(object(&json!(7)).expect("readable"), None);
}

#[test]
fn odd_parts_of_a_pod_are_left_out_and_the_rest_is_read() {
    let raw = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {
            "hostNetwork": null,
            "nodeName": "",
            "containers": [
                {"ports": [
                    {"name": "low", "containerPort": 0},
                    {"name": "high", "containerPort": 65536},
                    {"name": "odd", "containerPort": 80, "protocol": "ICMP"},
                    {"containerPort": 80},
                    {"name": "web", "containerPort": 80},
                ]},
                {"ports": null},
            ],
            "initContainers": null,
        },
        "status": {"phase": "Weird", "podIPs": [{"ip": "nonsense"}, {}, {"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]},
    });
    let Some((Change::Pod(pod), _)) = object(&raw).expect("readable") else { panic!("no pod") };
    let names: Vec<&str> = pod.ports.iter().map(|port| &*port.name).collect();
    assert_eq!(names, ["web"]);
    assert_eq!(pod.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().expect("an address")]);
    assert_eq!((pod.node, pod.network, pod.life), (None, Network::Own, Life::Live));
    assert_eq!((&*pod.namespace, &*pod.uid.0), ("default", "default/a"));
}

#[test]
fn odd_parts_of_a_node_are_left_out() {
    let raw = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "x"]},
        "status": {"addresses": [{"type": "Hostname", "address": "n.example"}, {"address": "192.0.2.1"}, {}]},
    });
    let Some((Change::Node(node), _)) = object(&raw).expect("readable") else { panic!("no node") };
    assert_eq!(node.addresses, ["192.0.2.1".parse::<std::net::IpAddr>().expect("an address")]);
    assert_eq!(node.pod_ranges, ["10.1.0.0/24".parse().expect("a range")]);
}

//! The naive reading against the table of the semantics reference, sentence by sentence.

use serde_json::json;

use super::*;
use crate::objects::{mk_namespace, mk_pod, mk_policy};

const SERVER: &str = "10.0.0.1";
const CLIENT: &str = "10.0.0.2";
const STRANGER: &str = "10.0.0.3";

/// A server and a client in `shop`, a stranger in `other`, and one policy in `shop`.
fn world(spec: &Value) -> Vec<Value> {
    vec![
        mk_namespace("shop", &[("team", "red")]),
        mk_namespace("other", &[]),
        mk_pod("shop", "server")
            .on("a")
            .labels(&[("app", "server")])
            .addresses(&[SERVER, "fd00::1"])
            .port("http", 80, "TCP")
            .build(),
        mk_pod("shop", "client").on("b").labels(&[("app", "client")]).addresses(&[CLIENT, "fd00::2"]).build(),
        mk_pod("other", "stranger").on("b").addresses(&[STRANGER]).build(),
        mk_policy("shop", "policy", spec),
    ]
}

fn flow(source: &str, destination: &str, transport: Transport) -> Flow {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    Flow { source, destination, transport, sender: Sender::Elsewhere }
}

/// Whether client and stranger reach the server on TCP 80, and whether the client may be pinged by the server.
fn seen(spec: &Value) -> [Verdict; 3] {
    let world = world(spec);
    [
        verdict(&world, &flow(CLIENT, SERVER, Transport::Tcp(80))),
        verdict(&world, &flow(STRANGER, SERVER, Transport::Tcp(80))),
        verdict(&world, &flow(SERVER, CLIENT, Transport::Echo)),
    ]
}

const YES: Verdict = Verdict::Allowed;
const NO: Verdict = Verdict::Denied;

#[test]
fn an_empty_spec_denies_all_ingress_of_the_namespace() {
    assert_eq!(seen(&json!({})), [NO, NO, NO]);
    assert_eq!(seen(&json!({"ingress": []})), [NO, NO, NO]);
    assert_eq!(seen(&json!({"ingress": null, "policyTypes": []})), [NO, NO, NO]);
}

#[test]
fn an_empty_egress_list_without_types_does_not_isolate_egress() {
    let server = json!({"app": "server"});
    let spec = json!({"podSelector": {"matchLabels": server}, "ingress": [{}], "egress": []});
    assert_eq!(seen(&spec), [YES, YES, YES]);
    let spec = json!({"podSelector": {"matchLabels": server}, "ingress": [{}], "egress": [], "policyTypes": ["Egress"]});
    assert_eq!(seen(&spec), [YES, YES, NO]);
}

#[test]
fn an_empty_rule_admits_everything_and_a_port_without_protocol_only_tcp() {
    assert_eq!(seen(&json!({"ingress": [{}]})), [YES, YES, YES]);
    assert_eq!(seen(&json!({"ingress": [{"ports": [{}]}]})), [YES, YES, NO]);
    assert_eq!(seen(&json!({"ingress": [{"ports": [{"protocol": "UDP"}]}]})), [NO, NO, NO]);
}

#[test]
fn a_pod_selector_alone_means_the_policys_namespace_and_a_null_one_is_not_given() {
    let from = |peer: Value| seen(&json!({"ingress": [{"from": [peer]}]}));
    assert_eq!(from(json!({"podSelector": {}})), [YES, NO, YES]);
    assert_eq!(from(json!({"namespaceSelector": {}})), [YES, YES, YES]);
    assert_eq!(from(json!({"namespaceSelector": {"matchLabels": {"team": "red"}}})), [YES, NO, YES]);
    assert_eq!(from(json!({"podSelector": null, "namespaceSelector": null})), [NO, NO, NO]);
    assert_eq!(
        from(
            json!({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}})
        ),
        [NO, YES, NO]
    );
}

#[test]
fn an_unknown_namespace_matches_no_requirement_not_even_a_negative_one() {
    let selector = json!({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]});
    let mut world = world(&json!({"ingress": [{"from": [{"namespaceSelector": selector}]}]}));
    world.remove(1);
    assert_eq!(verdict(&world, &flow(STRANGER, SERVER, Transport::Tcp(80))), NO);
}

#[test]
fn named_ports_are_the_destinations_own_and_keep_their_protocol() {
    let ports = |name: &str, protocol: &str| {
        seen(&json!({"ingress": [{"ports": [{"port": name, "protocol": protocol}]}]}))
    };
    assert_eq!(ports("http", "TCP"), [YES, YES, NO]);
    assert_eq!(ports("http", "UDP"), [NO, NO, NO]);
    assert_eq!(ports("ghost", "TCP"), [NO, NO, NO]);
}

#[test]
fn blocks_are_addresses_less_their_own_exceptions_in_one_family() {
    let from = |block: Value| seen(&json!({"ingress": [{"from": [{"ipBlock": block}]}]}));
    assert_eq!(from(json!({"cidr": "10.0.0.0/30", "except": ["10.0.0.2/32"]})), [NO, YES, YES]);
    assert_eq!(from(json!({"cidr": "::/0"})), [NO, NO, NO]);
    assert_eq!(from(json!({"cidr": "::ffff:10.0.0.2/128"})), [YES, NO, NO]);
    assert_eq!(from(json!({"cidr": "010.000.0.3/31"})), [YES, YES, NO]);
}

#[test]
fn the_own_node_always_gets_in_but_only_as_a_sender_not_as_an_address() {
    let world = world(&json!({}));
    let from = |sender| Flow { sender, ..flow("192.168.0.1", SERVER, Transport::Tcp(80)) };
    assert_eq!(verdict(&world, &from(Sender::Node("a".to_owned()))), YES);
    assert_eq!(verdict(&world, &from(Sender::Node("b".to_owned()))), NO);
    assert_eq!(verdict(&world, &from(Sender::Elsewhere)), NO);
}

#[test]
fn a_pod_reaches_itself_and_transit_is_nobodys_business() {
    let world = world(&json!({"policyTypes": ["Ingress", "Egress"]}));
    assert_eq!(verdict(&world, &flow(SERVER, SERVER, Transport::Tcp(80))), YES);
    assert_eq!(verdict(&world, &flow("1.1.1.1", "2.2.2.2", Transport::Tcp(80))), YES);
    assert_eq!(verdict(&world, &flow(SERVER, "2.2.2.2", Transport::Tcp(80))), NO);
}

#[test]
fn a_finished_pods_address_is_nobodys_and_an_inherited_one_is_the_heirs() {
    let mut world = world(&json!({"podSelector": {"matchLabels": {"app": "server"}}}));
    let heir = || mk_pod("other", "heir").on("a").addresses(&[SERVER]).started("2026-01-02T00:00:00Z");
    world.push(heir().build());
    assert_eq!(verdict(&world, &flow(CLIENT, SERVER, Transport::Tcp(80))), YES);
    assert_eq!(verdict(&world, &flow("fd00::2", "fd00::1", Transport::Tcp(80))), NO);
    world.pop();
    world.push(heir().terminating().build());
    assert_eq!(verdict(&world, &flow(CLIENT, SERVER, Transport::Tcp(80))), NO);
    world.pop();
    world.push(heir().phase("Succeeded").build());
    assert_eq!(verdict(&world, &flow(CLIENT, SERVER, Transport::Tcp(80))), NO);
}

#[test]
fn each_node_judges_its_own_pods_only() {
    let world = world(&json!({"podSelector": {"matchLabels": {"app": "server"}}}));
    let flow = flow(CLIENT, SERVER, Transport::Tcp(80));
    assert_eq!([verdict_on(&world, &flow, "a"), verdict_on(&world, &flow, "b")], [NO, YES]);
}

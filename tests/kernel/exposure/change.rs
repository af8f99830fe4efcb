//! What changes about a Service, its exposures and who is inside is followed, and in between nobody comes in whom
//! neither the old nor the new state lets in.
use std::time::Duration;

use super::*;
use crate::rig::serving;
use crate::rig::stream::{self, Stream, Tally};

fn allow(name: &str, blocks: &str) -> Value {
    exposure(name, &format!("{{services: {{names: [cat]}}, allow: [{{from: [{blocks}]}}]}}"))
}

#[test]
fn who_comes_to_live_in_the_cluster_comes_in_and_who_leaves_it_no_longer_does() {
    let Some(mut rig) = ground() else { return };
    translate(&rig, Mode::Iptables, 30_080);
    rig.apply(&[exposure("shut", "{services: {names: [cat]}}")]);
    let doors = nodes(&rig);
    rig.add_pod(serving(PodPlan::new("green/new").on("east")), &[("kind", "new")]);
    // A pod the API server has not shown yet is nobody.
    let west = rig.lab.node("west").expect("there").addresses().to_vec();
    shut(&rig, "green/new", &west, &DOORS);
    rig.commit();
    rig.forget_flows();
    open(&rig, "green/new", &doors, &DOORS);
    // The host outside joins as a node, and leaves again.
    let addresses = rig.addresses(&Actor("outside".to_owned())).to_vec();
    let joined = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "north"},
        "status": {"addresses": addresses.iter().map(|a| json!({"type": "InternalIP", "address": a})).collect::<Vec<_>>()}});
    rig.apply(&[joined]);
    rig.forget_flows();
    open(&rig, "outside", &doors, &DOORS);
    rig.delete("Node", "north");
    rig.forget_flows();
    shut(&rig, "outside", &doors, &DOORS);
}

#[test]
fn labels_and_names_choose_services_and_the_last_exposure_that_goes_opens_the_doors() {
    let Some(mut rig) = ground() else { return };
    translate(&rig, Mode::Nftables, 30_080);
    let doors = nodes(&rig);
    rig.apply(&[
        exposure("by-label", "{services: {selector: {matchLabels: {public: 'yes'}}}}"),
        allow("by-name", OFFICE),
        exposure("other", "{services: {names: [dog]}, allow: [{from: [{cidr: 0.0.0.0/0}, {cidr: '::/0'}]}]}"),
    ]);
    open(&rig, "outside", &doors, &DOORS);
    shut(&rig, "elsewhere", &doors, &DOORS);
    rig.delete("ServiceExposure", "red/by-name");
    rig.forget_flows();
    shut(&rig, "outside", &doors, &DOORS);
    // The label goes: nobody chooses it any more.
    rig.edit("Service", "red/cat", |service| service["metadata"]["labels"] = json!({}));
    rig.forget_flows();
    open(&rig, "elsewhere", &doors, &DOORS);
    rig.edit("Service", "red/cat", |service| service["metadata"]["labels"] = json!({"public": "yes"}));
    rig.forget_flows();
    shut(&rig, "elsewhere", &doors, &DOORS);
    // A Service that goes and comes again, on another port.
    rig.delete("Service", "red/cat");
    rig.forget_flows();
    open(&rig, "elsewhere", &doors, &DOORS);
    rig.apply(&[service(30_081)]);
    translate(&rig, Mode::Nftables, 30_081);
    rig.forget_flows();
    shut(&rig, "elsewhere", &doors, &[(Protocol::Tcp, 30_081), (Protocol::Udp, 30_081)]);
    rig.delete("ServiceExposure", "red/by-label");
    rig.forget_flows();
    open(&rig, "elsewhere", &doors, &[(Protocol::Tcp, 30_081), (Protocol::Udp, 30_081)]);
}

#[test]
fn exceptions_hold_against_the_block_around_them_but_not_against_another_that_names_them() {
    let Some(mut rig) = ground() else { return };
    translate(&rig, Mode::Iptables, 30_080);
    let doors = nodes(&rig);
    let around = "{cidr: 203.0.113.0/24, except: [203.0.113.10/32]}, {cidr: '2001:db8::/64', except: ['2001:db8::a/128']}";
    rig.apply(&[allow("around", around)]);
    shut(&rig, "outside", &doors, &DOORS);
    open(&rig, "elsewhere", &doors, &DOORS);
    rig.apply(&[allow("named", "{cidr: 203.0.113.10/32}, {cidr: '2001:db8::a/128'}")]);
    rig.forget_flows();
    open(&rig, "outside", &doors, &DOORS);
    rig.apply(&[allow("named", "{cidr: 203.0.113.10/32}")]);
    rig.forget_flows();
    let (four, six): (Vec<IpAddr>, Vec<IpAddr>) = doors.into_iter().partition(IpAddr::is_ipv4);
    open(&rig, "outside", &four, &DOORS);
    shut(&rig, "outside", &six, &DOORS);
}

/// A port of the node itself, which no translation hides from a stream.
const EDGE: u16 = 5555;

/// One guard of the edge after the other; none of them takes the second host.
fn guards() -> Vec<Vec<Value>> {
    let edge = |name: &str, more: &str| exposure(name, &format!("{{services: {{names: [edge]}}{more}}}"));
    let allow = |blocks: &str| format!(", allow: [{{from: [{blocks}]}}]");
    let office = allow(OFFICE);
    let one = allow("{cidr: 203.0.113.10/32}, {cidr: '2001:db8::a/128'}");
    let all = allow("{cidr: 0.0.0.0/0}, {cidr: '::/0'}");
    vec![
        vec![edge("a", &office)],
        vec![edge("a", &one)],
        vec![edge("a", ""), edge("b", &one)],
        vec![edge("a", ""), edge("b", &format!("{all}, mode: Audit"))],
        vec![edge("a", &allow("{cidr: 203.0.112.0/24}, {cidr: 203.0.114.0/24}")), edge("b", &office)],
        vec![edge("b", "")],
        vec![edge(
            "a",
            &allow(
                "{cidr: 0.0.0.0/0, except: [203.0.113.11/32]}, {cidr: '::/0', except: ['2001:db8::b/128']}",
            ),
        )],
        vec![edge("a", "")],
    ]
}

#[test]
fn while_a_door_is_guarded_in_another_way_not_one_packet_passes_that_both_refuse() {
    let Some(mut rig) = ground() else { return };
    let mut pod =
        rig.place_pod(serving(PodPlan::new("red/edge").on("west").host_network()), &[("kind", "edge")]);
    pod["spec"]["containers"] =
        json!([{"name": "main", "ports": [{"containerPort": EDGE, "hostPort": EDGE, "protocol": "UDP"}]}]);
    let mut service = service(30_080);
    service["metadata"]["name"] = "edge".into();
    service["spec"] = json!({"selector": {"kind": "edge"},
        "ports": [{"name": "edge", "port": EDGE, "targetPort": EDGE, "protocol": "UDP"}]});
    rig.apply(&[pod, service]);
    rig.apply(&guards()[0]);
    let west = rig.lab.node("west").expect("there");
    let streams: Vec<Stream> = west
        .addresses()
        .iter()
        .map(|door| Stream {
            name: format!("elsewhere to {door}"),
            from: rig.netns(&Actor("elsewhere".to_owned())).clone(),
            to: west.netns().clone(),
            at: (*door, EDGE).into(),
            pause: None,
        })
        .collect();
    let ((), tallies) = stream::during(&streams, || {
        for guards in [guards(), guards()].concat() {
            let keep: Vec<&Value> = guards.iter().map(|guard| &guard["metadata"]["name"]).collect();
            let gone: Vec<String> = ["a", "b"]
                .iter()
                .filter(|name| !keep.iter().any(|kept| kept == *name))
                .map(ToString::to_string)
                .collect();
            rig.learn(&guards);
            for name in gone.iter().map(|name| format!("red/{name}")) {
                if rig.all_objects().any(|object| {
                    object["kind"] == "ServiceExposure"
                        && format!("red/{}", object["metadata"]["name"].as_str().unwrap_or_default()) == name
                }) {
                    rig.forget("ServiceExposure", &name);
                }
            }
            rig.commit();
        }
    });
    println!("{tallies:?}");
    let leaked: Vec<&Tally> = tallies.iter().filter(|tally| tally.received > 0).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    assert!(tallies.iter().all(|tally| tally.sent > 1000), "{tallies:?}");
    // The same streams do get through once somebody opens the door.
    rig.apply(&[exposure(
        "a",
        "{services: {names: [edge]}, allow: [{from: [{cidr: 0.0.0.0/0}, {cidr: '::/0'}]}]}",
    )]);
    let ((), tallies) = stream::during(&streams, || std::thread::sleep(Duration::from_millis(200)));
    assert!(tallies.iter().all(|tally| tally.received > 0), "{tallies:?}");
}

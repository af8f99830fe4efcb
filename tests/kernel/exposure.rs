//! Who outside may come in by a Service's doors, with real packets and the translations of kube-proxy: judged by the
//! client's own address, on every node.
mod change;
mod cut;
mod doors;
mod policy;

use std::net::IpAddr;

use podwall_lab::{Cni, Outcome, PodPlan, Protocol};
use serde_json::{Value, json};

use crate::rig::asks::{all_live, expect, flow, none_lives, open, shut};
use crate::rig::proxy::{Mode, OutsideTraffic, Service, ServicePort};
use crate::rig::{ADMIN, Actor, Rig, WEB, town};

/// Every port of the Service on the nodes: TCP and UDP to the web, TCP to the back room.
const DOORS: [(Protocol, u16); 3] =
    [(Protocol::Tcp, 30_080), (Protocol::Udp, 30_080), (Protocol::Tcp, 30_090)];

/// Nobody's address but the Service's: a load balancer's, and an external one.
const LENT: [&str; 2] = ["198.51.100.80", "2001:db8:80::80"];

/// The host `outside`, in both families.
const OFFICE: &str = "{cidr: 203.0.113.8/29, except: [203.0.113.11/32]}, {cidr: '2001:db8::8/125', except: ['2001:db8::b/128']}";

fn ground() -> Option<Rig> {
    let mut rig = town(Cni::Routed)?;
    rig.lab.add_host("elsewhere", &[]).expect("a host can be added");
    rig.apply(&[service(30_080)]);
    Some(rig)
}

/// The Service in front of red/cat as the API server shows it.
fn service(web: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "red", "name": "cat", "labels": {"public": "yes"}},
        "spec": {
            "selector": {"kind": "cat"},
            "externalIPs": [LENT[1]],
            "ports": [
                {"name": "web", "protocol": "TCP", "port": 80, "targetPort": WEB, "nodePort": web},
                {"name": "talk", "protocol": "UDP", "port": 80, "targetPort": WEB, "nodePort": web},
                {"name": "admin", "protocol": "TCP", "port": 90, "targetPort": ADMIN, "nodePort": 30_090},
            ],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": LENT[0]}]}},
    })
}

/// The same as kube-proxy has it on every node.
fn translate(rig: &Rig, mode: Mode, web: u16) {
    translate_for(rig, mode, web, OutsideTraffic::Cluster);
}

/// The same with either policy for traffic from outside.
fn translate_for(rig: &Rig, mode: Mode, web: u16, outside: OutsideTraffic) {
    let port = |protocol, port, target, node_port| ServicePort {
        protocol,
        port,
        target,
        node_port: Some(node_port),
    };
    let pod = rig.lab.pod("red/cat").expect("it is there");
    let service = Service {
        addresses: LENT.map(ip).to_vec(),
        ports: vec![
            port(Protocol::Tcp, 80, WEB, web),
            port(Protocol::Udp, 80, WEB, web),
            port(Protocol::Tcp, 90, ADMIN, 30_090),
        ],
        endpoints: pod.addresses().iter().map(|address| (*address, pod.node().to_owned())).collect(),
        outside,
    };
    rig.load_services(mode, &[service]);
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("written so")
}

fn nodes(rig: &Rig) -> Vec<IpAddr> {
    ["east", "west"]
        .into_iter()
        .flat_map(|node| rig.lab.node(node).expect("there").addresses().to_vec())
        .collect()
}

fn exposure(name: &str, spec: &str) -> Value {
    let spec: Value = serde_saphyr::from_str(spec).unwrap_or_else(|error| panic!("{error}\n{spec}"));
    json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "ServiceExposure",
           "metadata": {"namespace": "red", "name": name, "uid": name}, "spec": spec})
}

/// Whoever is inside the cluster comes in by every door.
fn inside_is_open(rig: &Rig) {
    for from in ["red/ant", "blue/bee", "@west", "@east"] {
        open(rig, from, &nodes(rig), &DOORS);
    }
    open(rig, "outside", rig.addresses(&Actor("red/cat".to_owned())), &[(Protocol::Tcp, WEB)]);
}

#[test]
fn a_service_that_is_chosen_is_closed_to_all_outside_but_for_those_it_names() {
    let Some(mut rig) = ground() else { return };
    for mode in [Mode::Iptables, Mode::Nftables] {
        translate(&rig, mode, 30_080);
        open(&rig, "elsewhere", &nodes(&rig), &DOORS);
        rig.apply(&[exposure("shut", "{services: {names: [cat]}}")]);
        rig.forget_flows();
        shut(&rig, "outside", &nodes(&rig), &DOORS);
        shut(&rig, "elsewhere", &nodes(&rig), &DOORS);
        inside_is_open(&rig);
        rig.apply(&[exposure("office", &format!("{{services: {{selector: {{matchLabels: {{public: 'yes'}}}}}}, allow: [{{from: [{OFFICE}]}}]}}"))]);
        rig.forget_flows();
        // The second node sees the client masqueraded behind the first: it must be let in where it comes in.
        open(&rig, "outside", &nodes(&rig), &DOORS);
        shut(&rig, "elsewhere", &nodes(&rig), &DOORS);
        rig.delete("ServiceExposure", "red/shut");
        rig.delete("ServiceExposure", "red/office");
        rig.forget_flows();
        open(&rig, "elsewhere", &nodes(&rig), &DOORS);
    }
}

#[test]
fn ports_are_opened_by_name_and_number_and_lent_addresses_are_doors_too() {
    let Some(mut rig) = ground() else { return };
    translate(&rig, Mode::Iptables, 30_080);
    // Packets for these come in at the node that somebody routes them to.
    let lent = LENT.map(ip);
    rig.lend("east", &lent[..1]);
    rig.lend("west", &lent[1..]);
    let asks = [(Protocol::Tcp, 80), (Protocol::Udp, 80), (Protocol::Tcp, 90)];
    open(&rig, "outside", &lent, &asks);
    let allow = |ports: &str| {
        exposure(
            "some",
            &format!("{{services: {{names: [cat]}}, allow: [{{from: [{OFFICE}], ports: [{ports}]}}]}}"),
        )
    };
    for (ports, wanted) in [
        ("{name: web}", [Outcome::Open, Outcome::TimedOut, Outcome::TimedOut]),
        ("{port: 80, protocol: UDP}, {port: 90}", [Outcome::TimedOut, Outcome::Open, Outcome::Open]),
    ] {
        rig.apply(&[allow(ports)]);
        rig.forget_flows();
        for (at, wanted) in wanted.into_iter().enumerate() {
            expect(&rig, wanted, "outside", &lent, &asks[at..=at]);
            expect(&rig, wanted, "outside", &nodes(&rig), &DOORS[at..=at]);
        }
    }
}

#[test]
fn a_door_that_moves_to_another_port_is_followed_and_open_connections_are_cut() {
    let Some(mut rig) = ground() else { return };
    translate(&rig, Mode::Nftables, 30_080);
    let mut flow = [flow(&rig, "elsewhere", (Protocol::Tcp, nodes(&rig)[0], 30_080))];
    rig.learn(&[exposure("shut", "{services: {names: [cat]}}")]);
    assert_ne!(rig.commit_and_cut(), 0);
    none_lives(&mut flow);
    translate(&rig, Mode::Nftables, 30_081);
    let moved = [(Protocol::Tcp, 30_081), (Protocol::Udp, 30_081)];
    open(&rig, "elsewhere", &nodes(&rig), &moved);
    rig.apply(&[service(30_081)]);
    rig.forget_flows();
    shut(&rig, "elsewhere", &nodes(&rig), &moved);
    rig.delete("Service", "red/cat");
    rig.forget_flows();
    open(&rig, "elsewhere", &nodes(&rig), &moved);
}

#[test]
fn an_exposure_that_audits_refuses_nobody() {
    let Some(mut rig) = ground() else { return };
    translate(&rig, Mode::Iptables, 30_080);
    rig.apply(&[exposure("look", "{services: {names: [cat]}, mode: Audit}")]);
    rig.forget_flows();
    open(&rig, "elsewhere", &nodes(&rig), &DOORS);
    inside_is_open(&rig);
}

#[test]
fn a_host_port_of_the_pods_behind_a_service_is_a_door() {
    let Some(mut rig) = ground() else { return };
    let plan = PodPlan::new("red/edge").on("west").host_network().serve(Protocol::Tcp, 8443);
    let mut pod = rig.place_pod(plan, &[("kind", "cat")]);
    pod["spec"]["containers"] =
        json!([{"name": "main", "ports": [{"containerPort": 8443, "hostPort": 8443}]}]);
    let mut service = service(30_080);
    service["spec"]["ports"] = json!([{"name": "edge", "port": 443, "targetPort": 8443}]);
    rig.apply(&[pod, service, exposure("shut", "{services: {names: [cat]}}")]);
    let west = rig.lab.node("west").expect("there").addresses().to_vec();
    let door = [(Protocol::Tcp, 8443)];
    shut(&rig, "elsewhere", &west, &door);
    open(&rig, "@east", &west, &door);
    open(&rig, "red/ant", &west, &door);
    rig.apply(&[exposure(
        "shut",
        "{services: {names: [cat]}, allow: [{from: [{cidr: 0.0.0.0/0}, {cidr: '::/0'}]}]}",
    )]);
    rig.forget_flows();
    open(&rig, "elsewhere", &west, &door);
}

//! Bans, with real packets on two nodes: whom they keep out, from what, and for how long.
mod agents;
mod cut;
mod doors;
mod ends;
mod overlap;
mod shapes;

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use podwall_engine::Options;
use podwall_lab::{Cni, Outcome, PodPlan, Probe, Protocol, probe_all};
use serde_json::{Value, json};

use crate::rig::asks::{PATIENCE, SILENCE, expect, open, shut};
use crate::rig::proxy::{Mode, OutsideTraffic, Service, ServicePort};
use crate::rig::{ADMIN, Actor, Rig, WEB, fallback, serving, town_with};

/// Host-network pods that stand for their nodes' own servers.
const NODES: [&str; 2] = ["red/east", "red/west"];

/// Addresses of the host that is banned, and of the one that is not.
const BANNED: [&str; 2] = ["203.0.113.10", "2001:db8::a"];

/// The town with a second host outside, and servers on the nodes themselves.
fn ground() -> Option<Rig> {
    ground_with(&Options::default())
}

/// The same, with other options.
fn ground_with(options: &Options) -> Option<Rig> {
    let mut rig = town_with(Cni::Routed, options)?;
    let elsewhere = rig.lab.add_host("elsewhere", &[]).expect("a host can be added");
    for (protocol, port) in ALL {
        if protocol != Protocol::Icmp {
            elsewhere.serve(protocol, port).expect("it can serve");
        }
    }
    for name in NODES {
        let node = name.split_once('/').expect("named so").1;
        rig.add_pod(serving(PodPlan::new(name).on(node).host_network()), &[]);
    }
    rig.commit();
    assert_eq!(of(&rig, "outside"), BANNED.map(ip));
    Some(rig)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("written so")
}

fn of(rig: &Rig, name: &str) -> Vec<IpAddr> {
    match name.strip_prefix('@') {
        Some(node) => rig.lab.node(node).expect("it is there").addresses().to_vec(),
        None => rig.addresses(&Actor(name.to_owned())).to_vec(),
    }
}

/// A Ban object.
fn ban(name: &str, addresses: &[&str], more: Value) -> Value {
    let mut spec = json!({"addresses": addresses});
    let Value::Object(more) = more else { panic!("more of the spec") };
    spec.as_object_mut().expect("an object").extend(more);
    json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "Ban", "metadata": {"name": name, "uid": name}, "spec": spec})
}

/// What everybody outside may ask of a pod: every protocol.
const ALL: [(Protocol, u16); 4] =
    [(Protocol::Tcp, WEB), (Protocol::Udp, WEB), (Protocol::Sctp, WEB), (Protocol::Icmp, 0)];

/// Addresses of a pod on each node and of both nodes.
fn everywhere(rig: &Rig) -> Vec<IpAddr> {
    ["red/ant", "red/bee", "@east", "@west"].into_iter().flat_map(|name| of(rig, name)).collect()
}

/// Milliseconds of the epoch, so much from now.
fn moment(from_now: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let millis = i64::try_from(now).expect("before long") + from_now;
    podwall_crd::read::Timestamp::from_millisecond(millis).expect("a time").to_string()
}

#[test]
fn a_banned_address_reaches_no_node_and_no_pod_and_another_reaches_them_all() {
    let Some(mut rig) = ground() else { return };
    open(&rig, "outside", &everywhere(&rig), &ALL);
    rig.apply(&[ban("out", &BANNED, json!({}))]);
    rig.forget_flows();
    shut(&rig, "outside", &everywhere(&rig), &ALL);
    open(&rig, "elsewhere", &everywhere(&rig), &ALL);
    // They keep it out; they may still go to it.
    for from in ["red/ant", "red/bee", "@east", "@west"] {
        open(&rig, from, &BANNED.map(ip), &ALL);
    }
    rig.delete("Ban", "out");
    open(&rig, "outside", &everywhere(&rig), &ALL);
}

#[test]
fn a_ban_of_what_goes_out_holds_for_pods_and_for_the_nodes_themselves() {
    let Some(mut rig) = ground() else { return };
    rig.apply(&[ban("out", &BANNED, json!({"direction": "Out"}))]);
    for from in ["red/ant", "red/bee", "@east", "@west"] {
        shut(&rig, from, &BANNED.map(ip), &ALL);
        open(&rig, from, &of(&rig, "elsewhere"), &ALL);
    }
    open(&rig, "outside", &everywhere(&rig), &ALL);
}

#[test]
fn a_ban_holds_before_destination_nat_at_every_node_port_and_cluster_address() {
    let Some(mut rig) = ground() else { return };
    let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| ServicePort {
        protocol,
        port: 80,
        target: WEB,
        node_port: Some(30_080),
    });
    let pod = rig.lab.pod("red/cat").expect("it is there");
    let service = Service {
        addresses: vec![ip("10.96.9.9"), ip("fd96::909")],
        ports: ports.to_vec(),
        endpoints: pod.addresses().iter().map(|address| (*address, pod.node().to_owned())).collect(),
        outside: OutsideTraffic::Cluster,
    };
    let doors: Vec<IpAddr> = ["@east", "@west"].into_iter().flat_map(|name| of(&rig, name)).collect();
    let asks = [(Protocol::Tcp, 30_080), (Protocol::Udp, 30_080)];
    for mode in [Mode::Iptables, Mode::Nftables] {
        rig.load_services(mode, std::slice::from_ref(&service));
        open(&rig, "outside", &doors, &asks);
        // The port is the one the client asked for, not the pod's.
        let port = |port| json!({"ports": [{"protocol": "TCP", "localPort": port}, {"protocol": "UDP", "localPort": port}]});
        rig.apply(&[ban("out", &BANNED, port(WEB))]);
        rig.forget_flows();
        open(&rig, "outside", &doors, &asks);
        rig.apply(&[ban("out", &BANNED, port(30_080))]);
        rig.forget_flows();
        shut(&rig, "outside", &doors, &asks);
        open(&rig, "elsewhere", &doors, &asks);
        rig.delete("Ban", "out");
    }
}

#[test]
fn two_bans_of_one_address_hold_until_the_last_is_gone() {
    let Some(mut rig) = ground() else { return };
    rig.apply(&[ban("one", &BANNED, json!({})), ban("two", &BANNED, json!({"reason": "again"}))]);
    let to = of(&rig, "red/ant");
    for (gone, still) in [("one", true), ("two", false)] {
        rig.delete("Ban", gone);
        rig.forget_flows();
        expect(&rig, if still { Outcome::TimedOut } else { Outcome::Open }, "outside", &to, &ALL);
    }
}

#[test]
fn a_ban_that_is_changed_bans_the_new_address_and_no_longer_the_old() {
    let Some(mut rig) = ground() else { return };
    rig.apply(&[ban("out", &BANNED, json!({}))]);
    shut(&rig, "outside", &of(&rig, "red/ant"), &ALL);
    rig.apply(&[ban("out", &["203.0.113.11", "2001:db8::b"], json!({}))]);
    rig.forget_flows();
    open(&rig, "outside", &of(&rig, "red/ant"), &ALL);
    shut(&rig, "elsewhere", &of(&rig, "red/ant"), &ALL);
}

#[test]
fn nodes_are_never_banned_whatever_a_block_covers_and_what_wide_bans_spare_stays_open() {
    let Some(mut rig) = ground() else { return };
    // Every address there is: pods are cut off, nodes are not, and administrators come in to nodes.
    rig.add_pod(PodPlan::new("red/ssh").on("east").host_network().serve(Protocol::Tcp, 22), &[]);
    rig.add_pod(PodPlan::new("red/shell").on("east").serve(Protocol::Tcp, 22), &[]);
    let all = ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"];
    rig.apply(&[ban("all", &all, json!({"direction": "Both"}))]);
    rig.forget_flows();
    open(&rig, "@east", &of(&rig, "@west"), &ALL);
    open(&rig, "@west", &of(&rig, "@east"), &ALL);
    shut(&rig, "outside", &everywhere(&rig), &ALL);
    let ssh = [(Protocol::Tcp, 22)];
    open(&rig, "outside", &of(&rig, "@east"), &ssh);
    shut(&rig, "outside", &of(&rig, "red/shell"), &ssh);
    rig.apply(&[ban("all", &all, json!({"direction": "Both", "managementPorts": "Ban"}))]);
    rig.forget_flows();
    shut(&rig, "outside", &of(&rig, "@east"), &ssh);
    open(&rig, "@west", &of(&rig, "@east"), &ssh);
    rig.apply(&[ban("all", &["203.0.0.0/16", "2001:db8::/32"], json!({}))]);
    rig.forget_flows();
    // As wide as that, no port is spared.
    shut(&rig, "outside", &of(&rig, "@east"), &ssh);
    open(&rig, "red/bee", &of(&rig, "red/ant"), &ALL);
}

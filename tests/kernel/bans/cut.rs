//! Flows that were open when the ban came: cut on every node they cross, and cut for good, whoever goes on sending.
use podwall_lab::{Flow, Server};

use super::*;
use crate::rig::asks::{all_live, flow, none_lives, which_live};

/// Longer than TCP waits before it sends again, several times.
const ROUNDS: usize = 4;

const SERVERS: [&str; 4] = ["red/ant", "red/bee", "red/east", "red/west"];

fn flows(rig: &Rig, from: &str, protocols: &[Protocol]) -> Vec<Flow> {
    let to = everywhere(rig);
    to.iter().flat_map(|to| protocols.iter().map(|protocol| flow(rig, from, (*protocol, *to, WEB)))).collect()
}

fn server<'a>(rig: &'a Rig, name: &str) -> &'a Server {
    rig.lab.pod(name).expect("it is there").server()
}

#[test]
fn cut_is_cut_for_good_however_both_ends_go_on_sending() {
    let Some(mut rig) = ground() else { return };
    let protocols = [Protocol::Tcp, Protocol::Sctp];
    let mut cut = flows(&rig, "outside", &protocols);
    let mut kept = flows(&rig, "elsewhere", &protocols);
    rig.learn(&[ban("out", &BANNED, json!({}))]);
    assert_ne!(rig.commit_and_cut(), 0);
    for _ in 0..ROUNDS {
        SERVERS.iter().for_each(|name| server(&rig, name).push());
        none_lives(&mut cut);
    }
    for flow in &mut kept {
        assert!(flow.protocol() == Protocol::Sctp || flow.hears_push(PATIENCE), "{flow:?}");
    }
    all_live(&mut kept);
    // They were forgotten, not put off: gone is gone, and a new one is another one.
    rig.delete("Ban", "out");
    open(&rig, "outside", &everywhere(&rig), &ALL);
}

#[test]
fn datagrams_of_ours_to_the_banned_are_a_flow_of_our_own_unless_both_directions_are_banned() {
    let Some(mut rig) = ground() else { return };
    let mut all = flows(&rig, "outside", &[Protocol::Udp]);
    rig.learn(&[ban("out", &BANNED, json!({"direction": "Both"}))]);
    assert_ne!(rig.commit_and_cut(), 0);
    for _ in 0..ROUNDS {
        SERVERS.iter().for_each(|name| server(&rig, name).push());
        none_lives(&mut all);
    }
    rig.learn(&[ban("out", &BANNED, json!({}))]);
    rig.commit_and_cut();
    none_lives(&mut all);
    // Nothing tells a datagram that opens from one that answers.
    server(&rig, "red/ant").push();
    assert!(which_live(&mut all).contains(&true));
}

#[test]
fn a_ban_of_what_goes_out_cuts_what_was_opened_to_the_address_and_not_what_it_opened() {
    let Some(mut rig) = ground() else { return };
    let ours = |rig: &Rig, to: &[IpAddr]| -> Vec<Flow> {
        let pairs = ["red/ant", "@west"].into_iter().flat_map(|from| to.iter().map(move |to| (from, *to)));
        let each = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
        pairs.flat_map(|(from, to)| each.map(|protocol| flow(rig, from, (protocol, to, WEB)))).collect()
    };
    let (mut cut, mut kept) = (ours(&rig, &BANNED.map(ip)), ours(&rig, &of(&rig, "elsewhere")));
    kept.extend(flows(&rig, "outside", &[Protocol::Tcp]));
    rig.learn(&[ban("out", &BANNED, json!({"direction": "Out"}))]);
    assert_ne!(rig.commit_and_cut(), 0);
    // Datagrams of the banned would be a flow of its own, the way it may.
    cut.retain(|flow| flow.protocol() == Protocol::Tcp);
    for _ in 0..ROUNDS {
        rig.lab.host("outside").expect("it is there").server().push();
        none_lives(&mut cut);
    }
    all_live(&mut kept);
}

#[test]
fn a_ban_of_some_ports_cuts_their_flows_only() {
    let Some(mut rig) = ground() else { return };
    let to = of(&rig, "red/ant");
    let of_port = |rig: &Rig, protocol, port| -> Vec<Flow> {
        to.iter().map(|to| flow(rig, "outside", (protocol, *to, port))).collect()
    };
    let mut cut = of_port(&rig, Protocol::Tcp, WEB);
    let mut kept = of_port(&rig, Protocol::Tcp, ADMIN);
    kept.extend(of_port(&rig, Protocol::Udp, WEB));
    let ports = json!({"ports": [{"protocol": "TCP", "localPort": 8000, "localEndPort": 8100}]});
    rig.learn(&[ban("out", &BANNED, ports)]);
    assert_ne!(rig.commit_and_cut(), 0);
    none_lives(&mut cut);
    all_live(&mut kept);
}

#[test]
fn flows_through_a_node_port_are_cut_where_the_client_came_in() {
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
    for mode in [Mode::Iptables, Mode::Nftables] {
        rig.load_services(mode, std::slice::from_ref(&service));
        let through = |rig: &Rig, from: &str, protocols: &[Protocol]| -> Vec<Flow> {
            let each = doors.iter().flat_map(|door| protocols.iter().map(move |protocol| (*protocol, *door)));
            each.map(|(protocol, door)| flow(rig, from, (protocol, door, 30_080))).collect()
        };
        let mut cut = through(&rig, "outside", &[Protocol::Tcp, Protocol::Udp]);
        let mut kept = through(&rig, "elsewhere", &[Protocol::Tcp, Protocol::Udp]);
        // The pod's node knows the other node's flows only by the other node's address.
        rig.learn(&[ban("out", &BANNED, json!({"ports": [{"protocol": "TCP"}, {"protocol": "UDP"}]}))]);
        assert!(rig.commit_and_cut() >= cut.len());
        for _ in 0..ROUNDS {
            none_lives(&mut cut);
        }
        cut.retain(|flow| flow.protocol() == Protocol::Tcp);
        assert_eq!(cut.len(), doors.len());
        for _ in 0..ROUNDS {
            server(&rig, "red/cat").push();
            none_lives(&mut cut);
        }
        all_live(&mut kept);
        rig.delete("Ban", "out");
    }
}

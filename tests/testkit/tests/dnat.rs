//! Cluster IPs, node ports and hairpin through the translation, with real packets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use podwall_lab::{Cni, Flow, Lab, Listener, Netns, NodePlan, Outcome, PodPlan, Probe, Protocol};
use podwall_testkit::{
    dnat::{Outside, Proxy, ServicePort},
    skip::{Need, ready},
};

const NODE_PORT: u16 = 30080;
const WAIT: Duration = Duration::from_millis(500);

fn town(cni: Cni, outside: fn(&str, SocketAddr) -> Outside) -> Lab {
    let mut lab = Lab::new().unwrap();
    lab.add_node(NodePlan::new("a", cni)).unwrap();
    lab.add_node(NodePlan::new("b", cni)).unwrap();
    lab.add_host("outside", &[]).unwrap();
    lab.add_pod(PodPlan::new("client").on("a")).unwrap();
    let server = PodPlan::new("server").on("b");
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let server = protocols.iter().fold(server, |plan, protocol| plan.serve(*protocol, 8080));
    let endpoints = lab.add_pod(server).unwrap().addresses().to_vec();
    let ranges = ["10.77.0.0/16", "fd77::/56"].map(str::to_owned).to_vec();
    for node in lab.nodes() {
        let service = |protocol: Protocol, endpoint: SocketAddr| ServicePort {
            address: virtual_ip(endpoint.ip()),
            protocol,
            port: 80,
            node_port: Some(NODE_PORT),
            endpoints: vec![endpoint],
            outside: outside(node.name(), endpoint),
        };
        let endpoints = endpoints.iter().map(|address| SocketAddr::new(*address, 8080));
        let services: Vec<_> =
            endpoints.flat_map(|endpoint| protocols.map(|protocol| service(protocol, endpoint))).collect();
        let proxy = Proxy { node_addresses: node.addresses().to_vec(), pod_ranges: ranges.clone() };
        proxy.load(node.netns(), &services);
        proxy.load(node.netns(), &services);
    }
    lab
}

fn virtual_ip(family: IpAddr) -> IpAddr {
    if family.is_ipv4() { "10.96.0.10".parse().unwrap() } else { "fd96::a".parse().unwrap() }
}

fn ask(from: &Netns, to: IpAddr, port: u16) -> [(Outcome, Option<String>); 3] {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| {
        let answer = Probe::new(protocol, to, port).timeout(WAIT).from(from).unwrap();
        (answer.outcome, answer.greeting)
    })
}

fn served() -> [(Outcome, Option<String>); 3] {
    [(); 3].map(|()| (Outcome::Open, Some("server".to_owned())))
}

#[test]
fn cluster_ips_lead_pods_to_the_backend_with_their_own_address_and_hairpin_comes_back() {
    if !ready(&[Need::Root, Need::Program("nft")]) {
        return;
    }
    for cni in [Cni::Routed, Cni::Bridged] {
        let lab = town(cni, |_, _| Outside::Cluster);
        let (client, server) = (lab.pod("client").unwrap(), lab.pod("server").unwrap());
        for address in server.addresses() {
            let listener = Listener::open(server.netns()).unwrap();
            assert_eq!(ask(client.netns(), virtual_ip(*address), 80), served(), "{cni:?} {address}");
            let own = |arrival: &podwall_lab::Arrival| client.addresses().contains(&arrival.source);
            assert!(listener.wait_for(WAIT, own).unwrap().is_some());
            assert_eq!(ask(server.netns(), virtual_ip(*address), 80), served(), "hairpin {cni:?} {address}");
        }
    }
}

#[test]
fn node_ports_of_every_node_lead_outside_clients_to_the_backend_as_a_node() {
    if !ready(&[Need::Root, Need::Program("nft")]) {
        return;
    }
    let lab = town(Cni::Routed, |_, _| Outside::Cluster);
    let (outside, server) = (lab.host("outside").unwrap(), lab.pod("server").unwrap());
    for node in lab.nodes() {
        for address in node.addresses() {
            let listener = Listener::open(server.netns()).unwrap();
            assert_eq!(ask(outside.netns(), *address, NODE_PORT), served(), "{} {address}", node.name());
            let masked = |arrival: &podwall_lab::Arrival| !outside.addresses().contains(&arrival.source);
            assert!(listener.wait_for(WAIT, masked).unwrap().is_some());
        }
    }
    let mut flow =
        Flow::open(outside.netns(), Probe::tcp("192.168.77.11".parse().unwrap(), NODE_PORT)).unwrap();
    assert_eq!(flow.exchange(WAIT), podwall_lab::Exchange::Echoed);
}

#[test]
fn local_node_ports_keep_the_clients_address_and_answer_only_where_the_backend_is() {
    if !ready(&[Need::Root, Need::Program("nft")]) {
        return;
    }
    let local = |node: &str, endpoint| Outside::Local(if node == "b" { vec![endpoint] } else { Vec::new() });
    let lab = town(Cni::Routed, local);
    let (outside, server) = (lab.host("outside").unwrap(), lab.pod("server").unwrap());
    for address in lab.node("b").unwrap().addresses() {
        let listener = Listener::open(server.netns()).unwrap();
        assert_eq!(ask(outside.netns(), *address, NODE_PORT), served(), "{address}");
        let client = |arrival: &podwall_lab::Arrival| outside.addresses().contains(&arrival.source);
        assert!(listener.wait_for(WAIT, client).unwrap().is_some());
    }
    for address in lab.node("a").unwrap().addresses() {
        assert_eq!(
            ask(outside.netns(), *address, NODE_PORT),
            [(); 3].map(|()| (Outcome::TimedOut, None)),
            "{address}"
        );
    }
}

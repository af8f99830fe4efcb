//! The town most suites use: three namespaces of three pods, spread over two nodes, and a host outside.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use podwall_engine::Options;
use podwall_lab::{Cni, Node, NodePlan, PodPlan, Protocol};

use podwall_nftables::Guard;

use super::proxy::{self, Mode, OutsideTraffic, Service, ServicePort};
use super::{Rig, namespace};

/// The port every pod serves in each protocol.
pub const WEB: u16 = 8080;

/// The second port, TCP only.
pub const ADMIN: u16 = 9090;

/// What is asked of every pair unless a test says otherwise.
pub const ALL: &[(Protocol, u16)] = &[
    (Protocol::Tcp, WEB),
    (Protocol::Tcp, ADMIN),
    (Protocol::Udp, WEB),
    (Protocol::Sctp, WEB),
    (Protocol::Icmp, 0),
];

/// Namespaces, labelled `colour` with their own name.
const NAMESPACES: [&str; 3] = ["blue", "green", "red"];

/// Pods in each of them, labelled `kind` with their own name.
const PODS: [&str; 3] = ["ant", "bee", "cat"];

/// The town, filters loaded, a Service in front of each pod, no policy yet.
pub fn town(cni: Cni) -> Option<Rig> {
    town_with(cni, &Options::default())
}

/// The same, with other options.
pub fn town_with(cni: Cni, options: &Options) -> Option<Rig> {
    build(cni, Guard::Auto, options)
}

/// The same, with tables guarded as said.
pub fn town_guarded(cni: Cni, guard: Guard) -> Option<Rig> {
    build(cni, guard, &Options::default())
}

fn build(cni: Cni, guard: Guard, options: &Options) -> Option<Rig> {
    let nodes = [NodePlan::new("east", cni), NodePlan::new("west", cni)];
    let mut rig = Rig::guarded(&nodes, &[guard, guard], options)?;
    for (row, colour) in NAMESPACES.into_iter().enumerate() {
        rig.learn(&[namespace(colour, &[("colour", colour)])]);
        for (column, kind) in PODS.into_iter().enumerate() {
            let node = if (row + column) % 2 == 0 { "east" } else { "west" };
            rig.add_pod(serving(PodPlan::new(&format!("{colour}/{kind}")).on(node)), &[("kind", kind)]);
        }
    }
    for (protocol, port) in SERVED {
        rig.lab.host("outside").expect("it was added").serve(protocol, port).expect("it can serve");
    }
    rig.change(&podwall_engine::Change::GraceOver);
    rig.commit();
    rig.front_every_pod();
    Some(rig)
}

impl Rig {
    /// Gives every pod a Service of its own, with the pod's ports unchanged.
    pub fn front_every_pod(&mut self) {
        let ports =
            SERVED.map(|(protocol, port)| ServicePort { protocol, port, target: port, node_port: None });
        let mut services = Vec::new();
        for (number, pod) in self.lab.pods().enumerate() {
            let number = u16::try_from(number + 1).expect("a small town");
            let [high, low] = number.to_be_bytes();
            let v4 = IpAddr::from(Ipv4Addr::new(10, 96, high, low));
            let v6 = IpAddr::from(Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, number));
            let endpoints = pod.addresses().iter().map(|address| (*address, pod.node().to_owned())).collect();
            self.services.insert(pod.name().to_owned(), vec![v4, v6]);
            services.push(Service {
                addresses: vec![v4, v6],
                ports: ports.to_vec(),
                endpoints,
                outside: OutsideTraffic::Cluster,
            });
        }
        self.load_services(Mode::Iptables, &services);
    }

    /// Leaves Services out of truth tables from now on.
    pub fn ask_directly(&mut self) {
        self.services.clear();
    }

    /// Every node translates these Services and no others.
    pub fn load_services(&self, mode: Mode, services: &[Service]) {
        let pods: Vec<_> = self.lab.nodes().flat_map(Node::pod_ranges).map(|range| wide(*range)).collect();
        self.lab.nodes().for_each(|node| proxy::load(node, mode, &pods, services));
    }

    /// Has somebody on the wire route addresses to a node that are nobody's own, as a load balancer does.
    pub fn lend(&self, node: &str, addresses: &[IpAddr]) {
        let own = self.lab.node(node).expect("it is there").addresses();
        for address in addresses {
            let gateway = own.iter().find(|own| own.is_ipv4() == address.is_ipv4()).expect("both families");
            let script = format!(
                "ip route replace {address} via {gateway} dev $(ip -o route get {gateway} | sed 's/.* dev //; s/ .*//') onlink"
            );
            let mut command = Command::new("sh");
            let mut routing = self.lab.wire().spawn(command.args(["-c", &script])).expect("a shell is there");
            assert!(routing.wait().expect("it ends").success(), "{script}");
        }
    }
}

/// The cluster's range that a node's pod range is part of.
fn wide(range: ipnetwork::IpNetwork) -> ipnetwork::IpNetwork {
    let length = if range.is_ipv4() { 16 } else { 48 };
    let wide = ipnetwork::IpNetwork::new(range.ip(), length).expect("a good length");
    ipnetwork::IpNetwork::new(wide.network(), length).expect("a good length")
}

const SERVED: [(Protocol, u16); 4] =
    [(Protocol::Tcp, WEB), (Protocol::Tcp, ADMIN), (Protocol::Udp, WEB), (Protocol::Sctp, WEB)];

/// A pod that serves what [`ALL`] asks for.
pub fn serving(plan: PodPlan) -> PodPlan {
    SERVED.into_iter().fold(plan, |plan, (protocol, port)| plan.serve(protocol, port))
}

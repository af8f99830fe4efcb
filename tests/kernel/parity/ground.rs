//! The ground random worlds are laid on: two nodes with a pod at every address a world may use. A world changes
//! objects only; whose an address is, and whether it is anybody's, is for the API to say.
use std::collections::BTreeMap;
use std::net::IpAddr;

use podwall_engine::options::{Options, PendingMode};
use podwall_engine::{Change, ingest};
use podwall_lab::{Cni, NodePlan, PodPlan, Protocol};
use podwall_nftables::Guard;
use podwall_testkit::objects::identity;
use podwall_testkit::world::NODES;
use serde_json::Value;

use crate::rig::Rig;
use crate::rig::proxy::{Mode, OutsideTraffic, Service, ServicePort};

/// Places on each node a world may put a pod.
const SLOTS: u16 = 8;

/// What every server answers: all that worlds ask about.
const SERVED: [(Protocol, u16); 12] = [
    (Protocol::Tcp, 53),
    (Protocol::Tcp, 80),
    (Protocol::Tcp, 81),
    (Protocol::Tcp, 443),
    (Protocol::Tcp, 8080),
    (Protocol::Tcp, 9999),
    (Protocol::Udp, 53),
    (Protocol::Udp, 80),
    (Protocol::Udp, 9999),
    (Protocol::Sctp, 80),
    (Protocol::Sctp, 3868),
    (Protocol::Sctp, 9999),
];

/// The ground, and the objects that lie on it now.
pub struct Ground {
    /// Nodes and kernels.
    pub rig: Rig,
    objects: BTreeMap<(String, String, String), Value>,
    /// Cluster IPs by pod address.
    portals: BTreeMap<IpAddr, IpAddr>,
}

impl Ground {
    /// Nobody isolated yet.
    pub fn build(cni: Cni) -> Option<Self> {
        let nodes = NODES.map(|facts| NodePlan::new(facts.name, cni));
        // An address without a verdict is not this suite's question: the specification knows no such thing.
        let options = Options { pending: PendingMode::Off, ..Options::default() };
        let mut rig = Rig::guarded(&nodes, &[Guard::Auto, Guard::Watched], &options)?;
        for (number, facts) in NODES.iter().enumerate() {
            rig.lab
                .add_pod(serving(PodPlan::new(&format!("host/{}", facts.name)).on(facts.name).host_network()))
                .expect("a server");
            for slot in 0..SLOTS {
                let (node, host) = (number + 1, slot + 0x10);
                let addresses = [format!("10.77.{node}.{host}"), format!("fd77:0:0:{node}::{host:x}")];
                let plan = PodPlan::new(&format!("slot/{node}-{slot}")).on(facts.name);
                let plan = addresses
                    .iter()
                    .fold(plan, |plan, address| plan.address(address.parse().expect("written so")));
                rig.lab.add_pod(serving(plan)).expect("a pod can be added");
            }
        }
        for (protocol, port) in SERVED {
            rig.lab.host("outside").expect("it is there").serve(protocol, port).expect("it can serve");
        }
        rig.relink();
        rig.change(&Change::GraceOver);
        let mut ground = Self { rig, objects: BTreeMap::new(), portals: BTreeMap::new() };
        ground.open_portals();
        Some(ground)
    }

    /// A cluster IP for every pod address, ports unchanged.
    fn open_portals(&mut self) {
        let ports =
            SERVED.map(|(protocol, port)| ServicePort { protocol, port, target: port, node_port: None });
        let mut services = Vec::new();
        for pod in self.rig.lab.pods().filter(|pod| pod.name().starts_with("slot/")) {
            let portals: Vec<IpAddr> = pod.addresses().iter().map(|address| portal(*address)).collect();
            self.portals.extend(pod.addresses().iter().copied().zip(portals.iter().copied()));
            let endpoints = pod.addresses().iter().map(|address| (*address, pod.node().to_owned())).collect();
            let outside = OutsideTraffic::Cluster;
            services.push(Service { addresses: portals, ports: ports.to_vec(), endpoints, outside });
        }
        self.rig.load_services(Mode::Nftables, &services);
    }

    /// From the world that stands to this one, as one delta a node. Pods are new ones in each world.
    pub fn settle(&mut self, objects: &[Value], world: u64) {
        let wanted: BTreeMap<_, _> =
            objects.iter().map(|object| (identity(object), reborn(object, world))).collect();
        let stale: Vec<Value> = self
            .objects
            .iter()
            .filter(|(identity, object)| {
                identity.0 == "Pod"
                    || wanted.get(*identity) != Some(*object) && !wanted.contains_key(*identity)
            })
            .map(|(_, object)| object.clone())
            .collect();
        for object in &stale {
            let gone = change(object);
            self.rig.change(&ingest::removal(&gone).expect("an object can go"));
        }
        for address in self.portals.keys() {
            self.rig.change(&Change::AddressFree(*address));
        }
        for object in wanted.values() {
            let change = change(object);
            self.rig.change(&change);
        }
        self.objects = wanted;
        self.rig.commit();
        self.rig.forget_flows();
    }

    /// Where a pod's address is to be found behind a cluster IP.
    pub fn portal(&self, address: IpAddr) -> Option<IpAddr> {
        self.portals.get(&address).copied()
    }
}

/// 10.77.1.16 is behind 10.96.1.16, fd77:0:0:1::10 behind fd96:0:0:1::10.
fn portal(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [_, _, node, host] = v4.octets();
            [10, 96, node, host].into()
        }
        IpAddr::V6(v6) => {
            let mut parts = v6.segments();
            parts[0] = 0xfd96;
            parts.into()
        }
    }
}

fn serving(plan: PodPlan) -> PodPlan {
    SERVED.into_iter().fold(plan, |plan, (protocol, port)| plan.serve(protocol, port))
}

/// A pod is nobody it was in an earlier world: finished pods never come back under their UID.
fn reborn(object: &Value, world: u64) -> Value {
    let mut object = object.clone();
    if object["kind"] == "Pod" {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        object["metadata"]["uid"] = format!("{world}-{uid}").into();
    }
    object
}

fn change(object: &Value) -> Change {
    ingest::object(object).expect("a good object").expect("a known kind").0
}

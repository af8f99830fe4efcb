//! Random pods: every phase, every stack, on either node, with ports in every kind of container.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{select, subsequence},
};
use serde_json::{Value, json};

use super::{Claims, NODES, somewhere};
use crate::objects::mk_pod;

/// Labels of pods: key, value.
const LABELS: [(&str, &str); 4] = [("app", "a"), ("app", "b"), ("tier", "x"), ("tier", "y")];

/// Container ports: a name shared by different numbers, a number shared by different protocols, a default protocol.
const PORTS: [PortDraw; 7] = [
    ("http", 80, None),
    ("http", 8080, Some("TCP")),
    ("http", 53, Some("UDP")),
    ("dns", 53, Some("UDP")),
    ("dns", 53, Some("TCP")),
    ("sig", 3868, Some("SCTP")),
    ("sig", 80, Some("SCTP")),
];

/// Name, number, protocol.
type PortDraw = (&'static str, u16, Option<&'static str>);

/// Slots of a node's pod range while addresses are reused.
const SLOTS: usize = 4;

/// What the API says about a pod's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stack {
    Dual,
    V6First,
    V4,
    V6,
    /// Only the old field `podIP` is filled.
    OldField,
    /// The two fields disagree: `podIPs` is somebody else's.
    Contradiction,
    None,
}

/// Where its ports are declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Container,
    Sidecar,
    /// A plain init container: its ports do not count.
    Init,
}

/// A pod without identity.
#[derive(Clone, Debug)]
pub(super) struct PodDraw {
    pub(super) namespace: &'static str,
    pub(super) node: usize,
    pub(super) host_network: bool,
    pub(super) phase: &'static str,
    terminating: bool,
    stack: Stack,
    slot: usize,
    labels: Vec<(&'static str, &'static str)>,
    ports: Vec<(PortDraw, Place)>,
}

pub(super) fn pods(claims: Claims) -> impl Strategy<Value = Vec<Value>> {
    prop_oneof![1 => vec(draw(), 0..=2), 5 => vec(draw(), 3..=8)].prop_map(move |draws| {
        let numbered = draws.into_iter().enumerate();
        let pod = |(number, mut draw): (usize, PodDraw)| {
            if claims == Claims::Unique {
                draw.slot = number;
            }
            draw.build(&format!("p{number}"), &format!("uid-p{number}"), number)
        };
        numbered.map(pod).collect()
    })
}

pub(super) fn draw() -> impl Strategy<Value = PodDraw> {
    let phase = prop_oneof![
        8 => Just("Running"), 2 => Just("Pending"), 1 => Just("Succeeded"), 1 => Just("Failed"), 1 => Just("Unknown")
    ];
    let stack = prop_oneof![
        8 => Just(Stack::Dual),
        2 => Just(Stack::V4),
        2 => Just(Stack::V6),
        1 => Just(Stack::V6First),
        1 => Just(Stack::OldField),
        1 => Just(Stack::Contradiction),
        1 => Just(Stack::None),
    ];
    let place = prop_oneof![4 => Just(Place::Container), 2 => Just(Place::Sidecar), 1 => Just(Place::Init)];
    let ports = vec((select(PORTS.to_vec()), place), 0..=3);
    let place = (somewhere(), 0..NODES.len(), prop::bool::weighted(0.1), 0..SLOTS);
    let state = (phase, prop::bool::weighted(0.1), stack);
    (place, state, subsequence(LABELS.to_vec(), 0..=3), ports).prop_map(
        |((namespace, node, host_network, slot), (phase, terminating, stack), labels, ports)| {
            let ports = if host_network { Vec::new() } else { ports };
            PodDraw { namespace, node, host_network, phase, terminating, stack, slot, labels, ports }
        },
    )
}

impl PodDraw {
    /// The object; `age` orders the pods by their start.
    pub(super) fn build(&self, name: &str, uid: &str, age: usize) -> Value {
        let time = format!("2026-01-01T{:02}:{:02}:{:02}Z", age / 3600 % 24, age / 60 % 60, age % 60);
        let mut pod =
            mk_pod(self.namespace, name).uid(uid).labels(&self.labels).phase(self.phase).started(&time);
        if let Some(node) = NODES.get(self.node) {
            pod = pod.on(node.name);
        }
        if self.host_network {
            pod = pod.host_network();
        }
        if self.terminating {
            pod = pod.terminating();
        }
        let (plain, init): (Vec<_>, Vec<_>) =
            self.ports.iter().partition(|(_, place)| *place == Place::Container);
        let containers: Vec<_> = plain.into_iter().enumerate().map(|(i, port)| container(i, port)).collect();
        if !containers.is_empty() {
            pod = pod.spec("containers", containers.into());
        }
        if !init.is_empty() {
            let init: Vec<_> =
                init.into_iter().enumerate().map(|(i, port)| container(10 + i, port)).collect();
            pod = pod.spec("initContainers", init.into());
        }
        for (field, value) in self.status() {
            pod = pod.status(field, value);
        }
        pod.build()
    }

    fn status(&self) -> Vec<(&'static str, Value)> {
        let Some(facts) = NODES.get(self.node) else { return Vec::new() };
        let [v4, v6] = if self.host_network {
            facts.addresses.map(str::to_owned)
        } else {
            let (node, host) = (self.node + 1, self.slot + 0x10);
            [format!("10.77.{node}.{host}"), format!("fd77:0:0:{node}::{host:x}")]
        };
        let ips = |all: &[&String]| all.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
        match self.stack {
            Stack::Dual => vec![("podIP", json!(v4)), ("podIPs", ips(&[&v4, &v6]).into())],
            Stack::V6First => vec![("podIP", json!(v6)), ("podIPs", ips(&[&v6, &v4]).into())],
            Stack::V4 => vec![("podIP", json!(v4)), ("podIPs", ips(&[&v4]).into())],
            Stack::V6 => vec![("podIP", json!(v6)), ("podIPs", ips(&[&v6]).into())],
            Stack::OldField => vec![("podIP", json!(v4))],
            Stack::Contradiction => vec![("podIP", json!(v4)), ("podIPs", ips(&[&v6]).into())],
            Stack::None => Vec::new(),
        }
    }
}

fn container(number: usize, ((name, port, protocol), place): &(PortDraw, Place)) -> Value {
    let mut declared = json!({"name": name, "containerPort": port});
    if let Some(protocol) = protocol {
        declared = json!({"name": name, "containerPort": port, "protocol": protocol});
    }
    let mut container = json!({"name": format!("c{number}"), "image": "example", "ports": [declared]});
    match (place, container.as_object_mut()) {
        (Place::Sidecar, Some(fields)) => {
            fields.insert("restartPolicy".to_owned(), "Always".into());
        }
        (Place::Container | Place::Init | Place::Sidecar, _) => {}
    }
    container
}

//! One node of a random world: its engine, and how a connection of the naive reading looks to its hooks.
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use podwall_engine::{Change, Cluster, Engine, NodeName, Options, ingest, plan};
use podwall_ruleset::evaluate::{Decision, evaluate};
use podwall_ruleset::packet::{Packet, Transport};
use podwall_ruleset::{Family, Hook, Protocol, Ruleset};
use podwall_testkit::naive::{self, Flow, Sender, Verdict};
use podwall_testkit::world::NODES;
use serde_json::Value;

pub(crate) struct Node {
    pub(crate) name: &'static str,
    addresses: Vec<IpAddr>,
    ranges: Vec<IpNetwork>,
    filter: Filter,
}

/// Computed at once, or followed.
enum Filter {
    Planned(Box<Ruleset>),
    Followed(Box<Engine>),
}

impl Node {
    /// Every node of the world, its ruleset computed from scratch.
    pub(crate) fn all(objects: &[Value], options: &Options) -> Vec<Self> {
        let mut cluster = Cluster::default();
        objects.iter().for_each(|object| cluster.apply(change(object)));
        let planned =
            |name: &str| Filter::Planned(Box::new(plan(&cluster, &NodeName::from(name), options).ruleset));
        NODES.iter().map(|facts| Self::with(facts.name, planned(facts.name))).collect()
    }

    /// A node that follows a history.
    pub(crate) fn new(name: &'static str, options: &Options) -> Self {
        Self::with(name, Filter::Followed(Box::new(Engine::new(NodeName::from(name), options.clone()))))
    }

    fn with(name: &'static str, filter: Filter) -> Self {
        let facts = NODES.iter().find(|facts| facts.name == name).expect("a node of every world");
        Self {
            name,
            addresses: facts.addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ranges: facts.pod_ranges.iter().map(|text| text.parse().unwrap()).collect(),
            filter,
        }
    }

    pub(crate) fn put(&mut self, object: &Value) {
        self.apply(change(object));
    }

    pub(crate) fn delete(&mut self, object: &Value) {
        self.apply(ingest::removal(&change(object)).expect("every object can go"));
    }

    fn apply(&mut self, change: Change) {
        match &mut self.filter {
            Filter::Followed(engine) => engine.apply(change),
            Filter::Planned(_) => panic!("a plan does not change"),
        }
    }

    fn ruleset(&self) -> &Ruleset {
        match &self.filter {
            Filter::Planned(ruleset) => ruleset,
            Filter::Followed(engine) => engine.ruleset(),
        }
    }

    /// Is the address kept shut after its pod is gone (W8)? The policy text knows nothing of it.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        match &self.filter {
            Filter::Planned(_) => false,
            Filter::Followed(engine) => engine.cluster().held().contains(&address),
        }
    }

    /// Does the address lie in the node's pod ranges?
    pub(crate) fn ranges_hold(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    /// What the node itself sends passes none of our hooks on its way out.
    pub(crate) fn judge(&self, flow: &Flow) -> Verdict {
        if flow.sender == Sender::Node(self.name.to_owned()) {
            return Verdict::Allowed;
        }
        let mut packet = Packet::opening(flow.source, flow.destination, transport(flow));
        if self.addresses.contains(&flow.destination) {
            packet.hook = Hook::Input;
        }
        match evaluate(self.ruleset(), &packet).decision {
            Decision::Accept => Verdict::Allowed,
            Decision::Drop { .. } => Verdict::Denied,
        }
    }
}

fn change(object: &Value) -> Change {
    let (change, warnings) = ingest::object(object).expect("readable").expect("of use");
    assert_eq!(warnings, Vec::new(), "{object}");
    change
}

fn transport(flow: &Flow) -> Transport {
    match (flow.transport, Family::of(&flow.source)) {
        (naive::Transport::Tcp(port), _) => Transport::Tcp { port, opening: true },
        (naive::Transport::Udp(port), _) => Transport::Udp(port),
        (naive::Transport::Sctp(port), _) => Transport::Sctp(port),
        (naive::Transport::Echo, Family::V4) => Transport::Icmp(8),
        (naive::Transport::Echo, Family::V6) => Transport::Icmpv6(128),
        (naive::Transport::Other(number), _) => Transport::Other(Protocol(number)),
    }
}

/// A connection in one line.
pub(crate) fn say(flow: &Flow) -> String {
    format!("{} -> {} {:?} by {:?}", flow.source, flow.destination, flow.transport, flow.sender)
}

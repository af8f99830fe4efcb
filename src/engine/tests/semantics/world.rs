//! A small cluster under test: manifests go in, every node runs an engine, and a packet is judged by every node it
//! crosses, in every family both its ends have.
//!
//! After every change each engine is held to its law: the delta leads from the old ruleset to the new one, which is
//! what `plan` makes of the same cluster.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use podwall_engine::model::{Attachment, Links, PodUid, Sharing};
use podwall_engine::{Change, Engine, NodeName, Options, Update, Warning, ingest, plan};
use podwall_ruleset::evaluate::{Decision, evaluate};
use podwall_ruleset::packet::{Packet, Transport};
use podwall_ruleset::{Family, Hook, LinkName, Protocol, Ruleset};
use serde_json::Value;

use super::manifest::{self, Pod};

/// Somebody who is neither pod nor node.
pub(crate) const OUTSIDE: [&str; 2] = ["192.0.2.7", "2001:db8::7"];

/// One node.
struct Station {
    engine: Engine,
    copy: Ruleset,
    last: Update,
}

impl Station {
    fn apply(&mut self, change: &Change) {
        self.engine.apply(change.clone());
        self.last = self.engine.take();
        self.last.delta.apply(&mut self.copy).expect("the delta fits");
    }

    fn hold_to_the_law(&self, after: &str) {
        let engine = &self.engine;
        assert_eq!(self.copy, *engine.ruleset(), "delta after {after}");
        let whole = plan(engine.cluster(), engine.node(), engine.options());
        assert_eq!(whole.ruleset, *engine.ruleset(), "plan after {after}");
        assert_eq!(whole.origins, engine.origins(), "origins after {after}");
        assert_eq!(whole.conditions, engine.conditions(), "conditions after {after}");
        assert_eq!(engine.ruleset().dangling(), None, "after {after}");
    }
}

/// Where packets start and end.
struct End {
    addresses: Vec<IpAddr>,
    place: Place,
}

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Pod(String),
    Node(String),
    Outside,
}

impl Place {
    fn node(&self) -> Option<&str> {
        match self {
            Self::Pod(node) | Self::Node(node) => Some(node),
            Self::Outside => None,
        }
    }
}

/// The cluster.
pub(crate) struct World {
    stations: BTreeMap<String, Station>,
    pods: BTreeMap<String, Value>,
    nodes: BTreeMap<String, Vec<IpAddr>>,
}

impl World {
    /// Nodes `n1` and `n2`, nothing else.
    pub(crate) fn empty() -> Self {
        Self::with(&Options::default())
    }

    /// The same with other options.
    pub(crate) fn with(options: &Options) -> Self {
        let mut world = Self { stations: BTreeMap::new(), pods: BTreeMap::new(), nodes: BTreeMap::new() };
        for name in ["n1", "n2"] {
            let engine = Engine::new(NodeName::from(name), options.clone());
            world.stations.insert(
                name.to_owned(),
                Station { engine, copy: Ruleset::default(), last: Update::default() },
            );
        }
        for (name, digit) in [("n1", 1), ("n2", 2)] {
            let addresses = [format!("172.18.0.{digit}"), format!("fd00:18::{digit}")];
            let ranges = [format!("10.244.{digit}.0/24"), format!("fd00:244:{digit}::/64")];
            world
                .nodes
                .insert(name.to_owned(), addresses.iter().map(|a| a.parse().expect("address")).collect());
            world.put(&manifest::node(name, &[&addresses[0], &addresses[1]], &[&ranges[0], &ranges[1]]));
        }
        world
    }

    /// Namespaces x, y and z labelled `ns`, pods a, b and c in each labelled `pod`, dual-stack, in turn on both nodes;
    /// TCP ports 80 and 81 are named `web` and `alt`, UDP port 80 `dns`, SCTP port 80 `sig`.
    pub(crate) fn standard() -> Self {
        Self::standard_with(&Options::default())
    }

    /// The same with other options.
    pub(crate) fn standard_with(options: &Options) -> Self {
        let mut world = Self::with(options);
        for namespace in ["x", "y", "z"] {
            world.put(&manifest::namespace(namespace, &format!("ns={namespace}")));
        }
        for (at, path) in
            ["x/a", "x/b", "x/c", "y/a", "y/b", "y/c", "z/a", "z/b", "z/c"].into_iter().enumerate()
        {
            let (_, name) = manifest::split(path);
            world.pod(World::place(manifest::pod(path), at).labels(&format!("pod={name}")));
        }
        world.attach(Sharing::Exclusive);
        world
    }

    /// Address number `at` of the cluster: even ones on n1, odd ones on n2, with the standard ports.
    pub(crate) fn place(pod: Pod, at: usize) -> Pod {
        let (node, host) = (at % 2 + 1, at + 10);
        let addresses = [format!("10.244.{node}.{host}"), format!("fd00:244:{node}::{host}")];
        pod.on(&format!("n{node}"))
            .ips(&[&addresses[0], &addresses[1]])
            .port("web/TCP/80")
            .port("alt/TCP/81")
            .port("dns/UDP/80")
            .port("sig/SCTP/80")
    }

    /// Applies a manifest that must be understood in full.
    pub(crate) fn put(&mut self, raw: &Value) {
        let warnings = self.put_odd(raw);
        assert_eq!(warnings, Vec::new(), "{raw}");
    }

    /// Applies a manifest and answers what was closed in it.
    pub(crate) fn put_odd(&mut self, raw: &Value) -> Vec<Warning> {
        let read = ingest::object(raw).unwrap_or_else(|warning| panic!("{warning}"));
        let (change, warnings) = read.unwrap_or_else(|| panic!("of no use: {raw}"));
        self.change(&change);
        warnings
    }

    pub(crate) fn pod(&mut self, pod: Pod) {
        let meta = &pod.0["metadata"];
        let path = format!("{}/{}", meta["namespace"].as_str().unwrap(), meta["name"].as_str().unwrap());
        self.put(&pod.0);
        self.pods.insert(path, pod.0);
    }

    /// Puts the pod again with other labels.
    pub(crate) fn relabel(&mut self, path: &str, labels: &str) {
        let pod = Pod(self.pods[path].clone()).labels(labels);
        self.pod(pod);
    }

    /// Deletes a pod; its name and address keep working in questions until another pod has them.
    pub(crate) fn pod_gone(&mut self, uid: &str) {
        self.change(&Change::PodGone(PodUid(uid.into())));
    }

    /// A policy `namespace/name`, its spec in YAML.
    pub(crate) fn policy(&mut self, path: &str, spec: &str) {
        self.put(&manifest::policy(path, spec));
    }

    pub(crate) fn policy_gone(&mut self, path: &str) {
        let read = ingest::network_policy(&manifest::policy(path, "{}")).expect("a policy");
        self.change(&Change::PolicyGone(read.policy.id));
    }

    pub(crate) fn namespace(&mut self, name: &str, labels: &str) {
        self.put(&manifest::namespace(name, labels));
    }

    /// Tells every node which interface each of its pods hangs on.
    pub(crate) fn attach(&mut self, sharing: Sharing) {
        let nodes: Vec<String> = self.stations.keys().cloned().collect();
        for node in nodes {
            let mut links = Links::default();
            for (path, raw) in self.pods.iter().filter(|(_, raw)| raw["spec"]["nodeName"] == node.as_str()) {
                for address in addresses(raw) {
                    links.attachments.insert(address, Attachment { link: link(path), sharing });
                }
            }
            self.change_on(&node, &Change::Links(links));
        }
    }

    /// Applies a change on every node.
    pub(crate) fn change(&mut self, change: &Change) {
        let nodes: Vec<String> = self.stations.keys().cloned().collect();
        nodes.iter().for_each(|node| self.change_on(node, change));
    }

    /// Applies a change on one node, and holds its engine to the law.
    pub(crate) fn change_on(&mut self, node: &str, change: &Change) {
        let station = self.stations.get_mut(node).expect("a node");
        station.apply(change);
        station.hold_to_the_law(&format!("{change:?}"));
    }

    /// Applies a change on every node; the law is held later, by [`Self::hold_to_the_law`].
    pub(crate) fn change_quietly(&mut self, change: &Change) {
        self.stations.values_mut().for_each(|station| station.apply(change));
    }

    pub(crate) fn hold_to_the_law(&self, after: &str) {
        self.stations.values().for_each(|station| station.hold_to_the_law(after));
    }

    pub(crate) fn engine(&self, node: &str) -> &Engine {
        &self.stations[node].engine
    }

    /// Addresses of a pod.
    pub(crate) fn addresses_of(&self, pod: &str) -> Vec<IpAddr> {
        addresses(&self.pods[pod])
    }

    /// The node of a pod.
    pub(crate) fn node_of(&self, pod: &str) -> &str {
        self.pods[pod]["spec"]["nodeName"].as_str().expect("it has one")
    }

    /// What the last change did to a node.
    pub(crate) fn last(&self, node: &str) -> &Update {
        &self.stations[node].last
    }

    /// Does one node's ruleset let the packet through?
    pub(crate) fn judge(&self, node: &str, packet: &Packet) -> bool {
        matches!(evaluate(self.stations[node].engine.ruleset(), packet).decision, Decision::Accept)
    }

    /// Does a flow's first packet get through, judged by every node on its way? Ends are pods, nodes, addresses or
    /// `outside`. Both families must agree. A pod to itself means: through a Service.
    pub(crate) fn open(&self, from: &str, to: &str, what: &str) -> bool {
        let open: BTreeMap<Family, bool> = Family::BOTH
            .into_iter()
            .filter_map(|family| Some((family, self.open_in(family, from, to, what)?)))
            .collect();
        let answers: BTreeSet<bool> = open.values().copied().collect();
        assert_eq!(answers.len(), 1, "{from} to {to} {what}: {open:?}");
        answers.contains(&true)
    }

    /// The same in one family; `None` when an end has no address of it.
    pub(crate) fn open_in(&self, family: Family, from: &str, to: &str, what: &str) -> Option<bool> {
        let (source, destination) = (self.end(from), self.end(to));
        let of = |end: &End| end.addresses.iter().copied().find(|address| Family::of(address) == family);
        let mut packet = Packet::opening(of(&source)?, of(&destination)?, transport(what, family));
        let mut open = true;
        for node in self.route(&source.place, &destination.place) {
            packet.hook = match &destination.place {
                Place::Node(end) if *end == node => Hook::Input,
                _ => Hook::Forward,
            };
            let local = matches!(&source.place, Place::Pod(home) if *home == node);
            packet.input_link = Some(if local { link(from) } else { uplink() });
            open &= self.judge(&node, &packet);
        }
        Some(open)
    }

    /// Nodes whose forward or input hook sees the packet. What a node sends itself passes neither there.
    fn route(&self, source: &Place, destination: &Place) -> BTreeSet<String> {
        let mut nodes: BTreeSet<String> =
            [source, destination].into_iter().filter_map(Place::node).map(str::to_owned).collect();
        if let Place::Node(own) = source {
            nodes.remove(own);
        }
        nodes
    }

    fn end(&self, name: &str) -> End {
        if let Some(raw) = self.pods.get(name) {
            let node = raw["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
            let host = raw["spec"]["hostNetwork"] == true;
            let place = if host { Place::Node(node) } else { Place::Pod(node) };
            return End { addresses: addresses(raw), place };
        }
        if let Some(addresses) = self.nodes.get(name) {
            return End { addresses: addresses.clone(), place: Place::Node(name.to_owned()) };
        }
        let texts = if name == "outside" { OUTSIDE.to_vec() } else { vec![name] };
        let addresses = texts.iter().map(|text| text.parse().unwrap_or_else(|_| panic!("{text}"))).collect();
        End { addresses, place: place_of(name) }
    }

    /// Everybody but one, in order: the pods, then `outside`.
    pub(crate) fn others(&self, but: &str) -> String {
        self.filter(but, |_| true)
    }

    /// Who reaches it; own node apart.
    pub(crate) fn sources(&self, to: &str, what: &str) -> String {
        self.filter(to, |from| self.open(from, to, what))
    }

    /// Whom it reaches.
    pub(crate) fn targets(&self, from: &str, what: &str) -> String {
        self.filter(from, |to| self.open(from, to, what))
    }

    fn filter(&self, but: &str, keep: impl Fn(&str) -> bool) -> String {
        let pods = self.pods.keys().map(String::as_str).filter(|path| *path != but);
        pods.chain(["outside"]).filter(|name| keep(name)).collect::<Vec<_>>().join(" ")
    }
}

/// The interface of a pod on its node; addresses nobody is known to have share one.
pub(crate) fn link(path: &str) -> LinkName {
    match path.split_once('/') {
        Some((namespace, name)) => LinkName::new(&format!("v-{namespace}-{name}")).expect("a short name"),
        None => LinkName::new("v-unknown").expect("a legal name"),
    }
}

fn uplink() -> LinkName {
    LinkName::new("eth0").expect("a legal name")
}

/// The routes of the cluster: a pod range leads to its node, whoever has the address.
fn place_of(address: &str) -> Place {
    for node in 1..=2 {
        if address.starts_with(&format!("10.244.{node}."))
            || address.starts_with(&format!("fd00:244:{node}:"))
        {
            return Place::Pod(format!("n{node}"));
        }
    }
    Place::Outside
}

fn addresses(pod: &Value) -> Vec<IpAddr> {
    let listed = pod["status"]["podIPs"].as_array().into_iter().flatten();
    listed.filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect()
}

/// `tcp/80`, `udp/53`, `sctp/5060`, `icmp` (an echo in the family) or `proto/47`.
pub(crate) fn transport(what: &str, family: Family) -> Transport {
    let (word, number) = what.split_once('/').unwrap_or((what, "0"));
    let number: u16 = number.parse().expect("a number");
    match (word, family) {
        ("tcp", _) => Transport::Tcp { port: number, opening: true },
        ("udp", _) => Transport::Udp(number),
        ("sctp", _) => Transport::Sctp(number),
        ("icmp", Family::V4) => Transport::Icmp(8),
        ("icmp", Family::V6) => Transport::Icmpv6(128),
        _ => Transport::Other(Protocol(u8::try_from(number).expect("a protocol"))),
    }
}

//! What bans come to on one node: bans that judge alike share one pen, and an address several of them name is in it
//! once, until the last of them ends (decision B2).
//!
//! Owns who is never banned (decision B1): addresses of nodes and API servers, and what the operator names, are left
//! out of every set, so that no packet is asked about them.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Bound;

use ipnetwork::IpNetwork;
use podwall_ruleset::{Deadline, Family, Key, LinkName, Value};

use crate::cluster::Cluster;
use crate::intervals::Intervals;
use crate::model::ban::{Ban, BanAction, BanId, BanPort, Management, Mode, Way};
use crate::model::{Labels, Node, NodeName, Text};

/// How a ban judges. One that judges alike differs in addresses and end alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manner {
    /// Which way.
    pub way: Way,
    /// What the banned side notices.
    pub action: BanAction,
    /// Whether packets are refused.
    pub mode: Mode,
    /// Which protocols and ports; `None`: all.
    pub ports: Option<BTreeSet<BanPort>>,
    /// By which interfaces of this node; `None`: any.
    pub links: Option<BTreeSet<LinkName>>,
}

impl Manner {
    /// Can no packet be judged so?
    fn is_void(&self) -> bool {
        self.ports.as_ref().is_some_and(BTreeSet::is_empty)
            || self.links.as_ref().is_some_and(BTreeSet::is_empty)
    }
}

/// How addresses of a manner are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One by one.
    Singles,
    /// In blocks.
    Blocks,
    /// In blocks so wide that they spare the ports of administrators (decision B1).
    Wide,
}

impl Kind {
    /// All, in the order they are asked.
    pub const ALL: [Self; 3] = [Self::Singles, Self::Blocks, Self::Wide];
}

/// Everything that is judged in one manner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pen {
    singles: BTreeMap<IpAddr, Vec<(BanId, Option<Deadline>)>>,
    blocks: BTreeMap<IpNetwork, BTreeSet<BanId>>,
    wide: BTreeMap<IpNetwork, BTreeSet<BanId>>,
}

impl Pen {
    /// Nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.blocks.is_empty() && self.wide.is_empty()
    }

    /// Puts a ban's addresses in; answers which.
    pub fn admit(&mut self, ban: &Ban, way: Way) -> Touched {
        let mut touched = Touched::default();
        for network in &ban.addresses {
            if is_single(network) {
                self.singles.entry(network.ip()).or_default().push((ban.id.clone(), ban.ends));
                touched.singles.push(network.ip());
            } else {
                let kind = kind_of(network, ban, way);
                self.of(kind).entry(*network).or_default().insert(ban.id.clone());
                touched.blocks.insert((Family::of(&network.ip()), kind));
            }
        }
        touched
    }

    /// Takes them out again.
    pub fn retire(&mut self, ban: &Ban, way: Way) -> Touched {
        let mut touched = Touched::default();
        for network in &ban.addresses {
            if is_single(network) {
                if let Some(owners) = self.singles.get_mut(&network.ip()) {
                    owners.retain(|(id, _)| *id != ban.id);
                    if owners.is_empty() {
                        self.singles.remove(&network.ip());
                    }
                }
                touched.singles.push(network.ip());
            } else {
                let kind = kind_of(network, ban, way);
                let blocks = self.of(kind);
                if let Some(owners) = blocks.get_mut(network) {
                    owners.remove(&ban.id);
                    if owners.is_empty() {
                        blocks.remove(network);
                    }
                }
                touched.blocks.insert((Family::of(&network.ip()), kind));
            }
        }
        touched
    }

    /// What of it may have changed when these addresses are spared now, or no longer.
    pub fn among(&self, addresses: &[IpAddr]) -> Touched {
        let concerned = |network: &&IpNetwork| addresses.iter().any(|address| network.contains(*address));
        let kinds = [(&self.blocks, Kind::Blocks), (&self.wide, Kind::Wide)];
        let blocks = kinds.into_iter().flat_map(|(blocks, kind)| {
            blocks.keys().filter(concerned).map(move |network| (Family::of(&network.ip()), kind))
        });
        let singles = addresses.iter().filter(|address| self.singles.contains_key(address)).copied();
        Touched { singles: singles.collect(), blocks: blocks.collect() }
    }

    fn of(&mut self, kind: Kind) -> &mut BTreeMap<IpNetwork, BTreeSet<BanId>> {
        match kind {
            Kind::Wide => &mut self.wide,
            Kind::Blocks | Kind::Singles => &mut self.blocks,
        }
    }

    /// What the set of single addresses holds for one: until the last of its bans ends.
    pub fn single(&self, address: IpAddr, spared: &Spared) -> Option<Value> {
        let owners = self.singles.get(&address).filter(|_| !spared.holds(address))?;
        let ends: Option<Vec<Deadline>> = owners.iter().map(|(_, end)| *end).collect();
        Some(ends.and_then(|ends| ends.into_iter().max()).map_or(Value::Member, Value::Until))
    }

    /// All single addresses of a family with what their set holds.
    pub fn singles(&self, family: Family, spared: &Spared) -> impl Iterator<Item = (Key, Value)> {
        let own = self.singles.keys().filter(move |address| Family::of(address) == family);
        own.filter_map(|address| Some((Key::Address(*address), self.single(*address, spared)?)))
    }

    /// The ranges of a family: its blocks merged, less what is spared.
    pub fn ranges(&self, family: Family, kind: Kind, spared: &Spared) -> BTreeSet<Key> {
        let blocks = match kind {
            Kind::Wide => &self.wide,
            Kind::Blocks => &self.blocks,
            Kind::Singles => return BTreeSet::new(),
        };
        let merged = Intervals::of_networks(family, blocks.keys()).less(&spared.holes(family));
        merged.iter().map(|(first, last)| Key::Range(first, last)).collect()
    }

    /// The bans that an element of one of the pen's sets stands for: those of an address, or all that a range covers
    /// at least in part.
    pub fn behind(&self, kind: Kind, key: &Key) -> BTreeSet<&BanId> {
        let blocks = match kind {
            Kind::Singles => {
                let Key::Address(address) = key else { return BTreeSet::new() };
                return self.singles.get(address).into_iter().flatten().map(|(id, _)| id).collect();
            }
            Kind::Blocks => &self.blocks,
            Kind::Wide => &self.wide,
        };
        let Key::Range(first, last) = key else { return BTreeSet::new() };
        // Whatever covers the first address, and whatever begins after it.
        let around = (0..=whole(*first))
            .filter_map(|prefix| around(*first, prefix))
            .filter_map(|block| blocks.get(&block));
        let after = (Bound::Excluded(IpNetwork::from(*first)), Bound::Included(IpNetwork::from(*last)));
        around.chain(blocks.range(after).map(|(_, ids)| ids)).flatten().collect()
    }

    /// The bans that hold an address, be it spared or not.
    pub fn holders(&self, address: IpAddr) -> impl Iterator<Item = &BanId> {
        let single = self.singles.get(&address).into_iter().flatten().map(|(id, _)| id);
        let blocks = self.blocks.iter().chain(&self.wide);
        single.chain(blocks.filter(move |(network, _)| network.contains(address)).flat_map(|(_, ids)| ids))
    }
}

/// What an edit of a pen may have changed.
#[derive(Debug, Default)]
pub struct Touched {
    /// These addresses.
    pub singles: Vec<IpAddr>,
    /// Blocks of these.
    pub blocks: BTreeSet<(Family, Kind)>,
}

/// Length of an address.
const fn whole(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The block of that length an address is in.
fn around(address: IpAddr, prefix: u8) -> Option<IpNetwork> {
    let network = IpNetwork::new(address, prefix).ok()?.network();
    IpNetwork::new(network, prefix).ok()
}

/// One address, however it is written.
fn is_single(network: &IpNetwork) -> bool {
    network.prefix() == whole(network.ip())
}

/// Only connections to us go to the ports of administrators.
fn kind_of(network: &IpNetwork, ban: &Ban, way: Way) -> Kind {
    let wide = match network {
        IpNetwork::V4(network) => network.prefix() < 16,
        IpNetwork::V6(network) => network.prefix() < 32,
    };
    match (way, ban.management) {
        (Way::In, Management::Spare) if wide => Kind::Wide,
        (Way::In | Way::Out, Management::Spare | Management::Ban) => Kind::Blocks,
    }
}

/// In which manners a ban judges on this node just now: none when it is not meant here, or over.
pub fn manners(ban: &Ban, place: &Place, now: Deadline) -> Vec<Manner> {
    let over = ban.ends.is_some_and(|end| end <= now);
    if over || !ban.nodes.as_ref().is_none_or(|nodes| nodes.matches(&place.labels)) {
        return Vec::new();
    }
    let links = ban.links.as_ref().map(|links| {
        let grouped = links.groups.iter().filter_map(|group| place.groups.get(group)).flatten();
        links.names.iter().chain(grouped).cloned().collect()
    });
    let manner = |way: &Way| Manner {
        way: *way,
        action: ban.action,
        mode: ban.mode,
        ports: ban.ports.clone(),
        links: links.clone(),
    };
    ban.ways.iter().map(manner).filter(|manner| !manner.is_void()).collect()
}

/// What bans ask of the node they hold on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    labels: Labels,
    groups: BTreeMap<Text, BTreeSet<LinkName>>,
}

impl Place {
    /// The node; one that is not known has no labels.
    pub fn of(cluster: &Cluster, node: &NodeName) -> Self {
        let known = cluster.node(node);
        Self {
            labels: known.map(|node| node.labels.clone()).unwrap_or_default(),
            groups: known.map(|node| node.link_groups.clone()).unwrap_or_default(),
        }
    }
}

/// All pens of a node, from scratch.
pub fn pens(cluster: &Cluster, node: &NodeName) -> BTreeMap<Manner, Pen> {
    let place = Place::of(cluster, node);
    let mut pens: BTreeMap<Manner, Pen> = BTreeMap::new();
    for ban in cluster.bans() {
        for manner in manners(ban, &place, cluster.clock()) {
            let way = manner.way;
            drop(pens.entry(manner).or_default().admit(ban, way));
        }
    }
    pens
}

/// Who is never banned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spared {
    addresses: BTreeSet<IpAddr>,
    networks: Vec<IpNetwork>,
}

impl Spared {
    /// What the operator names, and every host's talk with itself.
    pub fn of_networks(named: &[IpNetwork]) -> Self {
        let loopback = [
            IpNetwork::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
            IpNetwork::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        ];
        let networks = loopback.into_iter().flatten().chain(named.iter().copied());
        Self { addresses: BTreeSet::new(), networks: networks.collect() }
    }

    /// The same, with nodes and API servers.
    pub fn of(cluster: &Cluster, named: &[IpNetwork]) -> Self {
        let nodes = cluster.nodes().flat_map(|node: &Node| node.addresses.iter().copied());
        let addresses = nodes.chain(cluster.api_servers().iter().copied()).collect();
        Self { addresses, ..Self::of_networks(named) }
    }

    /// Takes addresses in and out; answers which were not so before.
    pub fn change(&mut self, now: &BTreeSet<IpAddr>, no_longer: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
        let come = now.iter().filter(|address| self.addresses.insert(**address));
        let mut changed: Vec<IpAddr> = come.copied().collect();
        changed.extend(no_longer.iter().filter(|address| self.addresses.remove(*address)));
        changed
    }

    /// Is the address never banned?
    pub fn holds(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.networks.iter().any(|network| network.contains(address))
    }

    fn holes(&self, family: Family) -> Intervals {
        let single = |address: &IpAddr| IpNetwork::from(*address);
        let all: Vec<IpNetwork> =
            self.addresses.iter().map(single).chain(self.networks.iter().copied()).collect();
        Intervals::of_networks(family, &all)
    }
}

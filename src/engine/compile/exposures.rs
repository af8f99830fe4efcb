//! Doors of Services in the kernel: asked before any destination NAT, by the client's own address.
//!
//! Doors with the same guard share one set for ports of the node and one for addresses of each family, so the number
//! of rules follows the number of different guards. Who is inside the cluster, pods and nodes, is let through first.
use std::collections::{BTreeMap, BTreeSet};

use podwall_ruleset::{
    Chain, ChainName, Count, Digest, Effect, Family, Key, Lookup, Match, Outcome, PortRange, Rule, Set,
    SetName, SetSpec, Shape, Side, Value, Verdict,
};

use crate::cluster::Cluster;
use crate::compile::names;
use crate::compile::policy_chain::{deny_tail, rule};
use crate::intervals::Intervals;
use crate::model::PeerSelector;
use crate::model::ban::Mode;
use crate::options::Options;
use crate::resolve::exposures::{Door, Guard};
use crate::resolve::group::Group;

/// Which sets of doors there are: those that hold something.
pub type Present = BTreeSet<(Guard, DoorSet)>;

/// Where a door stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DoorSet {
    /// Among the ports of the node.
    Local,
    /// Among the addresses of a family.
    At(Family),
}

/// The rules that follow from it, but for the base chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoorRules {
    /// Chains.
    pub chains: BTreeMap<ChainName, Chain>,
    /// Sets they look at that never change.
    pub constants: BTreeMap<SetName, Set>,
}

/// Everybody inside the cluster who has an address of his own.
pub fn pods() -> Group {
    Group::Pods(PeerSelector::everyone())
}

/// The set of nodes of a family.
pub fn nodes(family: Family) -> (SetName, SetSpec) {
    (names::nodes(family), SetSpec { shape: Shape::Addresses(family), size: None })
}

/// What it holds.
pub fn node_keys(cluster: &Cluster, family: Family) -> BTreeSet<Key> {
    let addresses = cluster.nodes().flat_map(|node| node.addresses.iter());
    addresses.filter(|address| Family::of(address) == family).map(|address| Key::Address(*address)).collect()
}

/// Where a door stands, and as what.
pub fn key(door: &Door) -> (DoorSet, Key) {
    match door {
        Door::Local(protocol, port) => (DoorSet::Local, Key::Service(*protocol, PortRange::single(*port))),
        Door::At(address, protocol, port) => {
            (DoorSet::At(Family::of(address)), Key::Endpoint(*address, *protocol, *port))
        }
    }
}

/// The set of a guard's doors.
pub fn set(guard: &Guard, doors: DoorSet) -> (SetName, SetSpec) {
    let growth = match guard.mode {
        Mode::Enforce => 'c',
        Mode::Audit => 'n',
    };
    let (prefix, shape) = match doors {
        DoorSet::Local => (format!("{growth}_d"), Shape::Services),
        DoorSet::At(family) => (format!("{growth}_d{}", family.digit()), Shape::Endpoints(family)),
    };
    (SetName::of_content(&prefix, digest(guard)), SetSpec { shape, size: None })
}

fn digest(guard: &Guard) -> Digest {
    Digest::of([format!("{guard:?}")])
}

/// Everything about doors but the base chain that leads there.
pub fn rules(present: &Present, refused: &BTreeSet<ChainName>, options: &Options) -> DoorRules {
    let mut found = DoorRules::default();
    if present.is_empty() {
        return found;
    }
    let mut doors = inside();
    for (guard, set) in present {
        let families: &[Family] = match set {
            DoorSet::Local => &Family::BOTH,
            DoorSet::At(Family::V4) => &[Family::V4],
            DoorSet::At(Family::V6) => &[Family::V6],
        };
        for family in families {
            let keeper_name = name(guard, *family);
            if refused.contains(&keeper_name) {
                // Nobody outside comes in by a door whose keeper the kernel refuses; who only looks on shuts nobody out.
                if guard.mode == Mode::Enforce {
                    doors.push(door(guard, *set, (*family, names::refused())));
                }
                continue;
            }
            doors.push(door(guard, *set, (*family, keeper_name.clone())));
            let chain = keeper(guard, *family, options, &mut found.constants);
            found.chains.insert(keeper_name, chain);
        }
    }
    found.chains.insert(names::exposed(), Chain { base: None, rules: doors });
    found
}

fn inside() -> Vec<Rule> {
    let at = names::exposed();
    let mut rules = Vec::new();
    for family in Family::BOTH {
        for (purpose, set) in [("pods", pods().set(family).0), ("nodes", names::nodes(family))] {
            let id = names::own_rule(&at, &format!("{purpose}{}", family.digit()));
            let matches = vec![Match::In(Lookup::Address(family, Side::Source), set)];
            rules.push(rule(id, matches, Verdict::Return.plain()));
        }
    }
    rules
}

fn door(guard: &Guard, doors: DoorSet, (family, next): (Family, ChainName)) -> Rule {
    let (set, _) = set(guard, doors);
    let id = names::own_rule(&names::exposed(), &format!("{set} {}", family.digit()));
    let matches = match doors {
        DoorSet::Local => vec![Match::Family(family), Match::In(Lookup::Service, set), Match::Local],
        DoorSet::At(_) => vec![Match::In(Lookup::Endpoint(family, Side::Destination), set)],
    };
    rule(id, matches, Verdict::Jump(next).plain())
}

/// The chain that keeps a guard's doors.
pub fn name(guard: &Guard, family: Family) -> ChainName {
    ChainName::of_content(&format!("d{}", family.digit()), digest(guard))
}

/// Lets in whom the guard knows, and refuses or only records the others.
fn keeper(guard: &Guard, family: Family, options: &Options, constants: &mut BTreeMap<SetName, Set>) -> Chain {
    let at = name(guard, family);
    let mut rules = Vec::new();
    if let Some(known) = known(guard.allowed(family), family, constants) {
        rules.push(rule(names::own_rule(&at, "known"), known, Verdict::Return.counted()));
    }
    let [record, drop] = deny_tail(&at, family, options);
    let last = match guard.mode {
        Mode::Enforce => drop,
        Mode::Audit => {
            let count = Effect { count: Count::Yes, log: None, outcome: Outcome::Continue };
            rule(names::own_rule(&at, "audited"), vec![Match::Family(family)], count)
        }
    };
    rules.extend([record, last]);
    Chain { base: None, rules }
}

/// `None`: nobody.
fn known(allowed: &Intervals, family: Family, constants: &mut BTreeMap<SetName, Set>) -> Option<Vec<Match>> {
    if allowed.is_empty() {
        return None;
    }
    if allowed.is_everything() {
        return Some(vec![Match::Family(family)]);
    }
    if let Some(network) = allowed.as_network() {
        return Some(vec![Match::Prefix(Side::Source, network)]);
    }
    let name = allowed.set_name();
    let mut set = Set::new(SetSpec { shape: Shape::Ranges(family), size: None });
    for (first, last) in allowed.iter() {
        // A plain set takes every plain key; there is nothing else to go wrong.
        let _ = set.insert(Key::Range(first, last), Value::Member);
    }
    constants.insert(name.clone(), set);
    Some(vec![Match::In(Lookup::Address(family, Side::Source), name)])
}

//! A verdict map as a tree of chains: five levels of four by the low ten bits of the address, lowest first.
//!
//! iptables takes masks that are not prefixes (`-d 0.0.0.1/0.0.0.3`), and addresses of pods differ in their low bits,
//! so a packet meets at most 20 rules and a 1024th of the pods, of 2.5 ns each (`nftables.md` section 4: a list of 10k
//! pods costs 29 us). Four ways are the fewest rules for a bit; more levels would be more chains, and legacy takes the
//! whole table out of the kernel and puts it back on each change: every chain costs it two rules more. For the same
//! reason an element says in a comment only what its target does not. Every step is a goto: RETURN leaves the chain
//! that asked, and what the tree does not hold goes on behind the asking rule, by way of the map's register.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwall_ruleset::{ChainName, Family, Key, Outcome, Ruleset, Set, SetName, Value, Verdict};

use super::{Unsuited, applies, comment, target};
use crate::image::{Image, Place};
use crate::observe::comment_of;
use crate::{names, spelling, tag};

/// Levels of the tree.
const LEVELS: u32 = 5;
/// Bits of the address that a level tells apart.
const BITS: u32 = 2;

/// A node: how many digits led to it, and the low bits they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node {
    level: u32,
    low: u32,
}

impl Node {
    const ROOT: Self = Self { level: 0, low: 0 };

    /// Every node on the way to an address, its leaf last.
    pub(crate) fn path(address: IpAddr) -> impl Iterator<Item = Self> {
        let bits = low_bits(address);
        (0..=LEVELS).map(move |level| Self { level, low: bits & mask(level) })
    }

    /// The next node on the way to an address; `None` for a leaf.
    fn towards(self, address: IpAddr) -> Option<Self> {
        let level = self.level + 1;
        (level <= LEVELS).then(|| Self { level, low: low_bits(address) & mask(level) })
    }

    fn digits(self) -> String {
        (0..self.level)
            .filter_map(|place| char::from_digit(self.low >> (BITS * place) & mask(1), 10))
            .collect()
    }

    fn name(self, map: &SetName) -> Result<String, names::TooLong> {
        names::node(map, &self.digits())
    }
}

/// The kernel name of a node.
pub(crate) fn place(map: &SetName, family: Family, node: Node) -> Result<Place, Unsuited> {
    Ok((family, node.name(map)?))
}

const fn mask(level: u32) -> u32 {
    (1 << (BITS * level)) - 1
}

fn low_bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits() & mask(LEVELS),
        IpAddr::V6(address) => {
            u32::try_from(address.to_bits() & u128::from(mask(LEVELS))).unwrap_or_default()
        }
    }
}

/// The chains of a map's tree: all, or those on the way to some addresses, whole ways.
pub(crate) fn tree(
    map: &SetName,
    family: Family,
    set: &Set,
    wanted: Option<&BTreeSet<Node>>,
) -> Result<Image, Unsuited> {
    let option = side(map)?;
    let mut nodes: BTreeMap<Node, BTreeSet<Node>> = BTreeMap::new();
    let mut leaves: BTreeMap<Node, Vec<String>> = BTreeMap::new();
    let is_wanted = |node: &Node| wanted.is_none_or(|wanted| wanted.contains(node));
    nodes.insert(Node::ROOT, BTreeSet::new());
    for (key, value) in set.iter() {
        let (Key::Address(address), Value::Verdict(verdict)) = (key, &value) else { continue };
        // Who wants a node wants all on the way to it: most elements part at the root.
        for node in Node::path(*address).take_while(is_wanted) {
            match node.towards(*address) {
                Some(child) => drop(nodes.entry(node).or_default().insert(child)),
                None => leaves.entry(node).or_default().push(element(option, *address, verdict, family)?),
            }
        }
    }
    let missed = format!("-g {}", names::register(map)?);
    let mut image = Image::default();
    for (node, children) in nodes {
        let mut lines = Vec::new();
        for child in children {
            let (value, mask) = (child.low & !mask(node.level), mask(child.level) & !mask(node.level));
            let masked = format!("{}/{}", as_address(family, value), as_address(family, mask));
            lines.push(format!("{option} {masked} -g {}", child.name(map)?));
        }
        lines.push(missed.clone());
        image.chains.insert(place(map, family, node)?, lines);
    }
    for (leaf, mut lines) in leaves {
        lines.push(missed.clone());
        image.chains.insert(place(map, family, leaf)?, lines);
    }
    Ok(image)
}

fn element(option: &str, address: IpAddr, verdict: &Verdict, family: Family) -> Result<String, Unsuited> {
    let (length, address) = (if address.is_ipv4() { 32 } else { 128 }, spelling::address(address));
    let target = target(verdict, family, false)?;
    if read_target(&target).as_ref() == Some(verdict) {
        return Ok(format!("{option} {address}/{length} {target}"));
    }
    let words = comment(format!("e {}", tag::verdict(verdict)))?;
    Ok(format!("{option} {address}/{length} {words} {target}"))
}

/// The address and verdict of an element, from the line it stands in.
pub(crate) fn read_element(line: &str) -> Option<(IpAddr, Verdict)> {
    let mut words = line.splitn(3, ' ').skip(1);
    let (address, rest) = (words.next()?.split('/').next()?.parse().ok()?, words.next()?);
    let verdict = match comment_of(line) {
        Some(words) => tag::read_verdict(words.strip_prefix("e ")?)?,
        None => read_target(rest)?,
    };
    Some((address, verdict))
}

/// The verdict a target alone tells.
fn read_target(target: &str) -> Option<Verdict> {
    let chain = |name: &str| ChainName::new(name.strip_prefix("PW-")?).ok();
    match target.split_once(' ')? {
        ("-j", "RETURN") => Some(Verdict::Return),
        ("-j", "DROP") => Some(Verdict::Drop),
        ("-j", "ACCEPT") => Some(Verdict::Accept),
        ("-j", name) => Some(Verdict::Jump(chain(name)?)),
        ("-g", name) => Some(Verdict::Goto(chain(name)?)),
        _ => None,
    }
}

/// Where packets go on that the map does not hold: behind the one rule that asks it.
pub(crate) fn behind(ruleset: &Ruleset, map: &SetName, family: Family) -> Result<Option<String>, Unsuited> {
    let mut found = None;
    for (name, chain) in &ruleset.chains {
        let asks = chain.rules.iter().filter(|rule| applies(rule, family));
        let maps = asks.filter_map(|rule| match &rule.effect.outcome {
            Outcome::Map(_, map) => Some(map),
            Outcome::Continue | Outcome::Verdict(_) => None,
        });
        for (segment, asked) in maps.enumerate() {
            if asked == map && found.replace(names::chain(name, segment + 1)?).is_some() {
                return Err(Unsuited::new(format!("map {map} is asked by two rules")));
            }
        }
    }
    Ok(found)
}

/// A map's name says which end of a packet it is asked for, as it does for the stager.
fn side(map: &SetName) -> Result<&'static str, Unsuited> {
    match map.as_str().get(..2) {
        Some("in") => Ok("-d"),
        Some("eg") => Ok("-s"),
        _ => Err(Unsuited::new(format!("map {map} is neither for ingress nor for egress"))),
    }
}

fn as_address(family: Family, low: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(low).into(),
        Family::V6 => Ipv6Addr::from_bits(low.into()).into(),
    }
}

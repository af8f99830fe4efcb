//! What stands, folded back into a neutral ruleset, and what of it cannot have come from us.
//!
//! Folding believes the tags; then the result is lowered again and compared with what stands. An object that differs
//! is alien: it is given a mark no compiler of ours would make, so that the diff replaces it.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use podwall_ruleset::{
    Base, Chain, ChainName, Count, Deadline, Digest, Effect, Family, Key, LinkName, Outcome, PortRange,
    Protocol, Rule, RuleId, Ruleset, Set, SetName, SetSpec, Shape, Value,
};

use crate::image::{Image, Ipset, hook_of};
use crate::lower::{self, dispatch, set};
use crate::names;
use crate::own::Owned;
use crate::restore::{self, Saved};
use crate::tag;

/// A folded image.
#[derive(Debug, Default)]
pub(crate) struct Folded {
    pub(crate) ruleset: Ruleset,
    pub(crate) alien: Vec<String>,
}

/// Folds what stands. `left` is what we left there, for the part of it that is not in this kernel.
pub(crate) fn fold(image: &Image, families: &[Family], left: &Ruleset) -> Folded {
    let mut folded = Folded::default();
    sets(image, &mut folded);
    registers(image, &mut folded);
    chains(image, &mut folded);
    if families.len() < Family::BOTH.len() {
        recall(left, families, &mut folded.ruleset);
    }
    compare(image, families, &mut folded);
    folded
}

/// The chains as their tags tell them, unproven: for reading counters.
pub(crate) fn tagged(image: &Image) -> Ruleset {
    let mut folded = Folded::default();
    chains(image, &mut folded);
    folded.ruleset
}

/// The text of the comment of a rule.
pub(crate) fn comment_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("--comment \"")?;
    rest.split_once('"').map(|(text, _)| text)
}

fn sets(image: &Image, folded: &mut Folded) {
    for (name, ipset) in &image.sets {
        if let Some((neutral, set)) = ipset_of(name, ipset) {
            folded.ruleset.sets.insert(neutral, Arc::new(set));
        }
    }
}

fn ipset_of(name: &str, ipset: &Ipset) -> Option<(SetName, Set)> {
    let (letter, name) = name.strip_prefix("pw")?.split_at_checked(1)?;
    let name = SetName::new(name.strip_prefix('_')?).ok()?;
    let mut words = ipset.create.split(' ');
    let (_, family) = (words.next()?, words.nth(1)?);
    let family = if family == "inet6" { Family::V6 } else { Family::V4 };
    let size: u32 = words.nth(1)?.parse().ok()?;
    let size = (size != set::UNBOUNDED).then_some(size);
    let shape = match letter {
        "a" => Shape::Addresses(family),
        "r" => Shape::Ranges(family),
        "p" => Shape::Pairs(family),
        "e" => Shape::Endpoints(family),
        "b" => Shape::Banned(family),
        "n" => Shape::BannedRanges(family),
        "l" => Shape::Learned(family),
        _ => return None,
    };
    let mut set = Set::new(SetSpec { shape, size });
    if let Shape::Ranges(_) | Shape::BannedRanges(_) = shape {
        for (first, last) in ranges(&ipset.members)? {
            set.insert(Key::Range(first, last), Value::Member).ok()?;
        }
        return Some((name, set));
    }
    for member in &ipset.members {
        let (member, value) = match member.split_once(" comment ") {
            Some((member, end)) => (member, Value::Until(Deadline(end.trim_matches('"').parse().ok()?))),
            None => (member.as_str(), Value::Member),
        };
        let key = match shape {
            Shape::Pairs(_) => member.parse().ok().map(|address| Key::Pair(address, address)),
            Shape::Endpoints(_) => endpoint(member),
            Shape::Learned(_) => member
                .split_once(',')
                .and_then(|(source, to)| Some(Key::Pair(source.parse().ok()?, to.parse().ok()?))),
            _ => member.parse().ok().map(Key::Address),
        };
        set.insert(key?, value).ok()?;
    }
    Some((name, set))
}

fn endpoint(member: &str) -> Option<Key> {
    let (address, service) = member.split_once(',')?;
    let (protocol, port) = service.split_once(':')?;
    let known = [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP, Protocol::ICMPV6];
    let protocol = known
        .into_iter()
        .find(|known| known.to_string() == protocol)
        .or_else(|| protocol.parse().ok().map(Protocol))?;
    Some(Key::Endpoint(address.parse().ok()?, protocol, port.parse().ok()?))
}

/// Blocks that touch are one range: a set's ranges never touch.
fn ranges(members: &BTreeSet<String>) -> Option<Vec<(IpAddr, IpAddr)>> {
    let mut blocks: Vec<(IpAddr, IpAddr)> =
        members.iter().map(|member| block(member)).collect::<Option<_>>()?;
    blocks.sort();
    let mut joined: Vec<(IpAddr, IpAddr)> = Vec::new();
    for (first, last) in blocks {
        match joined.last_mut().filter(|range| next(range.1) == Some(first)) {
            Some(range) => range.1 = last,
            None => joined.push((first, last)),
        }
    }
    Some(joined)
}

fn block(member: &str) -> Option<(IpAddr, IpAddr)> {
    let network: ipnetwork::IpNetwork = member.parse().ok()?;
    let last = match network {
        ipnetwork::IpNetwork::V4(network) => network.broadcast().into(),
        ipnetwork::IpNetwork::V6(network) => network.broadcast().into(),
    };
    Some((network.network(), last))
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// Sets that are chains: the first line of the register says what they are.
fn registers(image: &Image, folded: &mut Folded) {
    for ((_, place), lines) in &image.chains {
        let Some(name) = place.strip_prefix("PWS-").and_then(|name| SetName::new(name).ok()) else {
            continue;
        };
        let comments = || lines.iter().filter_map(|line| comment_of(line));
        let Some(spec) = comments().next().and_then(set::read_head) else { continue };
        let mut set = Set::new(spec);
        if let Shape::Verdicts(family) = spec.shape {
            verdicts(image, &name, family, &mut set);
        }
        for entry in comments().filter_map(|comment| comment.strip_prefix("e ")) {
            let key = match spec.shape {
                Shape::Links => LinkName::new(entry).ok().map(Key::Link),
                _ => service(entry),
            };
            if let Some(key) = key {
                drop(set.insert(key, Value::Member));
            }
        }
        folded.ruleset.sets.insert(name, Arc::new(set));
    }
}

fn service(entry: &str) -> Option<Key> {
    let mut numbers = entry.split(':');
    let protocol = Protocol(numbers.next()?.parse().ok()?);
    let ports = PortRange::new(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?)?;
    Some(Key::Service(protocol, ports))
}

/// What the leaves of a map's tree hold.
fn verdicts(image: &Image, map: &SetName, family: Family, set: &mut Set) {
    let prefix = format!("PWM-{map}-");
    for (_, lines) in image.named(family, &prefix) {
        for (address, verdict) in lines.iter().filter_map(|line| dispatch::read_element(line)) {
            drop(set.insert(Key::Address(address), Value::Verdict(verdict)));
        }
    }
}

fn chains(image: &Image, folded: &mut Folded) {
    let mut rules: BTreeMap<ChainName, BTreeMap<usize, Rule>> = BTreeMap::new();
    for ((_, place), lines) in &image.chains {
        let Some(name) = place.strip_prefix("PW-") else { continue };
        let Ok(name) = ChainName::new(name.split('.').next().unwrap_or_default()) else { continue };
        let found = rules.entry(name).or_default();
        let tags = lines.iter().filter_map(|line| comment_of(line));
        found.extend(tags.filter_map(tag::read));
    }
    for (name, rules) in rules {
        let base = base(image, &name);
        let chain = Chain { base, rules: rules.into_values().collect() };
        folded.ruleset.chains.insert(name, Arc::new(chain));
    }
}

fn base(image: &Image, name: &ChainName) -> Option<Base> {
    image.jumps.iter().find_map(|(_, jump)| {
        let (of, priority) = comment_of(&jump.line)?.strip_prefix("podwall ")?.split_once(' ')?;
        let priority = priority.parse().ok().filter(|_| of == name.as_str())?;
        Some(Base { hook: hook_of(jump.hook)?, priority })
    })
}

/// On a host without IPv6 half of each chain stands nowhere, and neither do maps of IPv6. They are as we left them if
/// the other half is, which is compared; a process that left nothing writes them once.
fn recall(left: &Ruleset, families: &[Family], seen: &mut Ruleset) {
    for (name, chain) in &left.chains {
        let apart = !names::families(name).iter().any(|family| families.contains(family));
        if apart || seen.chains.contains_key(name) {
            seen.chains.insert(name.clone(), Arc::clone(chain));
        }
    }
    for (name, set) in &left.sets {
        let shape = set.spec.shape;
        let absent = shape.family().is_some_and(|family| !families.contains(&family));
        if absent && names::ipset(name, shape).is_none() {
            seen.sets.insert(name.clone(), Arc::clone(set));
        }
    }
}

/// Lowers what was folded and marks what does not come out as it stands.
fn compare(image: &Image, families: &[Family], folded: &mut Folded) {
    let ruleset = folded.ruleset.clone();
    for (name, set) in &ruleset.sets {
        let lowered = set::whole(&ruleset, name, set);
        if !lowered.is_ok_and(|lowered| whole_set(image, families, name, lowered)) {
            folded.alien.push(format!("set {name}: is not as we wrote it"));
            folded.ruleset.sets.remove(name);
        }
    }
    let reverse_path = lower::reverse_path(&ruleset);
    for (name, chain) in &ruleset.chains {
        let checks = chain.rules.iter().any(lower::checks_reverse_path);
        let lowered = lower::chain(&ruleset, name, chain).and_then(|mut lowered| {
            if checks {
                lowered.extend(reverse_path.clone()?);
            }
            lowered.retain(families);
            Ok(lowered)
        });
        let lost = |lowered: &Image| lowered.chains.keys().any(|place| !image.chains.contains_key(place));
        match lowered {
            Ok(lowered) if stands(image, &lowered) => {}
            Ok(lowered) if !lost(&lowered) => strange(folded, name),
            // Taken for absent, lest others are led into a chain that is not there.
            Ok(_) | Err(_) => {
                folded.alien.push(format!("chain {name}: is not whole"));
                folded.ruleset.chains.remove(name);
            }
        }
    }
    strays(Owned::of(&ruleset).strays(image), folded);
}

fn stands(image: &Image, wanted: &Image) -> bool {
    wanted.chains.iter().all(|(place, lines)| image.chains.get(place) == Some(lines))
        && wanted.jumps.is_subset(&image.jumps)
}

/// A rule nobody wants: what it stands in for differs from anything that could be there instead.
fn strange(folded: &mut Folded, name: &ChainName) {
    folded.alien.push(format!("chain {name}: is not as we wrote it"));
    if let Some(chain) = folded.ruleset.chains.get_mut(name) {
        let effect = Effect { count: Count::No, log: None, outcome: Outcome::Continue };
        let id = RuleId(Digest::from_bytes([0; 13]));
        Arc::make_mut(chain).rules.push(Rule { id, matches: Vec::new(), effect });
    }
}

/// A set whose kernel objects differ is taken for absent, so that the diff makes it again, over what stands.
fn whole_set(image: &Image, families: &[Family], name: &SetName, mut wanted: Image) -> bool {
    wanted.retain(families);
    let tree = format!("PWM-{name}-");
    let mut nodes = Family::BOTH.into_iter().flat_map(|family| image.named(family, &tree));
    nodes.all(|(place, _)| wanted.chains.contains_key(place))
        && stands(image, &wanted)
        && wanted.sets.iter().all(|(name, set)| image.sets.get(name) == Some(set))
}

/// Objects under our prefixes that no neutral object of ours explains: `sweep` takes them out.
fn strays(stray: Image, folded: &mut Folded) {
    let chains = stray.chains.keys().map(|(_, name)| format!("chain {name}: nothing of ours"));
    let jumps =
        stray.jumps.iter().map(|(_, jump)| format!("{}: a jump that is not ours: {}", jump.hook, jump.line));
    let sets = stray.sets.keys().map(|name| format!("set {name}: nothing of ours"));
    folded.alien.extend(chains.chain(jumps).chain(sets));
}

/// Packets and bytes of one rule, all its kernel rules together; `apart`: counted by rules of its own, without target.
pub(crate) fn counted(saved: &Saved, chain: &ChainName, index: usize, apart: bool) -> restore::Count {
    let mut sum = (0, 0);
    let (first, rest) = (format!("PW-{chain}"), format!("PW-{chain}."));
    let of_family = |family| {
        let first = saved.image.chains.get_key_value(&(family, first.clone()));
        first.into_iter().chain(saved.image.named(family, &rest))
    };
    for (place, lines) in Family::BOTH.into_iter().flat_map(of_family) {
        let counts = saved.counts.get(place).into_iter().flatten();
        for (line, (packets, bytes)) in lines.iter().zip(counts) {
            let at = comment_of(line).and_then(|comment| comment.split(' ').next()?.parse().ok());
            let ends = line.contains("\" -j ") || line.contains("\" -g ");
            if at == Some(index) && !(apart && ends) {
                sum = (sum.0 + packets, sum.1 + bytes);
            }
        }
    }
    sum
}

//! Sets and verdict maps. Owns what an element is and what growing a set means for who may talk.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::ids::{ChainName, LinkName, SetName};
use crate::matching::{Family, PortRange, Protocol};
use crate::verdict::Verdict;

/// What the keys of a set look like. Each shape is one data structure in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// Hash set of addresses: pods.
    Addresses(Family),
    /// Interval set of addresses: CIDR blocks, never pods (a change costs the whole set: `nftables.md` 3b).
    Ranges(Family),
    /// Hash set of source . destination.
    Pairs(Family),
    /// Hash set of address . protocol . port: named ports of pods.
    Endpoints(Family),
    /// Interval set of protocol . port range.
    Services,
    /// Hash set of interface names.
    Links,
    /// Hash map from an address to a verdict.
    Verdicts(Family),
    /// Hash set of addresses of which each may have an end, kept by the kernel too, and has a counter.
    Banned(Family),
    /// Interval set of addresses of which each range has a counter. Without ends: the kernel's clean-up of expired
    /// intervals is not to be trusted (CVE-2026-23351).
    BannedRanges(Family),
    /// Hash set of source . destination of which each has an end, kept by the kernel too, and a counter: addresses that
    /// pods learned from DNS.
    Learned(Family),
    /// Filled by the kernel itself: source address with its rate. Elements are never ours to write or compare.
    Meter(Family),
}

/// What it means for traffic when a set grows. The stager orders commits by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Growth {
    /// More elements let more through (peers of accept rules).
    Opens,
    /// More elements let less through (pending ranges, guarded interfaces).
    Closes,
    /// Elements do not decide verdicts of new connections (meters, recheck).
    Neutral,
}

impl Growth {
    /// A set's name says it, because no kernel would keep it for us: `c_` closes, `n_` is neutral, all others open.
    pub fn of(name: &SetName) -> Self {
        match name.as_str().get(..2) {
            Some("c_") => Self::Closes,
            Some("n_") => Self::Neutral,
            _ => Self::Opens,
        }
    }
}

/// All that is fixed about a set when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetSpec {
    /// Shape of the keys.
    pub shape: Shape,
    /// Hard limit of elements; declaring one selects the kernel's faster fixed hash.
    pub size: Option<u32>,
}

impl Shape {
    /// The family whose packets can match, if there is only one.
    pub const fn family(self) -> Option<Family> {
        match self {
            Self::Addresses(family)
            | Self::Ranges(family)
            | Self::Pairs(family)
            | Self::Endpoints(family)
            | Self::Verdicts(family)
            | Self::Banned(family)
            | Self::BannedRanges(family)
            | Self::Learned(family)
            | Self::Meter(family) => Some(family),
            Self::Services | Self::Links => None,
        }
    }
}

/// How many sources a meter remembers when its spec declares no size; a new source beyond is not logged.
pub const METER_SIZE: u32 = 65_535;

/// How long a meter remembers a source that sends nothing more. Long enough for any burst to refill.
pub const METER_TIMEOUT: Duration = Duration::from_secs(60);

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// For [`Shape::Addresses`], [`Shape::Banned`] and [`Shape::Verdicts`].
    Address(IpAddr),
    /// For [`Shape::Ranges`] and [`Shape::BannedRanges`]: both ends inclusive, same family; a set's ranges never touch or overlap.
    Range(IpAddr, IpAddr),
    /// For [`Shape::Pairs`] and [`Shape::Learned`]: source, destination.
    Pair(IpAddr, IpAddr),
    /// For [`Shape::Endpoints`].
    Endpoint(IpAddr, Protocol, u16),
    /// For [`Shape::Services`]: ranges of one protocol never touch or overlap.
    Service(Protocol, PortRange),
    /// For [`Shape::Links`].
    Link(LinkName),
}

impl Key {
    /// The pod address a key speaks of, where it speaks of one.
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) | Self::Pair(address, _) | Self::Endpoint(address, ..) => Some(*address),
            Self::Range(..) | Self::Service(..) | Self::Link(_) => None,
        }
    }
}

/// What a set holds for a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// It is a member.
    Member,
    /// It is a member until then. Only for [`Shape::Banned`] and [`Shape::Learned`].
    Until(Deadline),
    /// For [`Shape::Verdicts`].
    Verdict(Verdict),
}

/// When an element ends: milliseconds since the beginning of 1970, UTC. The one who writes rules takes it out on time;
/// the kernel does so by itself [`SLACK`] later, should nobody have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(pub u64);

/// How much longer than its [`Deadline`] the kernel keeps an element: who takes it out must find it still there.
pub const SLACK: Duration = Duration::from_secs(5);

impl Deadline {
    /// How long the kernel shall keep an element that it is given at `now`; never nothing, which would mean for ever.
    pub fn keep_for(self, now: Self) -> Duration {
        let left = Duration::from_millis(self.0.saturating_sub(now.0));
        let late = Duration::from_millis(now.0.saturating_sub(self.0));
        left.saturating_add(SLACK).saturating_sub(late).max(Duration::from_millis(1))
    }
}

/// A set with its elements. Plain sets keep no values: half the memory at 100k elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What is fixed.
    pub spec: SetSpec,
    elements: Elements,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Elements {
    Members(BTreeSet<Key>),
    Verdicts(BTreeMap<Key, Verdict>),
    Ends(BTreeMap<Key, Option<Deadline>>),
}

impl Set {
    /// An empty set.
    pub const fn new(spec: SetSpec) -> Self {
        let elements = match spec.shape {
            Shape::Verdicts(_) => Elements::Verdicts(BTreeMap::new()),
            Shape::Banned(_) | Shape::Learned(_) => Elements::Ends(BTreeMap::new()),
            Shape::Addresses(_)
            | Shape::Ranges(_)
            | Shape::Pairs(_)
            | Shape::Endpoints(_)
            | Shape::Services
            | Shape::Links
            | Shape::BannedRanges(_)
            | Shape::Meter(_) => Elements::Members(BTreeSet::new()),
        };
        Self { spec, elements }
    }

    /// What the set holds for the very key (no interval arithmetic; that is [`Self::find`]).
    pub fn get(&self, key: &Key) -> Option<Value> {
        match &self.elements {
            Elements::Members(members) => members.contains(key).then_some(Value::Member),
            Elements::Verdicts(verdicts) => verdicts.get(key).cloned().map(Value::Verdict),
            Elements::Ends(ends) => ends.get(key).copied().map(Value::ending),
        }
    }

    /// What the set holds for one point: an address is looked for among the ranges, a port among the services.
    /// A meter holds nothing that we know of.
    pub fn find(&self, point: &Key) -> Option<Value> {
        match (self.spec.shape, point) {
            (Shape::Ranges(_) | Shape::BannedRanges(_), Key::Address(address)) => {
                self.covers_address(*address).then_some(Value::Member)
            }
            (Shape::Services, Key::Service(protocol, port)) => {
                self.covers_service(*protocol, port.first()).then_some(Value::Member)
            }
            (Shape::Meter(_), _) => None,
            (_, exact) => self.get(exact),
        }
    }

    /// The verdict a map holds for the key.
    pub fn verdict(&self, key: &Key) -> Option<&Verdict> {
        match &self.elements {
            Elements::Members(_) | Elements::Ends(_) => None,
            Elements::Verdicts(verdicts) => verdicts.get(key),
        }
    }

    /// The interval that holds the address.
    pub fn covers_address(&self, address: IpAddr) -> bool {
        let Elements::Members(members) = &self.elements else { return false };
        let ceiling = match address {
            IpAddr::V4(_) => Key::Range(address, IpAddr::V4(std::net::Ipv4Addr::BROADCAST)),
            IpAddr::V6(_) => Key::Range(address, IpAddr::V6(std::net::Ipv6Addr::from(u128::MAX))),
        };
        matches!(members.range(..=ceiling).next_back(), Some(Key::Range(first, last))
            if Family::of(first) == Family::of(&address) && *first <= address && address <= *last)
    }

    /// Does some port range of the protocol hold the port?
    pub fn covers_service(&self, protocol: Protocol, port: u16) -> bool {
        let Elements::Members(members) = &self.elements else { return false };
        let Some(ceiling) = PortRange::new(port, u16::MAX) else { return false };
        matches!(members.range(..=Key::Service(protocol, ceiling)).next_back(), Some(Key::Service(owner, range))
            if *owner == protocol && range.contains(port))
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.elements {
            Elements::Members(members) => members.len(),
            Elements::Verdicts(verdicts) => verdicts.len(),
            Elements::Ends(ends) => ends.len(),
        }
    }

    /// True when it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every key with its value, in order.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (&Key, Value)> + '_> {
        match &self.elements {
            Elements::Members(members) => Box::new(members.iter().map(|key| (key, Value::Member))),
            Elements::Verdicts(verdicts) => {
                Box::new(verdicts.iter().map(|(key, verdict)| (key, Value::Verdict(verdict.clone()))))
            }
            Elements::Ends(ends) => Box::new(ends.iter().map(|(key, end)| (key, Value::ending(*end)))),
        }
    }

    /// Puts a value; answers what was there. A value of the wrong kind for the shape is refused as `Err`.
    pub fn insert(&mut self, key: Key, value: Value) -> Result<Option<Value>, WrongKind> {
        if matches!(self.spec.shape, Shape::Meter(_)) {
            return Err(WrongKind);
        }
        match (&mut self.elements, value) {
            (Elements::Members(members), Value::Member) => {
                Ok((!members.insert(key)).then_some(Value::Member))
            }
            (Elements::Verdicts(verdicts), Value::Verdict(verdict)) => {
                Ok(verdicts.insert(key, verdict).map(Value::Verdict))
            }
            (Elements::Ends(ends), Value::Member) => Ok(ends.insert(key, None).map(Value::ending)),
            (Elements::Ends(ends), Value::Until(end)) => Ok(ends.insert(key, Some(end)).map(Value::ending)),
            (Elements::Members(_), Value::Verdict(_) | Value::Until(_))
            | (Elements::Verdicts(_), Value::Member | Value::Until(_))
            | (Elements::Ends(_), Value::Verdict(_)) => Err(WrongKind),
        }
    }

    /// Takes a key out; answers what was there.
    pub fn remove(&mut self, key: &Key) -> Option<Value> {
        match &mut self.elements {
            Elements::Members(members) => members.remove(key).then_some(Value::Member),
            Elements::Verdicts(verdicts) => verdicts.remove(key).map(Value::Verdict),
            Elements::Ends(ends) => ends.remove(key).map(Value::ending),
        }
    }

    /// Chains that elements lead into.
    pub fn targets(&self) -> impl Iterator<Item = &ChainName> {
        let verdicts = match &self.elements {
            Elements::Members(_) | Elements::Ends(_) => None,
            Elements::Verdicts(verdicts) => Some(verdicts.values().filter_map(Verdict::target)),
        };
        verdicts.into_iter().flatten()
    }
}

impl Value {
    fn ending(end: Option<Deadline>) -> Self {
        end.map_or(Self::Member, Self::Until)
    }
}

/// A verdict put into a plain set, a plain key into a verdict map, or anything into a meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value does not fit the shape of the set")]
pub struct WrongKind;

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(shape: Shape, keys: &[Key]) -> Set {
        let mut set = Set::new(SetSpec { shape, size: None });
        keys.iter().for_each(|key| assert_eq!(set.insert(key.clone(), Value::Member), Ok(None)));
        set
    }

    #[test]
    fn an_address_is_found_in_the_range_that_holds_it_and_in_no_other() {
        let at = |last: u8| IpAddr::from([192, 0, 2, last]);
        let range = |first, last| Key::Range(at(first), at(last));
        let set = holding(Shape::Ranges(Family::V4), &[range(10, 19), range(30, 30)]);
        let found = |last| set.find(&Key::Address(at(last))).is_some();
        let inside: Vec<u8> = (0..=255).filter(|last| found(*last)).collect();
        assert_eq!(inside, [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 30]);
        assert_eq!(set.find(&Key::Address("::c000:20a".parse().unwrap())), None);
    }

    #[test]
    fn a_port_is_found_among_the_ranges_of_its_own_protocol() {
        let ports = |first, last| PortRange::new(first, last).unwrap();
        let keys =
            [Key::Service(Protocol::TCP, ports(80, 90)), Key::Service(Protocol::UDP, ports(0, u16::MAX))];
        let set = holding(Shape::Services, &keys);
        let found = |protocol, port| set.find(&Key::Service(protocol, PortRange::single(port))).is_some();
        let asked = [(Protocol::TCP, 79), (Protocol::TCP, 80), (Protocol::TCP, 90), (Protocol::TCP, 91)];
        assert_eq!(asked.map(|(protocol, port)| found(protocol, port)), [false, true, true, false]);
        assert!(found(Protocol::UDP, 65_535) && !found(Protocol::SCTP, 80));
    }

    #[test]
    fn only_verdict_maps_hold_verdicts_and_meters_hold_nothing() {
        let key = Key::Address([10, 0, 0, 1].into());
        let of = |shape, value| Set::new(SetSpec { shape, size: None }).insert(key.clone(), value);
        let drop = || Value::Verdict(Verdict::Drop);
        assert_eq!(of(Shape::Addresses(Family::V4), drop()), Err(WrongKind));
        assert_eq!(of(Shape::Verdicts(Family::V4), Value::Member), Err(WrongKind));
        assert_eq!(of(Shape::Meter(Family::V4), Value::Member), Err(WrongKind));
        assert_eq!(of(Shape::Verdicts(Family::V4), drop()), Ok(None));
    }

    #[test]
    fn the_kernel_keeps_an_element_a_little_longer_than_it_lasts_and_never_for_ever() {
        let end = Deadline(100_000);
        let kept = [0, 99_999, 104_000, 105_000, u64::MAX].map(|now| end.keep_for(Deadline(now)).as_millis());
        assert_eq!(kept, [105_000, 5_001, 1_000, 1, 1]);
    }

    #[test]
    fn a_name_says_what_growth_means() {
        let growth = |name| Growth::of(&SetName::new(name).unwrap());
        let names = ["c_local4", "n_meter4", "s4_c_", "in4", "c"];
        let meanings = [Growth::Closes, Growth::Neutral, Growth::Opens, Growth::Opens, Growth::Opens];
        assert_eq!(names.map(growth), meanings);
    }
}

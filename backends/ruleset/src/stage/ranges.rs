//! Interval sets that close: how one gets from old to new through their union.
//!
//! A kernel refuses an interval that overlaps one that stands (EEXIST), so what comes cannot simply be added
//! while what goes is still there. Overlapping intervals have an interval as their union: it bridges the two.
use std::net::IpAddr;

use crate::matching::{PortRange, Protocol};
use crate::set::Key;

/// Edits of one closing set: down to the union of old and new, up to new.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bridge {
    pub(super) down_out: Vec<Key>,
    pub(super) down_in: Vec<Key>,
    pub(super) up_out: Vec<Key>,
    pub(super) up_in: Vec<Key>,
}

/// Plans the edits. Keys that are no intervals, and intervals that overlap none of the others, come on the way
/// down and go on the way up as they are.
pub(super) fn bridge(goes: &[Key], comes: &[Key]) -> Bridge {
    let mut bridge = Bridge::default();
    let mut spans = Vec::new();
    for (keys, coming) in [(goes, Coming::No), (comes, Coming::Yes)] {
        for key in keys {
            match Span::of(key) {
                Some(span) => spans.push((span, coming, key)),
                None => bridge.plain(key, coming),
            }
        }
    }
    spans.sort_by_key(|(span, coming, _)| (*span, *coming));
    let mut group: Vec<(Coming, &Key)> = Vec::new();
    let mut hull: Option<Span> = None;
    for (span, coming, key) in spans {
        match hull.and_then(|hull| hull.joined(span)) {
            Some(wider) => hull = Some(wider),
            None => {
                bridge.cross(hull.take(), &group);
                group.clear();
                hull = Some(span);
            }
        }
        group.push((coming, key));
    }
    bridge.cross(hull, &group);
    bridge
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Coming {
    No,
    Yes,
}

impl Bridge {
    fn plain(&mut self, key: &Key, coming: Coming) {
        match coming {
            Coming::No => self.up_out.push(key.clone()),
            Coming::Yes => self.down_in.push(key.clone()),
        }
    }

    /// One group of intervals that overlap each other, and the interval that is their union.
    fn cross(&mut self, hull: Option<Span>, group: &[(Coming, &Key)]) {
        let (Some(hull), [_, _, ..]) = (hull, group) else {
            group.iter().for_each(|(coming, key)| self.plain(key, *coming));
            return;
        };
        let hull = hull.key();
        let stands = |coming| group.iter().any(|(which, key)| *which == coming && **key == hull);
        for (coming, key) in group {
            match coming {
                Coming::No if **key != hull => self.down_out.push((*key).clone()),
                Coming::Yes if **key != hull => self.up_in.push((*key).clone()),
                Coming::No | Coming::Yes => {}
            }
        }
        if !stands(Coming::No) {
            self.down_in.push(hull.clone());
        }
        if !stands(Coming::Yes) {
            self.up_out.push(hull);
        }
    }
}

/// An interval as numbers: what it is of, first, last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    of: Of,
    first: u128,
    last: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    V4,
    V6,
    Ports(Protocol),
}

impl Span {
    fn of(key: &Key) -> Option<Self> {
        match key {
            Key::Range(IpAddr::V4(first), IpAddr::V4(last)) => Some(Self {
                of: Of::V4,
                first: u128::from(first.to_bits()),
                last: u128::from(last.to_bits()),
            }),
            Key::Range(IpAddr::V6(first), IpAddr::V6(last)) => {
                Some(Self { of: Of::V6, first: first.to_bits(), last: last.to_bits() })
            }
            Key::Service(protocol, ports) => Some(Self {
                of: Of::Ports(*protocol),
                first: u128::from(ports.first()),
                last: u128::from(ports.last()),
            }),
            Key::Range(..) | Key::Address(_) | Key::Pair(..) | Key::Endpoint(..) | Key::Link(_) => None,
        }
    }

    /// Both in one, if they overlap; `other` does not start before `self`.
    fn joined(self, other: Self) -> Option<Self> {
        let overlaps = self.of == other.of && other.first <= self.last;
        overlaps.then(|| Self { last: self.last.max(other.last), ..self })
    }

    /// Back to a key. The numbers came from keys of this kind, so none is cut.
    fn key(self) -> Key {
        match self.of {
            Of::V4 => Key::Range(IpAddr::V4(low32(self.first)), IpAddr::V4(low32(self.last))),
            Of::V6 => Key::Range(IpAddr::V6(self.first.into()), IpAddr::V6(self.last.into())),
            Of::Ports(protocol) => {
                let ports = PortRange::new(low16(self.first), low16(self.last));
                Key::Service(protocol, ports.unwrap_or(PortRange::ALL))
            }
        }
    }
}

fn low32(number: u128) -> std::net::Ipv4Addr {
    u32::try_from(number).unwrap_or(u32::MAX).into()
}

fn low16(number: u128) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u8, last: u8) -> Key {
        Key::Range(IpAddr::from([10, 0, 0, first]), IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn ranges_that_overlap_nothing_come_first_and_go_last() {
        let planned = bridge(&[range(0, 9)], &[range(10, 19)]);
        let expected =
            Bridge { down_in: vec![range(10, 19)], up_out: vec![range(0, 9)], ..Bridge::default() };
        assert_eq!(planned, expected);
    }

    #[test]
    fn a_range_that_widens_is_swapped_at_once_and_one_that_narrows_at_the_end() {
        let wider = Bridge { down_out: vec![range(0, 9)], down_in: vec![range(0, 99)], ..Bridge::default() };
        assert_eq!(bridge(&[range(0, 9)], &[range(0, 99)]), wider);
        let narrower = Bridge { up_out: vec![range(0, 99)], up_in: vec![range(0, 9)], ..Bridge::default() };
        assert_eq!(bridge(&[range(0, 99)], &[range(0, 9)]), narrower);
    }

    #[test]
    fn a_chain_of_overlaps_is_crossed_over_its_union() {
        let expected = Bridge {
            down_out: vec![range(0, 20), range(30, 50)],
            down_in: vec![range(0, 60)],
            up_out: vec![range(0, 60)],
            up_in: vec![range(10, 35), range(45, 60)],
        };
        assert_eq!(bridge(&[range(0, 20), range(30, 50)], &[range(10, 35), range(45, 60)]), expected);
    }

    #[test]
    fn equal_numbers_of_two_families_or_protocols_do_not_overlap() {
        let six = Key::Range("::a00:0".parse().unwrap(), "::a00:9".parse().unwrap());
        let expected = Bridge { down_in: vec![six.clone()], up_out: vec![range(0, 9)], ..Bridge::default() };
        assert_eq!(bridge(&[range(0, 9)], &[six]), expected);
        let web = |protocol| Key::Service(protocol, PortRange::single(80));
        let (tcp, udp) = (web(Protocol::TCP), web(Protocol::UDP));
        let expected = Bridge { down_in: vec![udp.clone()], up_out: vec![tcp.clone()], ..Bridge::default() };
        assert_eq!(bridge(&[tcp], &[udp]), expected);
    }
}

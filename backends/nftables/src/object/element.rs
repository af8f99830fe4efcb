//! Elements of sets and maps (`enum nft_set_elem_attributes`), many to a message.
//!
//! The nest that holds them has a 16-bit length, so a long list takes several messages; they still go out in one
//! batch. An interval of a plain interval set is two elements, its end exclusive and flagged; an interval that
//! reaches the last address has no end element.
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::net::IpAddr;
use std::time::Duration;

use podwall_netlink::{Attribute, Attributes, Malformed, Writer};
use podwall_ruleset::{Deadline, Family, Key, Set, SetName, SetSpec, Shape, Value, Verdict};

use super::TABLE;
use super::key::{self, KeyBytes, Stored};
use super::verdict;
use crate::data::Unread;
use crate::expr::{Counter, Expr};
use crate::uapi::{
    NFT_SET_ELEM_INTERVAL_END, NFTA_DATA_VALUE, NFTA_LIST_ELEM, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_EXPR,
    NFTA_SET_ELEM_FLAGS, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_KEY_END, NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_TIMEOUT, NFTA_SET_ELEM_USERDATA,
};

/// Bytes of elements after which a new message begins; the longest element takes about 120.
const FULL: usize = 65_000;

/// Type of the note on an element that says when it ends. nft(8) passes over notes of types it does not know
/// (`set_elem_parse_udata_cb`).
const DEADLINE: u8 = 0x70;

/// What an element carries beside its key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Held<'a> {
    Nothing,
    Verdict(&'a Verdict),
    /// The moment, and how long that is from now.
    Until(Deadline, Duration),
}

impl<'a> Held<'a> {
    pub(crate) fn of(value: &'a Value, now: Deadline) -> Self {
        match value {
            Value::Member => Self::Nothing,
            Value::Verdict(verdict) => Self::Verdict(verdict),
            Value::Until(end) => Self::Until(*end, end.keep_for(now)),
        }
    }
}

/// Writes as many elements as one message takes; what is left is in the iterator. Answers how many were taken.
pub(crate) fn write<'a>(
    set: &SetName,
    elements: &mut Peekable<impl Iterator<Item = (&'a Key, Held<'a>)>>,
    writer: &mut Writer,
) -> usize {
    let mut taken = 0;
    write_set(set, writer);
    writer.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
        let end = list.bytes().len() + FULL;
        while list.bytes().len() < end
            && let Some((key, held)) = elements.next()
        {
            write_stored(&key::store(key), held, list);
            taken += 1;
        }
    });
    taken
}

/// What names the set whose elements are meant.
pub(crate) fn write_set(set: &SetName, writer: &mut Writer) {
    writer.put_text(NFTA_SET_ELEM_LIST_TABLE, TABLE);
    writer.put_text(NFTA_SET_ELEM_LIST_SET, set.as_str());
}

/// How many elements of the kernel a key takes.
pub(crate) fn stored_as(key: &Key) -> usize {
    match key::store(key) {
        Stored::Single(_) | Stored::Box(..) | Stored::Interval(_, None) => 1,
        Stored::Interval(_, Some(_)) => 2,
    }
}

fn write_stored(stored: &Stored, held: Held<'_>, list: &mut Writer) {
    match stored {
        Stored::Single(key) => list.nest(NFTA_LIST_ELEM, |element| {
            write_key(NFTA_SET_ELEM_KEY, key, element);
            match held {
                Held::Nothing => {}
                Held::Verdict(verdict) => verdict::write(verdict, NFTA_SET_ELEM_DATA, element),
                Held::Until(end, left) => {
                    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                    element.put_be64(NFTA_SET_ELEM_TIMEOUT, left);
                    let [a, b, c, d, e, f, g, h] = end.0.to_be_bytes();
                    element.put(NFTA_SET_ELEM_USERDATA, &[DEADLINE, 8, a, b, c, d, e, f, g, h]);
                }
            }
        }),
        Stored::Box(first, last) => list.nest(NFTA_LIST_ELEM, |element| {
            write_key(NFTA_SET_ELEM_KEY, first, element);
            write_key(NFTA_SET_ELEM_KEY_END, last, element);
        }),
        Stored::Interval(first, end) => {
            list.nest(NFTA_LIST_ELEM, |element| write_key(NFTA_SET_ELEM_KEY, first, element));
            if let Some(end) = end {
                list.nest(NFTA_LIST_ELEM, |element| {
                    element.put_be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
                    write_key(NFTA_SET_ELEM_KEY, end, element);
                });
            }
        }
    }
}

fn write_key(kind: u16, key: &KeyBytes, writer: &mut Writer) {
    writer.nest(kind, |data| data.put(NFTA_DATA_VALUE, key.bytes()));
}

/// Puts the elements of a dump together to a set again.
#[derive(Debug)]
pub(crate) struct Reader {
    set: Set,
    edges: Vec<(IpAddr, Edge)>,
    hits: Vec<(Key, Counter)>,
    foreign: Option<Unread>,
}

/// One end of an interval. Where one interval ends, the next may start: the end comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    End,
    Start,
}

impl Reader {
    pub(crate) const fn new(spec: SetSpec) -> Self {
        Self { set: Set::new(spec), edges: Vec::new(), hits: Vec::new(), foreign: None }
    }

    /// Reads the attributes of one message.
    pub(crate) fn read(&mut self, attributes: Attributes<'_>) -> Result<(), Malformed> {
        for attribute in attributes {
            let attribute = attribute?;
            if attribute.kind == NFTA_SET_ELEM_LIST_ELEMENTS {
                for element in attribute.nested() {
                    self.element(&element?)?;
                }
            }
        }
        Ok(())
    }

    /// The set, and the first thing in it that cannot have come from us.
    pub(crate) fn finish(mut self) -> (Set, Option<Unread>) {
        if let Shape::Ranges(family) | Shape::BannedRanges(family) = self.set.spec.shape {
            self.edges.sort_unstable();
            for key in intervals(&self.edges, family) {
                let _kind_is_right = self.set.insert(key, Value::Member);
            }
        }
        (self.set, self.foreign)
    }

    /// The elements that packets met, with how many.
    pub(crate) fn hits(mut self) -> Vec<(Key, Counter)> {
        let Shape::BannedRanges(family) = self.set.spec.shape else { return self.hits };
        self.edges.sort_unstable();
        let mut by_first: BTreeMap<Key, Counter> = self.hits.into_iter().collect();
        let ranges = intervals(&self.edges, family).into_iter();
        let counted = ranges.filter_map(|range| match &range {
            Key::Range(first, _) => by_first.remove(&Key::Address(*first)).map(|counter| (range, counter)),
            _ => None,
        });
        counted.collect()
    }

    fn element(&mut self, element: &Attribute<'_>) -> Result<(), Malformed> {
        match Element::read(element).and_then(|element| self.note(&element)) {
            Ok(()) => Ok(()),
            Err(Unread::Malformed(malformed)) => Err(malformed),
            Err(foreign @ Unread::Foreign(_)) => {
                self.foreign.get_or_insert(foreign);
                Ok(())
            }
        }
    }

    fn note(&mut self, element: &Element<'_>) -> Result<(), Unread> {
        let shape = self.set.spec.shape;
        let key = key::read(shape, element.key, element.end)?;
        if element.counter.packets > 0 && element.edge == Edge::Start {
            self.hits.push((key.clone(), element.counter));
        }
        if let (Shape::Ranges(_) | Shape::BannedRanges(_), Key::Address(address)) = (shape, &key) {
            self.edges.push((*address, element.edge));
            return Ok(());
        }
        let value = match &element.data {
            None => element.end_of_life.filter(|_| element.expires).map_or(Value::Member, Value::Until),
            // Something must stand for the key, so that a repair takes it out first. We never map to accept.
            Some(data) => Value::Verdict(verdict::read(data).unwrap_or_else(|reason| {
                self.foreign.get_or_insert(reason);
                Verdict::Accept
            })),
        };
        self.set.insert(key, value).map_err(Unread::foreign)?;
        let known = matches!(shape, Shape::Banned(_) | Shape::Learned(_)) && element.end_of_life.is_some();
        if element.expires && !known {
            return Err(Unread::foreign("an element that expires"));
        }
        Ok(())
    }
}

/// An element of the kernel, borrowed.
struct Element<'a> {
    key: &'a [u8],
    end: Option<&'a [u8]>,
    edge: Edge,
    data: Option<Attribute<'a>>,
    expires: bool,
    end_of_life: Option<Deadline>,
    counter: Counter,
}

impl<'a> Element<'a> {
    fn read(element: &Attribute<'a>) -> Result<Self, Unread> {
        let (mut key, mut end, mut flags, mut data, mut expires) = (None, None, 0, None, false);
        let (mut end_of_life, mut counter) = (None, Counter::default());
        for attribute in element.nested() {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_SET_ELEM_KEY => key = Some(value(&attribute)?),
                NFTA_SET_ELEM_KEY_END => end = Some(value(&attribute)?),
                NFTA_SET_ELEM_FLAGS => flags = attribute.be32()?,
                NFTA_SET_ELEM_DATA => data = Some(attribute),
                NFTA_SET_ELEM_TIMEOUT => expires = attribute.be64()? > 0,
                NFTA_SET_ELEM_USERDATA => end_of_life = deadline(attribute.value),
                NFTA_SET_ELEM_EXPR => {
                    if let Expr::Counter(counted) = Expr::read(&attribute)? {
                        counter = counted;
                    }
                }
                _ => {}
            }
        }
        let edge = match flags {
            0 => Edge::Start,
            NFT_SET_ELEM_INTERVAL_END => Edge::End,
            other => return Err(Unread::Foreign(format!("an element with flags {other:#x}"))),
        };
        Ok(Self { key: key.ok_or(Malformed)?, end, edge, data, expires, end_of_life, counter })
    }
}

fn deadline(note: &[u8]) -> Option<Deadline> {
    let [DEADLINE, 8, moment @ ..] = note else { return None };
    moment.try_into().ok().map(u64::from_be_bytes).map(Deadline)
}

fn value<'a>(data: &Attribute<'a>) -> Result<&'a [u8], Malformed> {
    let value = data.nested().next().ok_or(Malformed)??;
    if value.kind == NFTA_DATA_VALUE { Ok(value.value) } else { Err(Malformed) }
}

/// Edges in order of address. An end without a start says nothing (nft(8) puts one at the lowest address), a
/// start without an end reaches to the next start or the last address.
fn intervals(edges: &[(IpAddr, Edge)], family: Family) -> Vec<Key> {
    let (mut keys, mut open) = (Vec::new(), None);
    for (address, edge) in edges {
        if let Some((first, last)) = open.take().zip(key::predecessor(*address)) {
            keys.push(Key::Range(first, last));
        }
        open = (*edge == Edge::Start).then_some(*address);
    }
    if let Some(first) = open {
        keys.push(Key::Range(first, key::highest(family)));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn keys(set: &Set) -> Vec<Key> {
        set.iter().map(|(key, _)| key.clone()).collect()
    }

    fn read_back(shape: Shape, written: &[Key]) -> Vec<Key> {
        let mut reader = Reader::new(SetSpec { shape, size: None });
        let mut elements = written.iter().map(|key| (key, Held::Nothing)).peekable();
        while elements.peek().is_some() {
            let mut writer = Writer::default();
            write(&SetName::new("s").unwrap(), &mut elements, &mut writer);
            assert!(!writer.is_spoilt());
            reader.read(Attributes::new(writer.bytes())).unwrap();
        }
        let (set, foreign) = reader.finish();
        assert_eq!(foreign, None);
        keys(&set)
    }

    #[test]
    fn an_interval_is_a_start_and_a_flagged_exclusive_end() {
        let key = Key::Range(ip("10.0.0.0"), ip("10.0.0.255"));
        #[rustfmt::skip]
        let bytes = [
            12, 0, 1, 0, b'p', b'o', b'd', b'w', b'a', b'l', b'l', 0, 6, 0, 2, 0, b'r', 0, 0, 0,
            44, 0, 3, 0x80,
              16, 0, 1, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, 0,
              24, 0, 1, 0x80, 8, 0, 3, 0, 0, 0, 0, 1, 12, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 1, 0,
        ];
        let name = SetName::new("r").unwrap();
        golden::check(
            |writer| {
                write(&name, &mut [(&key, Held::Nothing)].into_iter().peekable(), writer);
            },
            &bytes,
        );
    }

    #[test]
    fn a_map_element_carries_its_verdict() {
        let key = Key::Address(ip("10.0.0.2"));
        #[rustfmt::skip]
        let bytes = [
            12, 0, 1, 0, b'p', b'o', b'd', b'w', b'a', b'l', b'l', 0, 6, 0, 2, 0, b'm', 0, 0, 0,
            36, 0, 3, 0x80, 32, 0, 1, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, 2,
              16, 0, 2, 0x80, 12, 0, 2, 0x80, 8, 0, 1, 0, 255, 255, 255, 251,
        ];
        let name = SetName::new("m").unwrap();
        let attributes = golden::check(
            |writer| {
                write(&name, &mut [(&key, Held::Verdict(&Verdict::Return))].into_iter().peekable(), writer);
            },
            &bytes,
        );
        let mut reader = Reader::new(SetSpec { shape: Shape::Verdicts(Family::V4), size: None });
        reader.read(attributes).unwrap();
        assert_eq!(reader.finish().0.verdict(&key), Some(&Verdict::Return));
    }

    #[test]
    fn long_lists_take_several_messages_and_lose_nothing() {
        let written: Vec<_> =
            (0..20_000u32).map(|n| Key::Address(std::net::Ipv4Addr::from(0x0a00_0000 + n).into())).collect();
        assert_eq!(read_back(Shape::Addresses(Family::V4), &written), written);
    }

    #[test]
    fn intervals_read_back_also_at_both_ends_of_the_address_space() {
        let written = [
            Key::Range(ip("0.0.0.0"), ip("0.255.255.255")),
            Key::Range(ip("10.0.0.1"), ip("10.0.0.1")),
            Key::Range(ip("224.0.0.0"), ip("255.255.255.255")),
        ];
        assert_eq!(read_back(Shape::Ranges(Family::V4), &written), written);
        let written = [Key::Range(ip("::"), ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))];
        assert_eq!(read_back(Shape::Ranges(Family::V6), &written), written);
    }

    #[test]
    fn touching_intervals_of_others_stay_apart_and_stray_ends_say_nothing() {
        let edges = [
            (ip("0.0.0.0"), Edge::End),
            (ip("10.0.0.0"), Edge::Start),
            (ip("10.1.0.0"), Edge::End),
            (ip("10.1.0.0"), Edge::Start),
            (ip("10.2.0.0"), Edge::Start),
        ];
        assert_eq!(
            intervals(&edges, Family::V4),
            [
                Key::Range(ip("10.0.0.0"), ip("10.0.255.255")),
                Key::Range(ip("10.1.0.0"), ip("10.1.255.255")),
                Key::Range(ip("10.2.0.0"), ip("255.255.255.255")),
            ]
        );
    }

    #[test]
    fn a_catch_all_element_is_foreign() {
        let mut reader = Reader::new(SetSpec { shape: Shape::Addresses(Family::V4), size: None });
        let bytes = [16, 0, 3, 0x80, 12, 0, 1, 0x80, 8, 0, 3, 0, 0, 0, 0, 2];
        reader.read(Attributes::new(&bytes)).unwrap();
        assert!(reader.finish().1.is_some());
    }
}

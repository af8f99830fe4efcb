//! Keys of elements, as registers would hold them: every field of a concatenation padded to four bytes.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwall_ruleset::{Family, Key, LinkName, PortRange, Protocol, Shape};

use crate::data::Unread;

/// The longest key: two IPv6 addresses.
const LONGEST: usize = 32;

/// The bytes of one end of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyBytes {
    bytes: [u8; LONGEST],
    length: usize,
}

impl KeyBytes {
    const fn new() -> Self {
        Self { bytes: [0; LONGEST], length: 0 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn with(mut self, field: &[u8]) -> Self {
        if let Some(slot) = self.bytes.get_mut(self.length..self.length + field.len()) {
            slot.copy_from_slice(field);
            self.length = (self.length + field.len()).next_multiple_of(4);
        }
        self
    }

    fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.with(&address.octets()),
            IpAddr::V6(address) => self.with(&address.octets()),
        }
    }

    fn service(self, protocol: Protocol, port: u16) -> Self {
        self.with(&[protocol.0]).with(&port.to_be_bytes())
    }
}

/// What the kernel stores for a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// One element.
    Single(KeyBytes),
    /// Two elements (rbtree): the first address, and the first one past the end unless the address space ends
    /// first.
    Interval(KeyBytes, Option<KeyBytes>),
    /// One element with both ends inclusive (pipapo).
    Box(KeyBytes, KeyBytes),
}

pub(crate) fn store(key: &Key) -> Stored {
    let empty = KeyBytes::new();
    match key {
        Key::Address(address) => Stored::Single(empty.address(*address)),
        Key::Pair(source, destination) => Stored::Single(empty.address(*source).address(*destination)),
        Key::Endpoint(address, protocol, port) => {
            Stored::Single(empty.address(*address).service(*protocol, *port))
        }
        Key::Link(link) => Stored::Single(empty.with(&link_bytes(link))),
        Key::Range(first, last) => {
            Stored::Interval(empty.address(*first), successor(*last).map(|end| empty.address(end)))
        }
        Key::Service(protocol, ports) => {
            let end = |port| empty.service(*protocol, port);
            Stored::Box(end(ports.first()), end(ports.last()))
        }
    }
}

/// An interface name as `meta iifname` loads it.
pub(crate) fn link_bytes(link: &LinkName) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (slot, byte) in bytes.iter_mut().zip(link.as_str().bytes()) {
        *slot = byte;
    }
    bytes
}

/// The other way round.
pub(crate) fn read_link(bytes: &[u8; 16]) -> Result<LinkName, Unread> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let name = bytes.get(..end).and_then(|name| std::str::from_utf8(name).ok());
    LinkName::new(name.ok_or_else(|| Unread::foreign("an interface name that is no text"))?)
        .map_err(Unread::foreign)
}

/// Bytes of an address.
pub(crate) fn read_address(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        Family::V4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes))),
        Family::V6 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))),
    }
}

/// Bytes of an address of a family.
pub(crate) const fn width(family: Family) -> usize {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

/// The next address; `None` after the last.
pub(crate) fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|next| Ipv4Addr::from(next).into()),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|next| Ipv6Addr::from(next).into()),
    }
}

/// The address before; `None` before the first.
pub(crate) fn predecessor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_sub(1).map(|last| Ipv4Addr::from(last).into()),
        IpAddr::V6(address) => u128::from(address).checked_sub(1).map(|last| Ipv6Addr::from(last).into()),
    }
}

/// The last address of a family.
pub(crate) const fn highest(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::BROADCAST),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    }
}

/// A key stored as one element; `end` is there for pipapo only.
pub(crate) fn read(shape: Shape, key: &[u8], end: Option<&[u8]>) -> Result<Key, Unread> {
    let address =
        |family, at: usize| key.get(at..at + width(family)).and_then(|bytes| read_address(family, bytes));
    let read = match shape {
        Shape::Addresses(family)
        | Shape::Verdicts(family)
        | Shape::Ranges(family)
        | Shape::Banned(family)
        | Shape::BannedRanges(family)
        | Shape::Meter(family) => address(family, 0).map(Key::Address),
        Shape::Pairs(family) | Shape::Learned(family) => address(family, 0)
            .zip(address(family, width(family)))
            .map(|(source, destination)| Key::Pair(source, destination)),
        Shape::Endpoints(family) => address(family, 0)
            .zip(key.get(width(family)..).and_then(read_service))
            .map(|(address, (protocol, port))| Key::Endpoint(address, protocol, port)),
        Shape::Services => read_service(key)
            .zip(end.map_or_else(|| read_service(key), read_service))
            .and_then(|((protocol, first), (same, last))| {
                let ports = PortRange::new(first, last).filter(|_| same == protocol)?;
                Some(Key::Service(protocol, ports))
            }),
        Shape::Links => {
            return read_link(key.try_into().map_err(|_| podwall_netlink::Malformed)?).map(Key::Link);
        }
    };
    read.ok_or_else(|| Unread::Foreign(format!("element {key:02x?} in a set of {shape:?}")))
}

fn read_service(bytes: &[u8]) -> Option<(Protocol, u16)> {
    let [protocol, _, _, _, high, low, _, _] = <[u8; 8]>::try_from(bytes).ok()?;
    Some((Protocol(protocol), u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn fields_of_concatenations_are_padded_to_four_bytes() {
        let Stored::Single(key) = store(&Key::Endpoint(ip("10.0.0.1"), Protocol::TCP, 443)) else { panic!() };
        assert_eq!(key.bytes(), [10, 0, 0, 1, 6, 0, 0, 0, 1, 187, 0, 0]);
    }

    #[test]
    fn an_interval_ends_past_its_last_address() {
        let Stored::Interval(first, end) = store(&Key::Range(ip("10.0.0.0"), ip("10.0.0.255"))) else {
            panic!()
        };
        assert_eq!((first.bytes(), end.unwrap().bytes()), (&[10, 0, 0, 0][..], &[10, 0, 1, 0][..]));
    }

    #[test]
    fn an_interval_up_to_the_last_address_has_no_end() {
        let v4 = store(&Key::Range(ip("240.0.0.0"), ip("255.255.255.255")));
        let v6 = store(&Key::Range(ip("ff00::"), ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")));
        assert!(matches!((v4, v6), (Stored::Interval(_, None), Stored::Interval(_, None))));
    }

    #[test]
    fn single_keys_read_back_as_stored() {
        let (v4, v6) = (Family::V4, Family::V6);
        for (shape, key) in [
            (Shape::Addresses(v4), Key::Address(ip("10.0.0.1"))),
            (Shape::Verdicts(v6), Key::Address(ip("fd00::1"))),
            (Shape::Pairs(v4), Key::Pair(ip("10.0.0.1"), ip("10.0.0.2"))),
            (Shape::Pairs(v6), Key::Pair(ip("fd00::1"), ip("fd00::2"))),
            (Shape::Endpoints(v4), Key::Endpoint(ip("10.0.0.1"), Protocol::UDP, 53)),
            (Shape::Endpoints(v6), Key::Endpoint(ip("fd00::1"), Protocol::SCTP, 65535)),
            (Shape::Links, Key::Link(LinkName::new("cali0123456789a").unwrap())),
        ] {
            let Stored::Single(bytes) = store(&key) else { panic!("{key:?}") };
            assert_eq!(read(shape, bytes.bytes(), None), Ok(key));
        }
    }

    #[test]
    fn a_service_reads_back_from_both_its_ends() {
        let key = Key::Service(Protocol::TCP, PortRange::new(80, 90).unwrap());
        let Stored::Box(first, last) = store(&key) else { panic!() };
        assert_eq!(read(Shape::Services, first.bytes(), Some(last.bytes())), Ok(key));
    }

    #[test]
    fn a_box_over_several_protocols_is_foreign() {
        let (low, high) = ([6, 0, 0, 0, 0, 0, 0, 0], [17, 0, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(read(Shape::Services, &low, Some(&high)), Err(Unread::Foreign(_))));
    }
}

//! Keys of set elements and what the kernel is told of a set, written a second time.
use std::net::IpAddr;

use nftnl::nftnl_sys as sys;
use podwall_ruleset::{Family, Key, SetName, SetSpec, Shape, Value, Verdict};

use crate::c::{Element, Set};

const INTERVAL: u32 = 4;
const MAP: u32 = 8;
const TIMEOUT: u32 = 16;
const EVAL: u32 = 32;
const CONCAT: u32 = 128;
const VERDICT_DATA: u32 = 0xffff_ff00;
const INTERVAL_END: u32 = 1;

/// Type numbers of nft(8): they decide how it prints elements.
const IPV4: u32 = 7;
const IPV6: u32 = 8;
const PROTOCOL: u32 = 12;
const SERVICE: u32 = 13;
const LINK: u32 = 41;

/// An empty set as `nft add set` makes it.
pub(crate) fn declare(name: &SetName, spec: &SetSpec, id: u32) -> Set {
    let (flags, key_type, length) = form(spec.shape);
    let mut set = named(name)
        .u32(sys::NFTNL_SET_FLAGS, flags)
        .u32(sys::NFTNL_SET_KEY_TYPE, key_type)
        .u32(sys::NFTNL_SET_KEY_LEN, length)
        .u32(sys::NFTNL_SET_ID, id);
    if flags & MAP != 0 {
        set = set.u32(sys::NFTNL_SET_DATA_TYPE, VERDICT_DATA).u32(sys::NFTNL_SET_DATA_LEN, 0);
    }
    if let Shape::Meter(_) = spec.shape {
        set = set.u64(sys::NFTNL_SET_TIMEOUT, 60_000);
    }
    if spec.shape == Shape::Services {
        set = set.bytes(sys::NFTNL_SET_DESC_CONCAT, &[1, 2]);
    }
    let meter = matches!(spec.shape, Shape::Meter(_)).then_some(podwall_ruleset::set::METER_SIZE);
    match spec.size.or(meter) {
        Some(size) => set.u32(sys::NFTNL_SET_DESC_SIZE, size),
        None => set,
    }
}

/// A set by its name alone.
pub(crate) fn named(name: &SetName) -> Set {
    Set::new().text(sys::NFTNL_SET_TABLE, "podwall").text(sys::NFTNL_SET_NAME, name.as_str())
}

fn form(shape: Shape) -> (u32, u32, u32) {
    let (address, length) = match shape.family() {
        Some(Family::V6) => (IPV6, 16),
        Some(Family::V4) | None => (IPV4, 4),
    };
    match shape {
        Shape::Addresses(_) => (0, address, length),
        Shape::Ranges(_) => (INTERVAL, address, length),
        Shape::Verdicts(_) => (MAP, address, length),
        Shape::Meter(_) => (TIMEOUT | EVAL, address, length),
        Shape::Pairs(_) => (0, address << 6 | address, 2 * length),
        Shape::Endpoints(_) => (0, address << 12 | PROTOCOL << 6 | SERVICE, length + 8),
        Shape::Services => (INTERVAL | CONCAT, PROTOCOL << 6 | SERVICE, 8),
        Shape::Links => (0, LINK, 16),
    }
}

/// The elements of a key: two for an interval, one for everything else.
pub(crate) fn elements(key: &Key, value: Option<&Value>) -> Vec<Element> {
    let whole = |bytes: &[u8]| Element::new().bytes(sys::NFTNL_SET_ELEM_KEY, bytes);
    match key {
        Key::Address(address) => vec![carrying(whole(&octets(*address)), value)],
        Key::Pair(source, destination) => vec![whole(&[octets(*source), octets(*destination)].concat())],
        Key::Endpoint(address, protocol, port) => {
            vec![whole(&[octets(*address), service(protocol.0, *port)].concat())]
        }
        Key::Link(link) => {
            let mut name = link.as_str().as_bytes().to_vec();
            name.resize(16, 0);
            vec![whole(&name)]
        }
        Key::Service(protocol, ports) => {
            let (first, last) = (service(protocol.0, ports.first()), service(protocol.0, ports.last()));
            vec![whole(&first).bytes(sys::NFTNL_SET_ELEM_KEY_END, &last)]
        }
        Key::Range(first, last) => {
            let end =
                after(*last).map(|end| whole(&octets(end)).u32(sys::NFTNL_SET_ELEM_FLAGS, INTERVAL_END));
            std::iter::once(whole(&octets(*first))).chain(end).collect()
        }
    }
}

fn carrying(element: Element, value: Option<&Value>) -> Element {
    let Some(Value::Verdict(verdict)) = value else { return element };
    let element = element.u32(sys::NFTNL_SET_ELEM_VERDICT, code(verdict));
    match verdict.target() {
        Some(chain) => element.text(sys::NFTNL_SET_ELEM_CHAIN, chain.as_str()),
        None => element,
    }
}

/// `NF_DROP`, `NF_ACCEPT`, `NFT_JUMP`, `NFT_GOTO`, `NFT_RETURN`.
pub(crate) const fn code(verdict: &Verdict) -> u32 {
    (match verdict {
        Verdict::Drop => 0,
        Verdict::Accept => 1,
        Verdict::Jump(_) => -3,
        Verdict::Goto(_) => -4,
        Verdict::Return => -5,
    }) as u32
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn service(protocol: u8, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol, 0, 0, 0, high, low, 0, 0]
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}

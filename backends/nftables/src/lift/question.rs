//! The questions that compare with a constant.
use ipnetwork::IpNetwork;
use podwall_ruleset::{ConnState, Family, Match, PortRange, Protocol, Side};

use super::Lifting;
use crate::data::{Data, Register};
use crate::expr::{Bitwise, Cmp, Ct, CtKey, Expr, Fib, Header, Meta, MetaKey, Order, Payload, Range};
use crate::lower::parts::{
    DESTINATION_PORT, HOP_LIMIT, ICMPV6_TYPE, IPS_DST_NAT, OPENING_MASK, RTN_BROADCAST, RTN_LOCAL,
    SCTP_CHUNK, SCTP_INIT, SOURCE_PORT, SYN, TCP_FLAGS, address_offset, family_number, register_width,
    state_bit,
};
use crate::object::key::{read_address, read_link, width};

const TCP_OPENING: Payload =
    Payload { header: Header::Transport, offset: TCP_FLAGS, length: 1, into: Register::FIRST };

impl Lifting<'_> {
    /// Takes one question off the front, if one is there.
    pub(super) fn question(&mut self) -> Option<Match> {
        let (question, rest) = of_protocol(self.rest, self.family)
            .or_else(|| of_state(self.rest))
            .or_else(|| of_link(self.rest))
            .or_else(|| hop_limit(self.rest).filter(|_| self.family == Some(Family::V6)))
            .or_else(|| self.family.and_then(|family| prefix(self.rest, family)))?;
        self.rest = rest;
        Some(question)
    }
}

/// The family a comparison asks for.
pub(super) fn family(cmp: &Cmp) -> Option<Family> {
    Family::BOTH.into_iter().find(|family| *cmp == Cmp::equal([family_number(*family)]))
}

/// The side whose address a load starts at.
pub(super) fn side(payload: &Payload, family: Family) -> Option<Side> {
    let starts = |side: &Side| payload.offset == address_offset(family, *side);
    [Side::Source, Side::Destination]
        .into_iter()
        .find(|side| payload.header == Header::Network && starts(side))
}

/// A question for types of ICMPv6, without the family that it needs.
pub(super) fn icmpv6(exprs: &[Expr]) -> Option<(Match, &[Expr])> {
    let (Protocol::ICMPV6, [Expr::Payload(ICMPV6_TYPE), rest @ ..]) = protocol(exprs)? else { return None };
    let (first, last, rest) = between::<1>(rest)?;
    let ([first], [last]) = (first, last);
    Some((Match::Icmpv6Type(first, last), rest))
}

fn protocol(exprs: &[Expr]) -> Option<(Protocol, &[Expr])> {
    let [
        Expr::Meta(Meta { key: MetaKey::Protocol, into: Register::FIRST }),
        Expr::Cmp(Cmp { order: Order::Equal, data }),
        rest @ ..,
    ] = exprs
    else {
        return None;
    };
    data.array().map(|[number]: [u8; 1]| (Protocol(number), rest))
}

fn of_protocol(exprs: &[Expr], family: Option<Family>) -> Option<(Match, &[Expr])> {
    if let Some(found) = icmpv6(exprs).filter(|_| family == Some(Family::V6)) {
        return Some(found);
    }
    let (protocol, rest) = protocol(exprs)?;
    match rest {
        [Expr::Payload(DESTINATION_PORT), values @ ..] => {
            let (first, last, rest) = between(values)?;
            let ports = PortRange::new(u16::from_be_bytes(first), u16::from_be_bytes(last))?;
            Some((Match::Port(protocol, ports), rest))
        }
        [Expr::Payload(SOURCE_PORT), values @ ..] => {
            let (first, last, rest) = between(values)?;
            let ports = PortRange::new(u16::from_be_bytes(first), u16::from_be_bytes(last))?;
            Some((Match::SourcePort(protocol, ports), rest))
        }
        [
            Expr::Payload(TCP_OPENING),
            Expr::Bitwise(Bitwise { mask }),
            Expr::Cmp(Cmp { order: Order::Unequal, data }),
            rest @ ..,
        ] if (protocol, mask.bytes(), data.bytes()) == (Protocol::TCP, &[OPENING_MASK], &[SYN]) => {
            Some((Match::TcpNotOpening, rest))
        }
        [Expr::Payload(SCTP_CHUNK), Expr::Cmp(Cmp { order: Order::Unequal, data }), rest @ ..]
            if (protocol, data.bytes()) == (Protocol::SCTP, &[SCTP_INIT]) =>
        {
            Some((Match::SctpNotOpening, rest))
        }
        rest => Some((Match::Protocol(protocol), rest)),
    }
}

/// One value, or all between two: as we write it, or as nft(8) does, with two comparisons.
fn between<const N: usize>(exprs: &[Expr]) -> Option<([u8; N], [u8; N], &[Expr])> {
    let (first, last, rest) = match exprs {
        [Expr::Cmp(Cmp { order: Order::Equal, data }), rest @ ..] => (data, data, rest),
        [Expr::Range(Range { first, last }), rest @ ..] => (first, last, rest),
        [
            Expr::Cmp(Cmp { order: Order::AtLeast, data: first }),
            Expr::Cmp(Cmp { order: Order::AtMost, data: last }),
            rest @ ..,
        ] => (first, last, rest),
        _ => return None,
    };
    Some((first.array()?, last.array()?, rest))
}

fn of_state(exprs: &[Expr]) -> Option<(Match, &[Expr])> {
    let zero = Data::of([0; 4]);
    match exprs {
        [
            Expr::Ct(Ct(CtKey::State)),
            Expr::Bitwise(Bitwise { mask }),
            Expr::Cmp(Cmp { order: Order::Unequal, data }),
            rest @ ..,
        ] if *data == zero => {
            let bits = u32::from_ne_bytes(mask.array()?);
            Some((Match::State(states(bits)?), rest))
        }
        [
            Expr::Ct(Ct(CtKey::Status)),
            Expr::Bitwise(Bitwise { mask }),
            Expr::Cmp(Cmp { order: Order::Unequal, data }),
            rest @ ..,
        ] if (mask.array(), data) == (Some(IPS_DST_NAT.to_ne_bytes()), &zero) => {
            Some((Match::Translated, rest))
        }
        [Expr::Ct(Ct(CtKey::Direction)), Expr::Cmp(cmp), rest @ ..] if *cmp == Cmp::equal([0]) => {
            Some((Match::OriginalDirection, rest))
        }
        [Expr::Fib(Fib::ReversePath), Expr::Cmp(cmp), rest @ ..] if *cmp == Cmp::equal([0; 4]) => {
            Some((Match::ReversePathMissing, rest))
        }
        [Expr::Fib(Fib::DestinationType), Expr::Cmp(cmp), rest @ ..]
            if *cmp == Cmp::equal(RTN_LOCAL.to_ne_bytes()) =>
        {
            Some((Match::Local, rest))
        }
        [Expr::Fib(Fib::DestinationType), Expr::Cmp(cmp), rest @ ..]
            if *cmp == Cmp::equal(RTN_BROADCAST.to_ne_bytes()) =>
        {
            Some((Match::Broadcast, rest))
        }
        _ => None,
    }
}

fn hop_limit(exprs: &[Expr]) -> Option<(Match, &[Expr])> {
    match exprs {
        [Expr::Payload(HOP_LIMIT), Expr::Cmp(Cmp { order: Order::Equal, data }), rest @ ..] => {
            data.array().map(|[limit]: [u8; 1]| (Match::HopLimit(limit), rest))
        }
        _ => None,
    }
}

fn states(bits: u32) -> Option<Vec<ConnState>> {
    let all = [
        ConnState::New,
        ConnState::Established,
        ConnState::Related,
        ConnState::Invalid,
        ConnState::Untracked,
    ];
    let known = all.iter().fold(0, |known, state| known | state_bit(*state));
    let set = |state: &ConnState| bits & state_bit(*state) != 0;
    (bits & !known == 0 && bits != 0).then(|| all.into_iter().filter(set).collect())
}

fn of_link(exprs: &[Expr]) -> Option<(Match, &[Expr])> {
    match exprs {
        [
            Expr::Meta(Meta { key: MetaKey::InputLink, into: Register::FIRST }),
            Expr::Cmp(Cmp { order: Order::Equal, data }),
            rest @ ..,
        ] => Some((Match::InputLink(read_link(&data.array()?).ok()?), rest)),
        _ => None,
    }
}

/// A prefix is a comparison of its whole bytes, or of a masked address.
fn prefix(exprs: &[Expr], family: Family) -> Option<(Match, &[Expr])> {
    let [Expr::Payload(payload), rest @ ..] = exprs else { return None };
    let side = side(payload, family).filter(|_| payload.into == Register::FIRST)?;
    let (network, rest) = match rest {
        [Expr::Cmp(Cmp { order: Order::Equal, data }), rest @ ..] => {
            let length = u8::try_from(data.bytes().len()).ok()?;
            if u32::from(length) != payload.length || length == 0 {
                return None;
            }
            (network(family, data.bytes(), length.checked_mul(8)?)?, rest)
        }
        [Expr::Bitwise(Bitwise { mask }), Expr::Cmp(Cmp { order: Order::Equal, data }), rest @ ..]
            if payload.length == register_width(family) =>
        {
            let mask = read_address(family, mask.bytes())?;
            let length = ipnetwork::ip_mask_to_prefix(mask).ok()?;
            (network(family, data.bytes(), length)?, rest)
        }
        _ => return None,
    };
    Some((Match::Prefix(side, network), rest))
}

/// Bytes that are missing are zero; host bits that are set make it none of ours.
fn network(family: Family, bytes: &[u8], length: u8) -> Option<IpNetwork> {
    let mut whole = [0; 16];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let address = read_address(family, whole.get(..width(family))?)?;
    let network = IpNetwork::new(address, length).ok()?;
    (network.network() == address).then_some(network)
}

//! A neutral rule to the expressions of one or two kernel rules.
//!
//! A kernel rule ends at the first expression that does not hold. A metered log in the middle would therefore
//! swallow the verdict once a source is over its rate; so a rule that both logs and ends in a verdict becomes
//! two: matches, counter, meter and log; then matches and verdict.
//!
//! In the inet family the bytes at an offset mean nothing before the family is known, so everything that looks at
//! addresses first asks for it, once for each run of questions of one family. [`crate::lift`] undoes all of this.
use podwall_ruleset::{
    ConnState, Count, Family, LinkName, Log, Lookup, Match, Outcome, PortRange, Protocol, Rule, Side, Verdict,
};

use crate::data::{Data, Register};
use crate::expr::{
    self, Bitwise, Cmp, Counter, Ct, CtKey, Dynset, Expr, Fib, Header, Immediate, Limit, Meta, MetaKey,
    Order, Payload, Range, Reject, Yields,
};
use crate::object::key::link_bytes;
use crate::object::rule::{Comment, Part};
use crate::uapi::{NFPROTO_IPV4, NFPROTO_IPV6};

/// Byte of the TCP header that holds the flags.
pub(crate) const TCP_FLAGS: u32 = 13;
/// FIN, SYN, RST, ACK.
pub(crate) const OPENING_MASK: u8 = 0x17;
/// SYN.
pub(crate) const SYN: u8 = 0x02;
/// The destination port: the same two bytes in TCP, UDP, SCTP, DCCP and UDP-Lite.
pub(crate) const DESTINATION_PORT: Payload =
    Payload { header: Header::Transport, offset: 2, length: 2, into: Register::FIRST };
/// The source port of the same.
pub(crate) const SOURCE_PORT: Payload =
    Payload { header: Header::Transport, offset: 0, length: 2, into: Register::FIRST };
/// The type of an ICMPv6 message.
pub(crate) const ICMPV6_TYPE: Payload =
    Payload { header: Header::Transport, offset: 0, length: 1, into: Register::FIRST };

/// The type of the first chunk of an SCTP packet (RFC 9260, 3).
pub(crate) const SCTP_CHUNK: Payload =
    Payload { header: Header::Transport, offset: 12, length: 1, into: Register::FIRST };
/// INIT.
pub(crate) const SCTP_INIT: u8 = 1;
/// The hop limit of IPv6.
pub(crate) const HOP_LIMIT: Payload =
    Payload { header: Header::Network, offset: 7, length: 1, into: Register::FIRST };
/// `IPS_DST_NAT` (linux/netfilter/nf_conntrack_common.h).
pub(crate) const IPS_DST_NAT: u32 = 1 << 5;
/// `RTN_LOCAL`.
pub(crate) const RTN_LOCAL: u32 = 2;
/// `RTN_BROADCAST` (linux/rtnetlink.h).
pub(crate) const RTN_BROADCAST: u32 = 3;

/// Hands out the kernel rules of one neutral rule, in order. `exprs` is memory to reuse.
pub(crate) fn lower(rule: &Rule, exprs: &mut Vec<Expr>, emit: &mut dyn FnMut(Comment, &[Expr])) {
    let effect = &rule.effect;
    let (Some(log), Outcome::Verdict(_) | Outcome::Map(..)) = (&effect.log, &effect.outcome) else {
        let mut whole = Lowering::of(&rule.matches, exprs);
        whole.count(effect.count);
        if let Some(log) = &effect.log {
            whole.log(log);
        }
        whole.outcome(&effect.outcome);
        return emit(Comment { id: rule.id, part: Part::Last }, exprs);
    };
    let mut first = Lowering::of(&rule.matches, exprs);
    first.count(effect.count);
    first.log(log);
    emit(Comment { id: rule.id, part: Part::Continued }, exprs);
    Lowering::of(&rule.matches, exprs).outcome(&effect.outcome);
    emit(Comment { id: rule.id, part: Part::Last }, exprs);
}

/// The bits of `ct state` (`NF_CT_STATE_BIT`, `NF_CT_STATE_INVALID_BIT`, `NF_CT_STATE_UNTRACKED_BIT`).
pub(crate) const fn state_bit(state: ConnState) -> u32 {
    match state {
        ConnState::Invalid => 1,
        ConnState::Established => 2,
        ConnState::Related => 4,
        ConnState::New => 8,
        ConnState::Untracked => 64,
    }
}

/// `meta nfproto` of a family.
pub(crate) const fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    }
}

/// Where an address sits in the network header.
pub(crate) const fn address_offset(family: Family, side: Side) -> u32 {
    match (family, side) {
        (Family::V4, Side::Source) => 12,
        (Family::V4, Side::Destination) => 16,
        (Family::V6, Side::Source) => 8,
        (Family::V6, Side::Destination) => 24,
    }
}

/// Bytes of an address in registers.
pub(crate) const fn register_width(family: Family) -> u32 {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

struct Lowering<'a> {
    exprs: &'a mut Vec<Expr>,
    family: Option<Family>,
}

impl<'a> Lowering<'a> {
    fn of(matches: &[Match], exprs: &'a mut Vec<Expr>) -> Self {
        exprs.clear();
        let mut lowering = Self { exprs, family: None };
        for question in matches {
            lowering.question(question);
        }
        lowering
    }

    fn push(&mut self, expr: impl Into<Expr>) {
        self.exprs.push(expr.into());
    }

    fn question(&mut self, question: &Match) {
        match question {
            Match::Family(family) => {
                self.ask_family(*family);
                // Said for its own sake, it does not stand in for what a later question needs: so it can be told
                // apart when read back.
                self.family = None;
            }
            Match::In(lookup, set) => {
                self.key(*lookup);
                self.push(expr::Lookup { set: set.clone(), yields: Yields::Membership });
            }
            Match::Prefix(side, network) => self.prefix(*side, network),
            Match::Protocol(protocol) => self.protocol(*protocol),
            Match::Port(protocol, ports) => self.port(*protocol, DESTINATION_PORT, *ports),
            Match::SourcePort(protocol, ports) => self.port(*protocol, SOURCE_PORT, *ports),
            Match::Icmpv6Type(first, last) => {
                self.need_family(Family::V6);
                self.protocol(Protocol::ICMPV6);
                self.push(ICMPV6_TYPE);
                self.between([*first], [*last]);
            }
            Match::HopLimit(limit) => {
                self.need_family(Family::V6);
                self.push(HOP_LIMIT);
                self.push(Cmp::equal([*limit]));
            }
            Match::Local => self.destination_is(RTN_LOCAL),
            Match::Broadcast => self.destination_is(RTN_BROADCAST),
            Match::State(states) => {
                let bits = states.iter().fold(0, |bits, state| bits | state_bit(*state));
                self.any_bit(CtKey::State, bits);
            }
            Match::OriginalDirection => {
                self.push(Ct(CtKey::Direction));
                self.push(Cmp::equal([0]));
            }
            Match::Translated => self.any_bit(CtKey::Status, IPS_DST_NAT),
            Match::TcpNotOpening => {
                self.protocol(Protocol::TCP);
                self.push(Payload { offset: TCP_FLAGS, length: 1, ..DESTINATION_PORT });
                self.push(Bitwise { mask: Data::of([OPENING_MASK]) });
                self.push(Cmp { order: Order::Unequal, data: Data::of([SYN]) });
            }
            Match::SctpNotOpening => {
                self.protocol(Protocol::SCTP);
                self.push(SCTP_CHUNK);
                self.push(Cmp { order: Order::Unequal, data: Data::of([SCTP_INIT]) });
            }
            Match::InputLink(link) => self.link(link),
            Match::ReversePathMissing => {
                self.push(Fib::ReversePath);
                self.push(Cmp::equal([0; 4]));
            }
        }
    }

    fn destination_is(&mut self, kind: u32) {
        self.push(Fib::DestinationType);
        self.push(Cmp::equal(kind.to_ne_bytes()));
    }

    fn any_bit(&mut self, of: CtKey, bits: u32) {
        self.push(Ct(of));
        self.push(Bitwise { mask: Data::of(bits.to_ne_bytes()) });
        self.push(Cmp { order: Order::Unequal, data: Data::of([0; 4]) });
    }

    fn ask_family(&mut self, family: Family) {
        self.push(Meta::first(MetaKey::Family));
        self.push(Cmp::equal([family_number(family)]));
    }

    fn need_family(&mut self, family: Family) {
        if self.family != Some(family) {
            self.ask_family(family);
            self.family = Some(family);
        }
    }

    fn protocol(&mut self, protocol: Protocol) {
        self.push(Meta::first(MetaKey::Protocol));
        self.push(Cmp::equal([protocol.0]));
    }

    fn port(&mut self, protocol: Protocol, which: Payload, ports: PortRange) {
        self.protocol(protocol);
        self.push(which);
        self.between(ports.first().to_be_bytes(), ports.last().to_be_bytes());
    }

    fn between<const N: usize>(&mut self, first: [u8; N], last: [u8; N]) {
        if first == last {
            self.push(Cmp::equal(first));
        } else {
            self.push(Range { first: Data::of(first), last: Data::of(last) });
        }
    }

    fn link(&mut self, link: &LinkName) {
        self.push(Meta::first(MetaKey::InputLink));
        self.push(Cmp::equal(link_bytes(link)));
    }

    fn address(&mut self, (family, side): (Family, Side), length: u32, into: Register) {
        self.push(Payload { header: Header::Network, offset: address_offset(family, side), length, into });
    }

    /// On a byte boundary only the bytes of the prefix are loaded, as nft(8) does it; otherwise a mask is needed.
    fn prefix(&mut self, side: Side, network: &ipnetwork::IpNetwork) {
        let (address, mask) = (network.network(), network.mask());
        let family = Family::of(&address);
        let whole = u32::from(network.prefix() / 8);
        self.need_family(family);
        let (address, mask) = (octets(address), octets(mask));
        if network.prefix().is_multiple_of(8) && whole > 0 {
            self.address((family, side), whole, Register::FIRST);
            let bytes = address.bytes().get(..usize::from(network.prefix() / 8)).and_then(Data::new);
            self.push(Cmp { order: Order::Equal, data: bytes.unwrap_or(address) });
        } else {
            self.address((family, side), register_width(family), Register::FIRST);
            self.push(Bitwise { mask });
            self.push(Cmp { order: Order::Equal, data: address });
        }
    }

    fn key(&mut self, lookup: Lookup) {
        match lookup {
            Lookup::Address(family, side) => {
                self.need_family(family);
                self.address((family, side), register_width(family), Register::FIRST);
            }
            Lookup::Pair(family) => {
                let length = register_width(family);
                self.need_family(family);
                self.address((family, Side::Source), length, Register::FIRST);
                self.address((family, Side::Destination), length, Register::behind(length));
            }
            Lookup::Endpoint(family, side) => {
                let length = register_width(family);
                self.need_family(family);
                self.address((family, side), length, Register::FIRST);
                self.push(Meta { key: MetaKey::Protocol, into: Register::behind(length) });
                self.push(Payload { into: Register::behind(length + 4), ..DESTINATION_PORT });
            }
            Lookup::Service => {
                self.push(Meta::first(MetaKey::Protocol));
                self.push(Payload { into: Register::behind(4), ..DESTINATION_PORT });
            }
            Lookup::InputLink => self.push(Meta::first(MetaKey::InputLink)),
            Lookup::OutputLink => self.push(Meta::first(MetaKey::OutputLink)),
        }
    }

    fn count(&mut self, count: Count) {
        match count {
            Count::Yes => self.push(Counter::default()),
            Count::No => {}
        }
    }

    fn log(&mut self, log: &Log) {
        self.key(log.meter.key);
        let limit = Limit { rate: u64::from(log.meter.rate), burst: log.meter.burst };
        self.push(Dynset { set: log.meter.set.clone(), limit });
        self.push(expr::Log { group: log.group, prefix: log.prefix.clone(), snaplen: log.snaplen });
    }

    fn outcome(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Continue => {}
            Outcome::Verdict(verdict) => self.verdict(verdict),
            Outcome::Map(lookup, set) => {
                self.key(*lookup);
                self.push(expr::Lookup { set: set.clone(), yields: Yields::Verdict });
            }
        }
    }

    fn verdict(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Reject(answer) => self.push(Reject(*answer)),
            other => self.push(Immediate(other.clone())),
        }
    }
}

fn octets(address: std::net::IpAddr) -> Data {
    match address {
        std::net::IpAddr::V4(address) => Data::of(address.octets()),
        std::net::IpAddr::V6(address) => Data::of(address.octets()),
    }
}

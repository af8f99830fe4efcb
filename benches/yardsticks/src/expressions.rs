//! A rule as libnftnl's expressions, written a second time from the meaning of the questions.
use std::net::IpAddr;

use nftnl::nftnl_sys as sys;
use podwall_ruleset::{
    ConnState, Count, Effect, Family, Log, Lookup, Match, Outcome, Protocol, Rule, Side, Verdict,
};

use crate::c::{self, Expression};
use crate::keys::{code, octets};

const META_IIFNAME: u32 = 6;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;
/// `NFT_REG_1`, and the 32-bit register four bytes in.
const FIRST: u32 = 1;
const WORD: u32 = 8;
const VERDICT: u32 = 0;

/// The kernel rules of one rule: two where a metered record comes before a verdict.
pub(crate) fn rules(chain: &str, rule: &Rule) -> Vec<c::Rule> {
    let Effect { count, log, outcome } = &rule.effect;
    let split = log.is_some() && !matches!(outcome, Outcome::Continue);
    if split {
        let mut record = Body::of(&rule.matches);
        record.count(*count);
        record.log(log.as_ref());
        let mut verdict = Body::of(&rule.matches);
        verdict.outcome(outcome);
        return vec![record.finish(chain, rule, "+"), verdict.finish(chain, rule, "")];
    }
    let mut whole = Body::of(&rule.matches);
    whole.count(*count);
    whole.log(log.as_ref());
    whole.outcome(outcome);
    vec![whole.finish(chain, rule, "")]
}

struct Body {
    expressions: Vec<Expression>,
    family: Option<Family>,
}

impl Body {
    fn of(matches: &[Match]) -> Self {
        let mut body = Self { expressions: Vec::new(), family: None };
        matches.iter().for_each(|question| body.ask(question));
        body
    }

    fn finish(self, chain: &str, rule: &Rule, suffix: &str) -> c::Rule {
        let comment = format!("{}{suffix}\0", rule.id);
        let mut data = vec![0, comment.len() as u8];
        data.extend(comment.bytes());
        let object = c::Rule::new()
            .u32(sys::NFTNL_RULE_FAMILY, sys::libc::NFPROTO_INET as u32)
            .text(sys::NFTNL_RULE_TABLE, "podwall")
            .text(sys::NFTNL_RULE_CHAIN, chain)
            .bytes(sys::NFTNL_RULE_USERDATA, &data);
        self.expressions.into_iter().fold(object, c::Rule::with)
    }

    fn push(&mut self, expression: Expression) {
        self.expressions.push(expression);
    }

    fn ask(&mut self, question: &Match) {
        match question {
            Match::Family(family) => {
                self.family(*family);
                self.family = None;
            }
            Match::In(lookup, set) => {
                self.key(*lookup);
                self.push(lookup_in(set.as_str()));
            }
            Match::Prefix(side, network) => {
                let (address, length) = (network.network(), network.prefix());
                self.need(Family::of(&address));
                self.prefix(*side, address, length);
            }
            Match::Protocol(protocol) => self.protocol(*protocol),
            Match::Port(protocol, ports) => {
                self.protocol(*protocol);
                self.push(payload(TRANSPORT, 2, 2, FIRST));
                self.between(&ports.first().to_be_bytes(), &ports.last().to_be_bytes());
            }
            Match::Icmpv6Type(first, last) => {
                self.need(Family::V6);
                self.protocol(Protocol::ICMPV6);
                self.push(payload(TRANSPORT, 0, 1, FIRST));
                self.between(&[*first], &[*last]);
            }
            Match::State(states) => {
                let bits = states.iter().fold(0, |bits, state| bits | state_bit(*state));
                self.push(conntrack(sys::libc::NFT_CT_STATE as u32));
                self.push(masked(&bits.to_ne_bytes()));
                self.push(compare(UNEQUAL, &[0; 4]));
            }
            Match::OriginalDirection => {
                self.push(conntrack(sys::libc::NFT_CT_DIRECTION as u32));
                self.push(compare(EQUAL, &[0]));
            }
            Match::Translated => {
                self.push(conntrack(sys::libc::NFT_CT_STATUS as u32));
                self.push(masked(&(1_u32 << 5).to_ne_bytes()));
                self.push(compare(UNEQUAL, &[0; 4]));
            }
            Match::TcpNotOpening => {
                self.protocol(Protocol::TCP);
                self.push(payload(TRANSPORT, 13, 1, FIRST));
                self.push(masked(&[0x17]));
                self.push(compare(UNEQUAL, &[0x02]));
            }
            Match::SctpNotOpening => {
                self.protocol(Protocol::SCTP);
                self.push(payload(TRANSPORT, 12, 1, FIRST));
                self.push(compare(UNEQUAL, &[1]));
            }
            Match::InputLink(link) => {
                let mut name = link.as_str().as_bytes().to_vec();
                name.resize(16, 0);
                self.push(meta(META_IIFNAME, FIRST));
                self.push(compare(EQUAL, &name));
            }
            Match::HopLimit(limit) => {
                self.need(Family::V6);
                self.push(payload(NETWORK, 7, 1, FIRST));
                self.push(compare(EQUAL, &[*limit]));
            }
            Match::Broadcast => {
                // NFTA_FIB_F_DADDR, NFT_FIB_RESULT_ADDRTYPE; RTN_BROADCAST
                self.push(fib(1 << 1, 3));
                self.push(compare(EQUAL, &3_u32.to_ne_bytes()));
            }
            Match::ReversePathMissing => {
                // NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT, NFT_FIB_RESULT_OIF
                self.push(fib(1 | 1 << 3 | 1 << 5, 1));
                self.push(compare(EQUAL, &[0; 4]));
            }
        }
    }

    fn family(&mut self, family: Family) {
        self.push(meta(META_NFPROTO, FIRST));
        self.push(compare(EQUAL, &[if family == Family::V4 { 2 } else { 10 }]));
    }

    fn need(&mut self, family: Family) {
        if self.family != Some(family) {
            self.family(family);
            self.family = Some(family);
        }
    }

    fn protocol(&mut self, protocol: Protocol) {
        self.push(meta(META_L4PROTO, FIRST));
        self.push(compare(EQUAL, &[protocol.0]));
    }

    fn between(&mut self, first: &[u8], last: &[u8]) {
        if first == last {
            return self.push(compare(EQUAL, first));
        }
        let range = Expression::new(c"range")
            .u32(sys::NFTNL_EXPR_RANGE_SREG, FIRST)
            .u32(sys::NFTNL_EXPR_RANGE_OP, EQUAL)
            .bytes(sys::NFTNL_EXPR_RANGE_FROM_DATA, first)
            .bytes(sys::NFTNL_EXPR_RANGE_TO_DATA, last);
        self.push(range);
    }

    fn prefix(&mut self, side: Side, address: IpAddr, length: u8) {
        let bytes = octets(address);
        let whole = usize::from(length / 8);
        let offset = offset(Family::of(&address), side);
        if length.is_multiple_of(8) && whole > 0 {
            self.push(payload(NETWORK, offset, whole as u32, FIRST));
            self.push(compare(EQUAL, bytes.get(..whole).unwrap_or(&bytes)));
            return;
        }
        let mask: Vec<u8> = (0..bytes.len()).map(|at| mask_byte(at, usize::from(length))).collect();
        self.push(payload(NETWORK, offset, bytes.len() as u32, FIRST));
        self.push(masked(&mask));
        self.push(compare(EQUAL, &bytes));
    }

    fn key(&mut self, lookup: Lookup) {
        match lookup {
            Lookup::Address(family, side) => {
                self.need(family);
                self.push(payload(NETWORK, offset(family, side), width(family), FIRST));
            }
            Lookup::Pair(family) => {
                self.need(family);
                self.push(payload(NETWORK, offset(family, Side::Source), width(family), FIRST));
                let behind = behind(width(family));
                self.push(payload(NETWORK, offset(family, Side::Destination), width(family), behind));
            }
            Lookup::Endpoint(family, side) => {
                self.need(family);
                self.push(payload(NETWORK, offset(family, side), width(family), FIRST));
                self.push(meta(META_L4PROTO, behind(width(family))));
                self.push(payload(TRANSPORT, 2, 2, behind(width(family) + 4)));
            }
            Lookup::Service => {
                self.push(meta(META_L4PROTO, FIRST));
                self.push(payload(TRANSPORT, 2, 2, behind(4)));
            }
            Lookup::InputLink => self.push(meta(META_IIFNAME, FIRST)),
        }
    }

    fn count(&mut self, count: Count) {
        if count == Count::Yes {
            let counter = Expression::new(c"counter");
            self.push(counter.u64(sys::NFTNL_EXPR_CTR_PACKETS, 0).u64(sys::NFTNL_EXPR_CTR_BYTES, 0));
        }
    }

    fn log(&mut self, log: Option<&Log>) {
        let Some(log) = log else { return };
        self.key(log.meter.key);
        let limit = Expression::new(c"limit")
            .u64(sys::NFTNL_EXPR_LIMIT_RATE, u64::from(log.meter.rate))
            .u64(sys::NFTNL_EXPR_LIMIT_UNIT, 1)
            .u32(sys::NFTNL_EXPR_LIMIT_BURST, log.meter.burst)
            .u32(sys::NFTNL_EXPR_LIMIT_TYPE, 0)
            .u32(sys::NFTNL_EXPR_LIMIT_FLAGS, 0);
        let meter = Expression::new(c"dynset")
            .u32(sys::NFTNL_EXPR_DYNSET_SREG_KEY, FIRST)
            .u32(sys::NFTNL_EXPR_DYNSET_OP, 1)
            .text(sys::NFTNL_EXPR_DYNSET_SET_NAME, log.meter.set.as_str())
            .inner(sys::NFTNL_EXPR_DYNSET_EXPRESSIONS, limit);
        self.push(meter);
        let record = Expression::new(c"log")
            .u16(sys::NFTNL_EXPR_LOG_GROUP, log.group)
            .u32(sys::NFTNL_EXPR_LOG_SNAPLEN, log.snaplen)
            .text(sys::NFTNL_EXPR_LOG_PREFIX, &log.prefix);
        self.push(record);
    }

    fn outcome(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Continue => {}
            Outcome::Verdict(verdict) => self.push(immediate(verdict)),
            Outcome::Map(lookup, set) => {
                self.key(*lookup);
                self.push(lookup_in(set.as_str()).u32(sys::NFTNL_EXPR_LOOKUP_DREG, VERDICT));
            }
        }
    }
}

fn lookup_in(set: &str) -> Expression {
    let lookup = Expression::new(c"lookup").u32(sys::NFTNL_EXPR_LOOKUP_SREG, FIRST);
    lookup.text(sys::NFTNL_EXPR_LOOKUP_SET, set)
}

fn immediate(verdict: &Verdict) -> Expression {
    let plain = Expression::new(c"immediate")
        .u32(sys::NFTNL_EXPR_IMM_DREG, VERDICT)
        .u32(sys::NFTNL_EXPR_IMM_VERDICT, code(verdict));
    match verdict.target() {
        Some(chain) => plain.text(sys::NFTNL_EXPR_IMM_CHAIN, chain.as_str()),
        None => plain,
    }
}

fn meta(key: u32, register: u32) -> Expression {
    Expression::new(c"meta").u32(sys::NFTNL_EXPR_META_KEY, key).u32(sys::NFTNL_EXPR_META_DREG, register)
}

fn conntrack(key: u32) -> Expression {
    Expression::new(c"ct").u32(sys::NFTNL_EXPR_CT_KEY, key).u32(sys::NFTNL_EXPR_CT_DREG, FIRST)
}

fn payload(base: u32, offset: u32, length: u32, register: u32) -> Expression {
    Expression::new(c"payload")
        .u32(sys::NFTNL_EXPR_PAYLOAD_BASE, base)
        .u32(sys::NFTNL_EXPR_PAYLOAD_OFFSET, offset)
        .u32(sys::NFTNL_EXPR_PAYLOAD_LEN, length)
        .u32(sys::NFTNL_EXPR_PAYLOAD_DREG, register)
}

fn fib(flags: u32, result: u32) -> Expression {
    Expression::new(c"fib")
        .u32(sys::NFTNL_EXPR_FIB_FLAGS, flags)
        .u32(sys::NFTNL_EXPR_FIB_RESULT, result)
        .u32(sys::NFTNL_EXPR_FIB_DREG, FIRST)
}

fn compare(order: u32, value: &[u8]) -> Expression {
    Expression::new(c"cmp")
        .u32(sys::NFTNL_EXPR_CMP_SREG, FIRST)
        .u32(sys::NFTNL_EXPR_CMP_OP, order)
        .bytes(sys::NFTNL_EXPR_CMP_DATA, value)
}

fn masked(mask: &[u8]) -> Expression {
    Expression::new(c"bitwise")
        .u32(sys::NFTNL_EXPR_BITWISE_SREG, FIRST)
        .u32(sys::NFTNL_EXPR_BITWISE_DREG, FIRST)
        .u32(sys::NFTNL_EXPR_BITWISE_LEN, mask.len() as u32)
        .bytes(sys::NFTNL_EXPR_BITWISE_MASK, mask)
        .bytes(sys::NFTNL_EXPR_BITWISE_XOR, &vec![0; mask.len()])
}

const fn state_bit(state: ConnState) -> u32 {
    match state {
        ConnState::Invalid => 1,
        ConnState::Established => 2,
        ConnState::Related => 4,
        ConnState::New => 8,
        ConnState::Untracked => 64,
    }
}

const fn offset(family: Family, side: Side) -> u32 {
    match (family, side) {
        (Family::V4, Side::Source) => 12,
        (Family::V4, Side::Destination) => 16,
        (Family::V6, Side::Source) => 8,
        (Family::V6, Side::Destination) => 24,
    }
}

const fn width(family: Family) -> u32 {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

/// The register so many bytes behind the first.
const fn behind(bytes: u32) -> u32 {
    if bytes.is_multiple_of(16) { FIRST + bytes / 16 } else { WORD + bytes / 4 }
}

/// One byte of a prefix mask.
fn mask_byte(at: usize, length: usize) -> u8 {
    match length.saturating_sub(at * 8) {
        0 => 0,
        bits @ 1..8 => 0xff << (8 - bits),
        _ => 0xff,
    }
}

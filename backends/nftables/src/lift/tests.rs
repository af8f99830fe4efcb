//! `lift(lower(rule)) == rule`, for every rule there can be.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use podwall_ruleset::{ChainName, ConnState, LinkName, PortRange, Protocol, Verdict};
use proptest::prelude::*;

use super::*;
use crate::lower::parts;

fn lowered(rules: &[Rule]) -> Vec<KernelRule> {
    let (mut kernel, mut exprs) = (Vec::new(), Vec::new());
    for rule in rules {
        parts::lower(rule, &mut exprs, &mut |comment, exprs| {
            kernel.push(KernelRule { chain: "c".into(), comment: Some(comment), exprs: Ok(exprs.to_vec()) });
        });
    }
    kernel
}

fn chain(name: &str) -> ChainName {
    ChainName::new(name).unwrap()
}

fn set(name: &str) -> SetName {
    SetName::new(name).unwrap()
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Source), Just(Side::Destination)]
}

fn lookup() -> impl Strategy<Value = Lookup> {
    prop_oneof![
        (family(), side()).prop_map(|(family, side)| Lookup::Address(family, side)),
        family().prop_map(Lookup::Pair),
        (family(), side()).prop_map(|(family, side)| Lookup::Endpoint(family, side)),
        Just(Lookup::Service),
        Just(Lookup::InputLink),
        Just(Lookup::OutputLink),
    ]
}

fn prefix() -> impl Strategy<Value = IpNetwork> {
    let v4 = (any::<u32>(), 0u8..=32).prop_map(|(bits, length)| (IpAddr::V4(Ipv4Addr::from(bits)), length));
    let v6 = (any::<u128>(), 0u8..=128).prop_map(|(bits, length)| (IpAddr::V6(Ipv6Addr::from(bits)), length));
    prop_oneof![v4, v6].prop_map(|(address, length)| {
        let network = IpNetwork::new(address, length).unwrap();
        IpNetwork::new(network.network(), length).unwrap()
    })
}

fn ports() -> impl Strategy<Value = PortRange> {
    prop_oneof![
        Just(PortRange::ALL),
        any::<u16>().prop_map(PortRange::single),
        any::<(u16, u16)>().prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap()),
    ]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::TCP), Just(Protocol::ICMPV6), any::<u8>().prop_map(Protocol)]
}

fn states() -> impl Strategy<Value = Vec<ConnState>> {
    let all = vec![
        ConnState::New,
        ConnState::Established,
        ConnState::Related,
        ConnState::Invalid,
        ConnState::Untracked,
    ];
    proptest::sample::subsequence(all, 1..=5)
}

fn question() -> impl Strategy<Value = Match> {
    prop_oneof![
        3 => family().prop_map(Match::Family),
        3 => (lookup(), "[a-z][a-z0-9_]{0,30}").prop_map(|(lookup, name)| Match::In(lookup, set(&name))),
        2 => (side(), prefix()).prop_map(|(side, prefix)| Match::Prefix(side, prefix)),
        2 => protocol().prop_map(Match::Protocol),
        2 => (protocol(), ports()).prop_map(|(protocol, ports)| Match::Port(protocol, ports)),
        2 => any::<(u8, u8)>().prop_map(|(a, b)| Match::Icmpv6Type(a.min(b), a.max(b))),
        1 => any::<u8>().prop_map(Match::HopLimit),
        1 => Just(Match::Broadcast),
        1 => Just(Match::Local),
        2 => (protocol(), ports()).prop_map(|(protocol, ports)| Match::SourcePort(protocol, ports)),
        1 => states().prop_map(Match::State),
        1 => Just(Match::OriginalDirection),
        1 => Just(Match::Translated),
        1 => Just(Match::TcpNotOpening),
        1 => Just(Match::SctpNotOpening),
        1 => "[a-z0-9]{1,15}".prop_map(|name| Match::InputLink(LinkName::new(&name).unwrap())),
        1 => Just(Match::ReversePathMissing),
    ]
}

fn log() -> impl Strategy<Value = Log> {
    let meter = (lookup(), 1u32.., 1u32..).prop_map(|(key, rate, burst)| Meter {
        set: set("n_meter"),
        key,
        rate,
        burst,
    });
    (any::<u16>(), "[ -~]{0,127}", any::<u32>(), meter).prop_map(|(group, prefix, snaplen, meter)| Log {
        group,
        prefix,
        snaplen,
        meter,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Continue),
        prop_oneof![
            Just(Verdict::Accept),
            Just(Verdict::Drop),
            Just(Verdict::Return),
            Just(Verdict::Jump(chain("there"))),
            Just(Verdict::Goto(chain("there"))),
        ]
        .prop_map(Outcome::Verdict),
        lookup().prop_map(|lookup| Outcome::Map(lookup, set("in4"))),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let count = prop_oneof![Just(Count::Yes), Just(Count::No)];
    let effect = (count, proptest::option::of(log()), outcome());
    (0u8..4, proptest::collection::vec(question(), 0..5), effect).prop_map(|(id, matches, effect)| Rule {
        id: RuleId(Digest::of([[id]])),
        matches,
        effect: Effect { count: effect.0, log: effect.1, outcome: effect.2 },
    })
}

proptest! {
    #[test]
    fn every_chain_lifts_to_what_was_lowered(rules in proptest::collection::vec(rule(), 0..4)) {
        prop_assert_eq!(lift(&lowered(&rules)), (rules, vec![]));
    }

    #[test]
    fn any_other_order_of_expressions_is_either_the_same_rule_or_alien(
        rule in rule(),
        seed in any::<proptest::sample::Index>(),
    ) {
        let mut kernel = lowered(std::slice::from_ref(&rule));
        let mut dropped = None;
        if let Some(Ok(exprs)) = kernel.first_mut().map(|first| first.exprs.as_mut())
            && !exprs.is_empty()
        {
            dropped = Some(exprs.remove(seed.index(exprs.len())));
        }
        let (lifted, alien) = lift(&kernel);
        prop_assert!(dropped.is_none() || !alien.is_empty() || lifted != [rule]);
    }
}

fn plain(matches: Vec<Match>, outcome: Verdict) -> Rule {
    Rule { id: RuleId(Digest::of(["a"])), matches, effect: outcome.plain() }
}

#[test]
fn a_run_of_questions_asks_for_the_family_once() {
    let both =
        [Side::Source, Side::Destination].map(|side| Match::In(Lookup::Address(Family::V4, side), set("s")));
    let kernel = lowered(&[plain(both.to_vec(), Verdict::Return)]);
    assert_eq!(kernel[0].exprs.as_ref().unwrap().len(), 2 + 2 + 2 + 1);
}

#[test]
fn a_rule_that_logs_and_decides_becomes_two() {
    let meter = Meter { set: set("m"), key: Lookup::Address(Family::V4, Side::Source), rate: 1, burst: 1 };
    let log = Log { group: 1, prefix: String::new(), snaplen: 0, meter };
    let mut rule = plain(vec![], Verdict::Drop);
    rule.effect.log = Some(log);
    let kernel = lowered(&[rule]);
    let parts: Vec<_> = kernel.iter().map(|rule| rule.comment.unwrap().part).collect();
    assert_eq!(parts, [Part::Continued, Part::Last]);
    let (_, alien) = lift(&kernel[..1]);
    assert_eq!(alien.len(), 1);
}

#[test]
fn a_rule_of_somebody_else_never_equals_one_of_ours() {
    let mut kernel = lowered(&[plain(vec![], Verdict::Accept)]);
    kernel[0].comment = None;
    let (lifted, alien) = lift(&kernel);
    assert_eq!(lifted, [Rule { id: NOBODY, ..plain(vec![], Verdict::Accept) }]);
    assert_eq!(alien, ["a rule without an id of ours"]);
}

#[test]
fn a_rule_that_cannot_be_read_leaves_a_trace() {
    let mut kernel = lowered(&[plain(vec![], Verdict::Accept)]);
    kernel[0].exprs = Err(Unread::foreign("expression quota"));
    let (lifted, alien) = lift(&kernel);
    assert_eq!(lifted, [Body::empty().with(NOBODY)]);
    assert_eq!(alien, ["expression quota"]);
}

use std::net::IpAddr;

use super::*;
use crate::fake::apply_op;
use crate::matching::{ConnState, Family, Lookup, Match, PortRange, Protocol, Side};
use crate::packet::Transport;
use crate::ruleset::{Base, Hook, Rule};
use crate::set::{SetSpec, Shape};
use crate::transaction::Op;
use crate::verdict::{Count, Effect, Log, Meter, Outcome};
use crate::world::{chain, id, rule, set};
use crate::{LinkName, Recorder};

fn named(name: &str, matches: Vec<Match>, verdict: Verdict) -> Rule {
    Rule { id: id(name), ..rule(matches, verdict) }
}

fn jump(name: &str) -> Verdict {
    Verdict::Jump(chain(name))
}

fn goto(name: &str) -> Verdict {
    Verdict::Goto(chain(name))
}

/// Chains by name; one called `forward` hangs in its hook.
fn table(chains: Vec<(&str, Vec<Rule>)>) -> Ruleset {
    let mut recorder = Recorder::default();
    for (name, rules) in chains {
        let base = (name == "forward").then_some(Base { hook: Hook::Forward, priority: -1 });
        recorder.put_chain(&chain(name), Chain { base, rules });
    }
    recorder.ruleset().clone()
}

fn syn() -> Packet {
    let address = |last: u8| IpAddr::from([10, 0, 0, last]);
    Packet::opening(address(1), address(2), Transport::Tcp { port: 80, opening: true })
}

fn dropped(chain_name: &str, rule: &str) -> Decision {
    Decision::Drop { chain: chain(chain_name), rule: id(rule) }
}

fn decision(chains: Vec<(&str, Vec<Rule>)>) -> Decision {
    evaluate(&table(chains), &syn()).decision
}

#[test]
fn no_table_lets_everything_by() {
    assert_eq!(evaluate(&Ruleset::default(), &syn()), Trace { steps: vec![], decision: Decision::Accept });
}

#[test]
fn a_jump_comes_back_and_a_goto_does_not() {
    let end = || named("end", vec![], Verdict::Drop);
    let after = |verdict| decision(vec![("forward", vec![rule(vec![], verdict), end()]), ("side", vec![])]);
    assert_eq!(after(jump("side")), dropped("forward", "end"));
    assert_eq!(after(goto("side")), Decision::Accept);
    let nested = |verdict| {
        let chains = vec![
            ("forward", vec![rule(vec![], jump("outer")), end()]),
            ("outer", vec![rule(vec![], verdict), named("inner end", vec![], Verdict::Drop)]),
            ("side", vec![rule(vec![], Verdict::Return)]),
        ];
        decision(chains)
    };
    assert_eq!(nested(jump("side")), dropped("outer", "inner end"));
    assert_eq!(nested(goto("side")), dropped("forward", "end"));
}

#[test]
fn a_return_from_a_base_chain_is_its_policy() {
    let rules = vec![rule(vec![], Verdict::Return), rule(vec![], Verdict::Drop)];
    assert_eq!(decision(vec![("forward", rules)]), Decision::Accept);
}

#[test]
fn base_chains_run_by_priority_and_an_accept_ends_only_its_own() {
    let mut recorder = Recorder::default();
    let mut base = |name: &str, hook, priority, verdict| {
        let rules = vec![named(name, vec![], verdict)];
        recorder.put_chain(&chain(name), Chain { base: Some(Base { hook, priority }), rules });
    };
    base("late", Hook::Forward, 10, Verdict::Drop);
    base("early", Hook::Forward, -10, Verdict::Accept);
    base("input", Hook::Input, -20, Verdict::Drop);
    let step = |name: &str, verdict| Step {
        chain: chain(name),
        index: 0,
        rule: id(name),
        taken: Taken::Gave(verdict),
    };
    let expected = Trace {
        steps: vec![step("early", Verdict::Accept), step("late", Verdict::Drop)],
        decision: dropped("late", "late"),
    };
    assert_eq!(evaluate(recorder.ruleset(), &syn()), expected);
    assert_eq!(Simulator::new(recorder.ruleset()).run(&syn()), expected);
}

#[test]
fn a_call_that_goes_too_deep_or_round_in_circles_ends_in_a_drop() {
    let round = |verdict| {
        decision(vec![
            ("forward", vec![rule(vec![], goto("a"))]),
            ("a", vec![named("again", vec![], verdict)]),
        ])
    };
    assert_eq!(round(jump("a")), dropped("a", "again"));
    assert_eq!(round(goto("a")), dropped("a", "again"));
    let deep = |calls: usize| {
        let mut recorder = Recorder::default();
        for level in 0..=calls {
            let base = (level == 0).then_some(Base { hook: Hook::Forward, priority: 0 });
            let rules = (level < calls).then(|| rule(vec![], jump(&format!("l{}", level + 1))));
            recorder
                .put_chain(&chain(&format!("l{level}")), Chain { base, rules: rules.into_iter().collect() });
        }
        evaluate(recorder.ruleset(), &syn()).decision
    };
    assert_eq!(deep(JUMP_DEPTH), Decision::Accept);
    assert_ne!(deep(JUMP_DEPTH + 1), Decision::Accept);
}

#[test]
fn a_trace_names_the_chain_behind_the_map_and_the_rule_that_decided() {
    let dispatch = |name: &str, map: &str| Rule {
        id: id(name),
        matches: vec![],
        effect: Effect {
            count: Count::No,
            log: None,
            outcome: Outcome::Map(Lookup::Address(Family::V4, Side::Destination), set(map)),
        },
    };
    let web = vec![Match::Port(Protocol::TCP, PortRange::single(443))];
    let rules = table(vec![
        ("forward", vec![dispatch("none", "other4"), dispatch("in", "in4")]),
        ("i4_web", vec![named("web", web, Verdict::Return), named("deny", vec![], Verdict::Drop)]),
    ]);
    let mut recorder = Recorder::default();
    rules.chains.iter().for_each(|(name, chain)| recorder.put_chain(name, chain.as_ref().clone()));
    for map in ["in4", "other4"] {
        recorder.put_set(&set(map), SetSpec { shape: Shape::Verdicts(Family::V4), size: None });
    }
    recorder.put(&set("in4"), Key::Address([10, 0, 0, 2].into()), Value::Verdict(goto("i4_web")));
    let step = |name: &str, index, rule, taken| Step { chain: chain(name), index, rule: id(rule), taken };
    let expected = Trace {
        steps: vec![
            step("forward", 0, "none", Taken::Missed(set("other4"))),
            step("forward", 1, "in", Taken::Found(set("in4"), goto("i4_web"))),
            step("i4_web", 1, "deny", Taken::Gave(Verdict::Drop)),
        ],
        decision: dropped("i4_web", "deny"),
    };
    assert_eq!(evaluate(recorder.ruleset(), &syn()), expected);
}

#[test]
fn counting_and_logging_decide_nothing() {
    let meter =
        Meter { set: set("n_meter4"), key: Lookup::Address(Family::V4, Side::Source), rate: 1, burst: 1 };
    let log = Log { group: 64, prefix: "podwall:".to_owned(), snaplen: 96, meter };
    let record = |outcome| Rule {
        id: id("record"),
        matches: vec![],
        effect: Effect { count: Count::Yes, log: Some(log.clone()), outcome },
    };
    assert_eq!(decision(vec![("forward", vec![record(Outcome::Continue)])]), Decision::Accept);
    let drop = record(Outcome::Verdict(Verdict::Drop));
    assert_eq!(decision(vec![("forward", vec![drop])]), dropped("forward", "record"));
}

#[test]
fn a_chain_that_records_and_goes_on_would_drop_and_one_that_drops_does() {
    let meter =
        Meter { set: set("n_meter4"), key: Lookup::Address(Family::V4, Side::Source), rate: 1, burst: 1 };
    let log = Log { group: 64, prefix: "podwall:".to_owned(), snaplen: 96, meter };
    let effect = Effect { count: Count::No, log: Some(log), outcome: Outcome::Continue };
    let record = || Rule { id: id("record"), matches: vec![], effect: effect.clone() };
    let ruleset = table(vec![
        ("audit", vec![record()]),
        ("deny", vec![record(), rule(vec![], Verdict::Drop)]),
        ("forward", vec![rule(vec![], jump("audit")), rule(vec![], jump("deny"))]),
    ]);
    let trace = evaluate(&ruleset, &syn());
    assert_eq!(trace.decision, dropped("deny", "rule"));
    assert_eq!(trace.would_drop().collect::<Vec<_>>(), [&chain("audit")]);
}

/// Does a packet answer the question with yes?
fn asked(question: Match, packet: &Packet) -> bool {
    let drop = named("yes", vec![question], Verdict::Drop);
    evaluate(&table(vec![("forward", vec![drop])]), packet).decision == dropped("forward", "yes")
}

#[test]
fn each_question_has_a_packet_that_says_yes_and_one_that_says_no() {
    let link = |name: &str| Some(LinkName::new(name).unwrap());
    let six = |transport| Packet::opening("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap(), transport);
    let other = |transport| Packet { transport, ..syn() };
    let late = Packet { state: ConnState::Related, original_direction: false, ..syn() };
    let cases = [
        (Match::Family(Family::V4), syn(), six(Transport::Udp(80))),
        (Match::Prefix(Side::Source, "10.0.0.1/32".parse().unwrap()), syn(), six(Transport::Udp(80))),
        (Match::Prefix(Side::Destination, "0.0.0.0/0".parse().unwrap()), syn(), six(Transport::Udp(80))),
        (Match::Protocol(Protocol::SCTP), other(Transport::Sctp(80)), syn()),
        (Match::Protocol(Protocol(50)), other(Transport::Other(Protocol(50))), syn()),
        (Match::Port(Protocol::TCP, PortRange::new(79, 80).unwrap()), syn(), other(Transport::Udp(80))),
        (Match::Port(Protocol::UDP, PortRange::ALL), other(Transport::Udp(0)), syn()),
        (Match::Icmpv6Type(133, 137), six(Transport::Icmpv6(135)), six(Transport::Icmpv6(128))),
        (Match::Icmpv6Type(0, 255), six(Transport::Icmpv6(0)), other(Transport::Icmp(0))),
        (
            Match::HopLimit(255),
            Packet { hop_limit: 255, ..six(Transport::Icmpv6(135)) },
            six(Transport::Icmpv6(135)),
        ),
        (Match::HopLimit(64), six(Transport::Udp(80)), syn()),
        (Match::Broadcast, Packet { broadcast: true, ..syn() }, syn()),
        (
            Match::Broadcast,
            Packet { destination: std::net::Ipv4Addr::BROADCAST.into(), ..syn() },
            six(Transport::Udp(80)),
        ),
        (Match::State(vec![ConnState::Established, ConnState::Related]), late.clone(), syn()),
        (Match::OriginalDirection, syn(), late),
        (Match::Translated, Packet { translated: true, ..syn() }, syn()),
        (Match::TcpNotOpening, other(Transport::Tcp { port: 80, opening: false }), syn()),
        (
            Match::SctpNotOpening,
            Packet { init: false, ..other(Transport::Sctp(80)) },
            other(Transport::Sctp(80)),
        ),
        (
            Match::InputLink(LinkName::new("veth0").unwrap()),
            Packet { input_link: link("veth0"), ..syn() },
            Packet { input_link: link("veth1"), ..syn() },
        ),
        (Match::ReversePathMissing, Packet { reverse_path: false, ..syn() }, syn()),
    ];
    for (question, yes, no) in cases {
        assert!(asked(question.clone(), &yes), "{question:?} of {yes:?}");
        assert!(!asked(question.clone(), &no), "{question:?} of {no:?}");
    }
}

#[test]
fn each_lookup_takes_its_fields_in_order() {
    let (source, destination): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let veth = LinkName::new("veth0").unwrap();
    let packet = Packet { input_link: Some(veth.clone()), ..syn() };
    let v4 = Family::V4;
    let cases = [
        (Lookup::Address(v4, Side::Source), Shape::Addresses(v4), Key::Address(source)),
        (Lookup::Address(v4, Side::Destination), Shape::Ranges(v4), Key::Range(destination, destination)),
        (Lookup::Pair(v4), Shape::Pairs(v4), Key::Pair(source, destination)),
        (
            Lookup::Endpoint(v4, Side::Destination),
            Shape::Endpoints(v4),
            Key::Endpoint(destination, Protocol::TCP, 80),
        ),
        (Lookup::Service, Shape::Services, Key::Service(Protocol::TCP, PortRange::new(1, 80).unwrap())),
        (Lookup::InputLink, Shape::Links, Key::Link(veth)),
    ];
    for (lookup, shape, key) in cases {
        let mut recorder = Recorder::default();
        recorder.put_set(&set("s"), SetSpec { shape, size: None });
        let rules = vec![named("in", vec![Match::In(lookup, set("s"))], Verdict::Drop)];
        let base = Some(Base { hook: Hook::Forward, priority: 0 });
        recorder.put_chain(&chain("forward"), Chain { base, rules });
        assert_eq!(
            evaluate(recorder.ruleset(), &packet).decision,
            Decision::Accept,
            "{lookup:?} of an empty set"
        );
        recorder.put(&set("s"), key, Value::Member);
        assert_eq!(evaluate(recorder.ruleset(), &packet).decision, dropped("forward", "in"), "{lookup:?}");
        let portless =
            Packet::opening("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap(), Transport::Icmpv6(1));
        assert_eq!(
            evaluate(recorder.ruleset(), &portless).decision,
            Decision::Accept,
            "{lookup:?} of another packet"
        );
    }
}

/// `forward` drops unless the source is in `a` and the destination in `b`.
fn two_sets(members: &[(&str, u8)]) -> Ruleset {
    let mut recorder = Recorder::default();
    for name in ["a", "b"] {
        recorder.put_set(&set(name), SetSpec { shape: Shape::Addresses(Family::V4), size: None });
    }
    for (name, last) in members {
        recorder.put(&set(name), Key::Address([10, 0, 0, *last].into()), Value::Member);
    }
    let within = |side, name: &str| Match::In(Lookup::Address(Family::V4, side), set(name));
    let both = vec![within(Side::Source, "a"), within(Side::Destination, "b")];
    let rules = vec![rule(both, Verdict::Accept), rule(vec![], Verdict::Drop)];
    recorder
        .put_chain(&chain("forward"), Chain { base: Some(Base { hook: Hook::Forward, priority: 0 }), rules });
    recorder.ruleset().clone()
}

#[test]
fn a_packet_that_looks_twice_may_see_both_sides_of_a_commit() {
    let (before, after) = (two_sets(&[("a", 1)]), two_sets(&[("b", 2)]));
    assert_ne!(evaluate(&before, &syn()).decision, Decision::Accept);
    assert_ne!(evaluate(&after, &syn()).decision, Decision::Accept);
    assert!(may_pass(&before, &after, &syn()));
    assert!(may_drop(&before, &after, &syn()));
    assert!(!may_pass(&before, &before, &syn()) && !may_pass(&after, &after, &syn()));
}

#[test]
fn every_mixture_is_tried_once() {
    // The side of the rules, then `a`; `b` is asked only where `a` said yes.
    assert_eq!(mixtures(&two_sets(&[]), &two_sets(&[("a", 1), ("b", 2)]), &syn()).count(), 6);
    assert_eq!(mixtures(&two_sets(&[]), &two_sets(&[]), &syn()).count(), 2);
}

#[test]
fn an_element_may_lead_into_a_chain_that_has_no_rules_yet() {
    let mut before = table(vec![("forward", vec![])]);
    apply_op(
        &mut before,
        &Op::AddSet(set("in4"), SetSpec { shape: Shape::Verdicts(Family::V4), size: None }),
    )
    .unwrap();
    let dispatch = Effect {
        count: Count::No,
        log: None,
        outcome: Outcome::Map(Lookup::Address(Family::V4, Side::Destination), set("in4")),
    };
    let forward = Chain { base: None, rules: vec![Rule { id: id("in"), matches: vec![], effect: dispatch }] };
    apply_op(&mut before, &Op::AddRules(chain("forward"), forward.into())).unwrap();
    let put = |verdict| {
        Op::AddElements(set("in4"), vec![(Key::Address([10, 0, 0, 2].into()), Value::Verdict(verdict))])
    };
    let mut after = before.clone();
    apply_op(&mut before, &put(Verdict::Drop)).unwrap();
    apply_op(&mut after, &Op::AddChain(chain("i4"), None)).unwrap();
    let deny = Chain { base: None, rules: vec![rule(vec![], Verdict::Drop)] };
    apply_op(&mut after, &Op::AddRules(chain("i4"), deny.into())).unwrap();
    apply_op(&mut after, &put(goto("i4"))).unwrap();
    assert!(may_pass(&before, &after, &syn()));
}

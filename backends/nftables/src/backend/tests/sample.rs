//! A small node: the layout of `src/ARCHITECTURE.md`, written by hand, every shape, question and outcome in it.
use std::net::IpAddr;
use std::sync::Arc;

use podwall_ruleset::{
    Answer, Base, Chain, ChainName, ConnState, Count, Deadline, Digest, Effect, Family, Hook, Key, LinkName,
    Log, Lookup, Match, Meter, Outcome, PortRange, Protocol, Rule, RuleId, Ruleset, Set, SetName, SetSpec,
    Shape, Side, Value, Verdict,
};

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn chain(name: &str) -> ChainName {
    ChainName::new(name).unwrap()
}

pub(super) fn set(name: &str) -> SetName {
    SetName::new(name).unwrap()
}

pub(super) fn goto(name: &str) -> Verdict {
    Verdict::Goto(chain(name))
}

pub(super) fn jump(name: &str) -> Verdict {
    Verdict::Jump(chain(name))
}

pub(super) fn rule(id: &str, matches: Vec<Match>, effect: Effect) -> Rule {
    Rule { id: RuleId(Digest::of([id])), matches, effect }
}

pub(super) fn looked_up(lookup: Lookup, name: &str) -> Match {
    Match::In(lookup, set(name))
}

fn log(family: Family) -> Log {
    let name = format!("n_meter{}", family.digit());
    let meter = Meter { set: set(&name), key: Lookup::Address(family, Side::Source), rate: 10, burst: 20 };
    Log { group: 64, prefix: "podwall:i4_x:".into(), snaplen: 96, meter }
}

fn outcome(outcome: Outcome) -> Effect {
    Effect { count: Count::No, log: None, outcome }
}

fn map(id: &str, family: Family, side: Side, name: &str) -> Rule {
    rule(id, vec![], outcome(Outcome::Map(Lookup::Address(family, side), set(name))))
}

fn forward() -> Vec<Rule> {
    vec![
        rule("recheck", vec![], jump("recheck").plain()),
        rule("established", vec![Match::State(vec![ConnState::Established])], Verdict::Accept.plain()),
        rule(
            "errors4",
            vec![Match::State(vec![ConnState::Related]), Match::Protocol(Protocol::ICMP)],
            Verdict::Accept.plain(),
        ),
        rule("nd", vec![Match::Icmpv6Type(133, 137)], Verdict::Accept.plain()),
        rule("mld2", vec![Match::Icmpv6Type(143, 143)], Verdict::Accept.plain()),
        rule("guard", vec![], jump("guard").plain()),
        rule("egress", vec![], jump("egress").plain()),
        rule("ingress", vec![], jump("ingress").plain()),
    ]
}

fn tail(id: &str) -> Vec<Rule> {
    let logged = |family| Effect { count: Count::No, log: Some(log(family)), outcome: Outcome::Continue };
    vec![
        rule(id, vec![], Effect { count: Count::Yes, log: None, outcome: Outcome::Continue }),
        rule(&format!("{id} log4"), vec![], logged(Family::V4)),
        rule(&format!("{id} log6"), vec![], logged(Family::V6)),
        rule(&format!("{id} drop"), vec![], Verdict::Drop.plain()),
    ]
}

fn policy() -> Vec<Rule> {
    let source = Lookup::Address(Family::V4, Side::Source);
    let ports = PortRange::new(30_000, 32_767).unwrap();
    let mut rules = vec![
        rule("strays", vec![], jump("strays").plain()),
        rule(
            "web",
            vec![looked_up(source, "s4_web"), Match::Port(Protocol::TCP, PortRange::single(8080))],
            Verdict::Return.counted(),
        ),
        rule(
            "ops",
            vec![looked_up(source, "r4_ops"), Match::Port(Protocol::TCP, ports)],
            Verdict::Return.counted(),
        ),
        rule(
            "many",
            vec![looked_up(source, "s4_web"), looked_up(Lookup::Service, "pt_many")],
            Verdict::Return.counted(),
        ),
        rule(
            "named",
            vec![looked_up(Lookup::Endpoint(Family::V4, Side::Destination), "n4_web")],
            Verdict::Return.counted(),
        ),
        rule(
            "block",
            vec![Match::Prefix(Side::Source, "192.0.2.128/25".parse().unwrap())],
            Verdict::Return.counted(),
        ),
        rule("self", vec![looked_up(Lookup::Pair(Family::V4), "self4")], Verdict::Return.plain()),
    ];
    rules.extend(tail("i4"));
    rules
}

fn policy6() -> Vec<Rule> {
    let mut rules = vec![
        rule("self6", vec![looked_up(Lookup::Pair(Family::V6), "self6")], Verdict::Return.plain()),
        rule(
            "named6",
            vec![looked_up(Lookup::Endpoint(Family::V6, Side::Source), "n6_web")],
            Verdict::Return.counted(),
        ),
        rule(
            "wide",
            vec![Match::Prefix(Side::Destination, "2001:db8::/29".parse().unwrap())],
            Verdict::Return.plain(),
        ),
        rule(
            "range6",
            vec![looked_up(Lookup::Address(Family::V6, Side::Destination), "r6_ops")],
            Verdict::Return.plain(),
        ),
    ];
    rules.extend(tail("e6"));
    rules
}

fn strays() -> Vec<Rule> {
    let new = Match::State(vec![ConnState::New]);
    vec![
        rule("invalid", vec![Match::State(vec![ConnState::Invalid])], Verdict::Drop.plain()),
        rule("no syn", vec![new, Match::TcpNotOpening], Verdict::Drop.plain()),
    ]
}

fn recheck() -> Vec<Rule> {
    let pods = looked_up(Lookup::Address(Family::V4, Side::Source), "n_recheck4");
    let questions = vec![Match::State(vec![ConnState::Established]), Match::OriginalDirection, pods];
    vec![rule("recheck4", questions, goto("judge").plain())]
}

fn arrivals() -> Vec<Rule> {
    let banned = |name| looked_up(Lookup::Address(Family::V4, Side::Source), name);
    let ssh = Match::Port(Protocol::TCP, PortRange::single(22));
    vec![
        rule("ssh", vec![Match::Local, ssh], Verdict::Accept.plain()),
        rule("banned", vec![banned("c_bi4_x")], goto("b4_x").plain()),
        rule("blocks", vec![banned("c_ni4_x")], goto("b4_x").plain()),
    ]
}

fn departures() -> Vec<Rule> {
    let by = looked_up(Lookup::OutputLink, "c_podlinks");
    let from = Match::SourcePort(Protocol::UDP, PortRange::new(1, 80).unwrap());
    let to = looked_up(Lookup::Address(Family::V6, Side::Destination), "c_bo6_x");
    vec![rule("leaving", vec![by, from, to], Verdict::Drop.counted())]
}

fn refusal() -> Vec<Rule> {
    let tcp = vec![Match::Protocol(Protocol::TCP)];
    vec![
        rule("reset", tcp, Verdict::Reject(Answer::Reset).counted()),
        rule("prohibited", vec![], Verdict::Reject(Answer::Prohibited).counted()),
    ]
}

fn guard() -> Vec<Rule> {
    let links = looked_up(Lookup::InputLink, "c_podlinks");
    vec![
        rule("forged", vec![links, Match::ReversePathMissing], goto("pending").plain()),
        rule("docker", vec![Match::InputLink(LinkName::new("docker0").unwrap())], Verdict::Return.plain()),
    ]
}

fn direction(family_map: [(&str, Family); 2], side: Side) -> Vec<Rule> {
    let mut rules: Vec<_> = family_map.iter().map(|(name, family)| map(name, *family, side, name)).collect();
    let local = looked_up(Lookup::Address(Family::V4, side), "c_local4");
    rules.push(rule("local", vec![local], goto("pending").plain()));
    rules
}

fn chains() -> Vec<(&'static str, Chain)> {
    let based = |hook, rules| Chain { base: Some(Base { hook, priority: -1 }), rules };
    let plain = |rules| Chain { base: None, rules };
    let (v4, v6) = (Family::V4, Family::V6);
    vec![
        ("forward", based(Hook::Forward, forward())),
        ("input", based(Hook::Input, vec![rule("egress", vec![], jump("egress").plain())])),
        ("guard", plain(guard())),
        ("egress", plain(direction([("eg4", v4), ("eg6", v6)], Side::Source))),
        ("ingress", plain(direction([("in4", v4), ("in6", v6)], Side::Destination))),
        (
            "judge",
            plain(vec![
                rule("e", vec![], jump("egress").plain()),
                rule("i", vec![], jump("ingress").plain()),
            ]),
        ),
        ("recheck", plain(recheck())),
        ("strays", plain(strays())),
        ("pending", plain(tail("pending"))),
        (
            "arrivals",
            Chain { base: Some(Base { hook: Hook::Prerouting, priority: -151 }), rules: arrivals() },
        ),
        ("departures", Chain { base: Some(Base { hook: Hook::Output, priority: -1 }), rules: departures() }),
        ("b4_x", plain(refusal())),
        ("i4_x", plain(policy())),
        ("e6_x", plain(policy6())),
    ]
}

fn members(keys: impl IntoIterator<Item = Key>) -> Vec<(Key, Value)> {
    keys.into_iter().map(|key| (key, Value::Member)).collect()
}

type Contents = (&'static str, Shape, Option<u32>, Vec<(Key, Value)>);

fn maps() -> Vec<Contents> {
    let verdict = |address, verdict| (Key::Address(ip(address)), Value::Verdict(verdict));
    let (v4, v6) = (Shape::Verdicts(Family::V4), Shape::Verdicts(Family::V6));
    vec![
        (
            "in4",
            v4,
            Some(1024),
            vec![verdict("10.1.0.2", goto("i4_x")), verdict("10.1.0.3", Verdict::Return)],
        ),
        ("eg4", v4, Some(1024), vec![verdict("10.1.0.2", goto("pending"))]),
        ("in6", v6, Some(64), vec![verdict("fd00::2", Verdict::Return)]),
        ("eg6", v6, None, vec![verdict("fd00::2", goto("e6_x"))]),
    ]
}

fn peers() -> Vec<Contents> {
    let (v4, v6) = (Family::V4, Family::V6);
    let range = |first, last| Key::Range(ip(first), ip(last));
    let address = |text| Key::Address(ip(text));
    let endpoint = |text, port| Key::Endpoint(ip(text), Protocol::TCP, port);
    let pair = |text| Key::Pair(ip(text), ip(text));
    let last6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    vec![
        ("s4_web", Shape::Addresses(v4), None, members([address("10.2.0.1"), address("10.2.0.2")])),
        (
            "r4_ops",
            Shape::Ranges(v4),
            None,
            members([
                range("0.0.0.0", "0.0.0.7"),
                range("192.0.2.0", "192.0.2.127"),
                range("192.0.2.200", "192.0.2.200"),
                range("240.0.0.0", "255.255.255.255"),
            ]),
        ),
        ("r6_ops", Shape::Ranges(v6), None, members([range("fd01::", "fd01::ff"), range("ff00::", last6)])),
        (
            "n4_web",
            Shape::Endpoints(v4),
            None,
            members([endpoint("10.1.0.2", 80), endpoint("10.1.0.2", 443)]),
        ),
        ("n6_web", Shape::Endpoints(v6), None, members([endpoint("fd00::2", 80)])),
        ("self4", Shape::Pairs(v4), None, members([pair("10.1.0.2"), pair("10.1.0.3")])),
        ("self6", Shape::Pairs(v6), None, members([pair("fd00::2")])),
        ("n_recheck4", Shape::Addresses(v4), None, vec![]),
        ("c_local4", Shape::Ranges(v4), None, members([range("10.1.0.0", "10.1.0.255")])),
        ("n_meter4", Shape::Meter(v4), Some(4096), vec![]),
        ("n_meter6", Shape::Meter(v6), None, vec![]),
    ]
}

fn others() -> Vec<Contents> {
    let service = |protocol, first, last| Key::Service(protocol, PortRange::new(first, last).unwrap());
    let link = |name| Key::Link(LinkName::new(name).unwrap());
    let address = |text| Key::Address(ip(text));
    let range = |first, last| Key::Range(ip(first), ip(last));
    vec![
        (
            "pt_many",
            Shape::Services,
            None,
            members([
                service(Protocol::TCP, 80, 80),
                service(Protocol::TCP, 9000, 9999),
                service(Protocol::UDP, 0, 65_535),
                service(Protocol::SCTP, 1, 1),
            ]),
        ),
        (
            "c_bi4_x",
            Shape::Banned(Family::V4),
            None,
            members([address("198.51.100.7"), address("198.51.100.8")]),
        ),
        ("c_bo6_x", Shape::Banned(Family::V6), None, members([address("2001:db8::7")])),
        ("d4_x", Shape::Learned(Family::V4), None, members([Key::Pair(ip("10.1.0.2"), ip("198.51.100.9"))])),
        ("d6_x", Shape::Learned(Family::V6), None, members([Key::Pair(ip("fd00::2"), ip("2001:db8::9"))])),
        ("c_ni4_x", Shape::BannedRanges(Family::V4), None, members([range("203.0.113.0", "203.0.113.127")])),
        ("c_podlinks", Shape::Links, None, members([link("veth0"), link("cali0123456789a")])),
    ]
}

/// The node.
pub(super) fn node() -> Ruleset {
    let mut ruleset = Ruleset::default();
    for (name, shape, size, elements) in maps().into_iter().chain(peers()).chain(others()) {
        let mut filled = Set::new(SetSpec { shape, size });
        for (key, value) in elements {
            filled.insert(key, value).unwrap();
        }
        ruleset.sets.insert(set(name), Arc::new(filled));
    }
    for (name, rules) in chains() {
        ruleset.chains.insert(chain(name), Arc::new(rules));
    }
    assert_eq!(ruleset.dangling(), None);
    ruleset
}

/// The node a moment later: a pod has come, a block has gone, a policy is another.
pub(super) fn later() -> Ruleset {
    let mut ruleset = node();
    let edit = |ruleset: &mut Ruleset, name: &str, key: Key, value: Option<Value>| {
        let set = Arc::make_mut(ruleset.sets.get_mut(&set(name)).unwrap());
        match value {
            Some(value) => drop(set.insert(key, value).unwrap()),
            None => drop(set.remove(&key).unwrap()),
        }
    };
    let pod = Key::Address(ip("10.1.0.9"));
    edit(&mut ruleset, "in4", pod.clone(), Some(Value::Verdict(goto("i4_y"))));
    edit(&mut ruleset, "eg4", pod.clone(), Some(Value::Verdict(Verdict::Return)));
    edit(&mut ruleset, "s4_web", pod, Some(Value::Member));
    edit(&mut ruleset, "r4_ops", Key::Range(ip("240.0.0.0"), ip("255.255.255.255")), None);
    edit(&mut ruleset, "r4_ops", Key::Range(ip("192.0.2.200"), ip("192.0.2.200")), None);
    edit(
        &mut ruleset,
        "c_bi4_x",
        Key::Address(ip("198.51.100.8")),
        Some(Value::Until(Deadline(4_000_000_000_123))),
    );
    edit(
        &mut ruleset,
        "c_bi4_x",
        Key::Address(ip("198.51.100.9")),
        Some(Value::Until(Deadline(4_000_000_000_000))),
    );
    ruleset.chains.insert(chain("i4_y"), Arc::new(Chain { base: None, rules: tail("i4_y") }));
    ruleset
}

//! The chains and sets that are always there, whoever is governed: what passes, who is asked, what is kept shut.
use std::collections::BTreeMap;

use podwall_ruleset::{
    Base, Chain, ChainName, ConnState, Count, Effect, Family, Hook, LinkName, Lookup, Match, Outcome,
    Protocol, Rule, SetName, SetSpec, Shape, Side, Verdict,
};

use crate::compile::names;
use crate::compile::policy_chain::{deny_tail, rule};
use crate::model::Direction;
use crate::options::{Options, SpoofGuard};

/// `NF_IP_PRI_FILTER - 1`: after destination NAT (-100), before other filters, before source NAT.
const PRIORITY: i32 = -1;

/// What the fixed part depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseRequest {
    /// Declared size of the IPv4 verdict maps.
    pub size4: u32,
    /// Declared size of the IPv6 verdict maps.
    pub size6: u32,
    /// The chain `strays` drops.
    pub grace_over: bool,
}

impl BaseRequest {
    /// Declared size of a family's maps.
    pub const fn size(&self, family: Family) -> u32 {
        match family {
            Family::V4 => self.size4,
            Family::V6 => self.size6,
        }
    }
}

/// The declared size that serves so many local pods: a fixed hash is 2x faster to load and 140 ns faster to ask, but
/// every validation walks its buckets (`nftables.md` 2.2), so it grows in large steps and starts small.
pub fn map_size(pods: usize) -> u32 {
    [1024, 4096, 16384, 65536].into_iter().find(|size| pods <= (*size as usize) / 2).unwrap_or(1 << 18)
}

/// Every fixed set, empty.
pub fn sets(request: &BaseRequest) -> BTreeMap<SetName, SetSpec> {
    let mut sets = BTreeMap::new();
    for family in Family::BOTH {
        for direction in Direction::BOTH {
            let size = request.size(family);
            let spec = SetSpec { shape: Shape::Verdicts(family), size: Some(size) };
            sets.insert(names::verdicts(direction, family, size), spec);
        }
        let open = |shape| SetSpec { shape, size: None };
        sets.insert(names::hairpin(family), open(Shape::Pairs(family)));
        sets.insert(names::local(family), open(Shape::Ranges(family)));
        sets.insert(names::recheck_set(family), open(Shape::Addresses(family)));
        sets.insert(names::meter(family), SetSpec { shape: Shape::Meter(family), size: Some(65536) });
    }
    sets.insert(names::pod_links(), SetSpec { shape: Shape::Links, size: None });
    sets.insert(names::guarded_links(), SetSpec { shape: Shape::Links, size: None });
    sets
}

/// Every fixed chain.
pub fn chains(request: &BaseRequest, options: &Options) -> BTreeMap<ChainName, Chain> {
    let regular = |rules| Chain { base: None, rules };
    BTreeMap::from([
        (names::forward(), forward()),
        (names::input(), input()),
        (names::recheck(), regular(Vec::new())),
        (names::judge(), regular(judge())),
        (names::guard(), regular(guard(options))),
        (names::egress(), regular(dispatch(Direction::Egress, request))),
        (names::ingress(), regular(dispatch(Direction::Ingress, request))),
        (names::strays(), regular(strays(request))),
        (names::pending(), regular(shut(&names::pending(), options))),
        (names::forged(), regular(shut(&names::forged(), options))),
        (names::refused(), regular(shut(&names::refused(), options))),
    ])
}

/// Everything routed or bridged through the node. Node to pod does not come by here: it is always open (H2).
fn forward() -> Chain {
    let at = names::forward();
    let mut rules = passing(&at);
    for (purpose, next) in
        [("guard", names::guard()), ("egress", names::egress()), ("ingress", names::ingress())]
    {
        rules.push(jump(&at, purpose, next));
    }
    Chain { base: Some(Base { hook: Hook::Forward, priority: PRIORITY }), rules }
}

/// What ends on the node: only pods are judged, by their egress (H5, L3).
fn input() -> Chain {
    let at = names::input();
    let mut rules = passing(&at);
    if let Ok(loopback) = LinkName::new("lo") {
        let own = vec![Match::InputLink(loopback)];
        rules.push(rule(names::own_rule(&at, "loopback"), own, Verdict::Accept.plain()));
    }
    rules.push(jump(&at, "guard", names::guard()));
    rules.push(jump(&at, "egress", names::egress()));
    Chain { base: Some(Base { hook: Hook::Input, priority: PRIORITY }), rules }
}

/// L1: established flows, ICMP errors of a flow (F2), and neighbour discovery and MLD (F7) pass before any judging.
fn passing(at: &ChainName) -> Vec<Rule> {
    let accept =
        |purpose: &str, matches| rule(names::own_rule(at, purpose), matches, Verdict::Accept.plain());
    let related = |protocol| vec![Match::State(vec![ConnState::Related]), Match::Protocol(protocol)];
    vec![
        jump(at, "recheck", names::recheck()),
        accept("established", vec![Match::State(vec![ConnState::Established])]),
        accept("icmp errors", related(Protocol::ICMP)),
        accept("icmpv6 errors", related(Protocol::ICMPV6)),
        accept("neighbour discovery", vec![Match::Icmpv6Type(133, 137)]),
        accept("multicast listeners", vec![Match::Icmpv6Type(130, 132)]),
        accept("multicast listeners v2", vec![Match::Icmpv6Type(143, 143)]),
    ]
}

fn judge() -> Vec<Rule> {
    let at = names::judge();
    vec![jump(&at, "egress", names::egress()), jump(&at, "ingress", names::ingress())]
}

/// A source that is not routed back to where it came from is forged (L6). Only on interfaces of pods: transit is
/// not ours to filter (N1).
fn guard(options: &Options) -> Vec<Rule> {
    let at = names::guard();
    match options.spoof_guard {
        SpoofGuard::Off => Vec::new(),
        SpoofGuard::ReversePath => {
            let matches = vec![Match::In(Lookup::InputLink, names::pod_links()), Match::ReversePathMissing];
            vec![rule(names::own_rule(&at, "forged"), matches, Verdict::Goto(names::forged()).plain())]
        }
    }
}

/// By address to the pod's own chain; an address of ours without a verdict is shut while its range is armed (L7).
fn dispatch(direction: Direction, request: &BaseRequest) -> Vec<Rule> {
    let (at, side) = match direction {
        Direction::Ingress => (names::ingress(), Side::Destination),
        Direction::Egress => (names::egress(), Side::Source),
    };
    let mut rules = Vec::new();
    for family in Family::BOTH {
        let lookup = Lookup::Address(family, side);
        let map = names::verdicts(direction, family, request.size(family));
        let ask = Effect { count: Count::No, log: None, outcome: Outcome::Map(lookup, map) };
        rules.push(rule(names::own_rule(&at, &format!("ask{}", family.digit())), Vec::new(), ask));
    }
    for family in Family::BOTH {
        let armed = vec![Match::In(Lookup::Address(family, side), names::local(family))];
        let id = names::own_rule(&at, &format!("pending{}", family.digit()));
        rules.push(rule(id, armed, Verdict::Goto(names::pending()).plain()));
    }
    if direction == Direction::Egress {
        // Whatever an isolated pod calls itself (link-local, a second address), it is not a name we know.
        let unknown = vec![Match::In(Lookup::InputLink, names::guarded_links())];
        rules.push(rule(names::own_rule(&at, "unknown"), unknown, Verdict::Goto(names::forged()).plain()));
    }
    rules
}

/// Without these a flow that was cut comes back in the other direction through tcp_loose (L1).
fn strays(request: &BaseRequest) -> Vec<Rule> {
    let at = names::strays();
    let drop = |purpose: &str, matches| rule(names::own_rule(&at, purpose), matches, Verdict::Drop.counted());
    let mut rules = vec![drop("invalid", vec![Match::State(vec![ConnState::Invalid])])];
    if request.grace_over {
        let matches = vec![Match::State(vec![ConnState::New]), Match::TcpNotOpening];
        rules.push(drop("not opening", matches));
    }
    rules
}

fn shut(chain: &ChainName, options: &Options) -> Vec<Rule> {
    Family::BOTH.into_iter().flat_map(|family| deny_tail(chain, family, options)).collect()
}

fn jump(at: &ChainName, purpose: &str, next: ChainName) -> Rule {
    rule(names::own_rule(at, purpose), Vec::new(), Verdict::Jump(next).plain())
}

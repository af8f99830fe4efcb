//! The chains and sets that are always there, whoever is governed: what passes, who is asked, what is kept shut.
use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use podwall_ruleset::{
    Base, Chain, ChainName, ConnState, Count, Effect, Family, Hook, LinkName, Lookup, Match, Outcome,
    PortRange, Protocol, Rule, SetName, SetSpec, Shape, Side, Verdict,
};

use crate::compile::names;
use crate::compile::policy_chain::{deny_tail, rule};
use crate::model::Direction;
use crate::options::{Options, SpoofGuard};

/// `NF_IP_PRI_FILTER - 1`: after destination NAT (-100), before other filters, before source NAT.
const PRIORITY: i32 = -1;

/// `NF_IP_PRI_MANGLE - 1`: after conntrack (-200), before destination NAT (-100).
const ARRIVING: i32 = -151;

/// What the fixed part depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseRequest {
    /// Declared size of the IPv4 verdict maps.
    pub size4: u32,
    /// Declared size of the IPv6 verdict maps.
    pub size6: u32,
    /// The chain `strays` drops.
    pub grace_over: bool,
    /// What is asked beside policies.
    pub barriers: Barriers,
}

/// What is asked of every new packet beside the policies of pods. Where there is nothing to ask, no packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Barriers {
    /// Is somebody banned who might come?
    pub arrivals: bool,
    /// Is somebody banned to whom one might go?
    pub departures: bool,
    /// Is some door of a Service guarded?
    pub exposed: bool,
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
    for links in [names::pod_links(), names::guarded_links(), names::shared_links()] {
        sets.insert(links, SetSpec { shape: Shape::Links, size: None });
    }
    sets
}

/// Every fixed chain.
pub fn chains(request: &BaseRequest, options: &Options) -> BTreeMap<ChainName, Chain> {
    let regular = |rules| Chain { base: None, rules };
    let barriers = request.barriers;
    let mut chains = BTreeMap::from([
        (names::forward(), forward(barriers)),
        (names::input(), input()),
        (names::recheck(), regular(Vec::new())),
        (names::forward_v6(), regular(forward_v6())),
        (names::input_v6(), regular(input_v6())),
        (names::icmp_v6(), regular(icmp_v6())),
        (names::judge(), regular(judge())),
        (names::guard(), regular(guard(options))),
        (names::egress(), regular(dispatch(Direction::Egress, request))),
        (names::ingress(), regular(dispatch(Direction::Ingress, request))),
        (names::strays(), regular(strays(request))),
        (names::shared(), regular(shared(options))),
        (names::nameless(), regular(shut(&names::nameless(), options))),
        (names::pending(), regular(shut(&names::pending(), options))),
        (names::forged(), regular(shut(&names::forged(), options))),
        (names::refused(), regular(shut(&names::refused(), options))),
    ]);
    if barriers.arrivals || barriers.exposed {
        chains.insert(names::arriving(), arriving(barriers));
    }
    if barriers.departures {
        chains.insert(names::leaving(), leaving());
    }
    chains
}

/// Base chains that come and go with what they lead to.
pub fn passing_chains() -> [ChainName; 2] {
    [names::arriving(), names::leaving()]
}

/// Before destination NAT, so that a door is judged by its own number and its client's real address. Established
/// flows are cut once when a ban comes ([`crate::recheck`]) and not asked again.
fn arriving(barriers: Barriers) -> Chain {
    let at = names::arriving();
    let mut rules = admitted(&at).to_vec();
    if let Ok(loopback) = LinkName::new("lo") {
        rules.push(rule(
            names::own_rule(&at, "loopback"),
            vec![Match::InputLink(loopback)],
            Verdict::Accept.plain(),
        ));
    }
    if barriers.arrivals {
        rules.push(jump(&at, "bans", names::arrivals()));
    }
    if barriers.exposed {
        rules.push(jump(&at, "doors", names::exposed()));
    }
    Chain { base: Some(Base { hook: Hook::Prerouting, priority: ARRIVING }), rules }
}

/// What the node itself sends; what it sends to itself is nobody's to ban.
fn leaving() -> Chain {
    let at = names::leaving();
    let mut rules = admitted(&at).to_vec();
    // What a rejection of ours sends to the banned is related to his packet.
    let reset = vec![Match::Protocol(Protocol::TCP), Match::State(vec![ConnState::Related])];
    rules.push(rule(names::own_rule(&at, "resets"), reset, Verdict::Accept.plain()));
    rules.push(rule(names::own_rule(&at, "local"), vec![Match::Local], Verdict::Accept.plain()));
    rules.push(jump(&at, "bans", names::departures()));
    Chain { base: Some(Base { hook: Hook::Output, priority: PRIORITY }), rules }
}

/// Everything routed or bridged through the node. Node to pod does not come by here: it is always open (H2).
fn forward(barriers: Barriers) -> Chain {
    let at = names::forward();
    let mut rules = passing(&at, names::forward_v6()).to_vec();
    if barriers.departures {
        rules.push(jump(&at, "bans", names::departures()));
    }
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
    let mut rules = passing(&at, names::input_v6()).to_vec();
    if let Ok(loopback) = LinkName::new("lo") {
        let own = vec![Match::InputLink(loopback)];
        rules.push(rule(names::own_rule(&at, "loopback"), own, Verdict::Accept.plain()));
    }
    rules.push(jump(&at, "guard", names::guard()));
    rules.push(jump(&at, "egress", names::egress()));
    Chain { base: Some(Base { hook: Hook::Input, priority: PRIORITY }), rules }
}

/// What only IPv6 is asked, so that IPv4 is asked for its family once.
fn forward_v6() -> Vec<Rule> {
    let at = names::forward_v6();
    let old = [Side::Source, Side::Destination]
        .map(|side| old_link_local(&at, side, &[on_shared_link()], &names::nameless()));
    [old.concat(), vec![to_icmp_v6(&at)]].concat()
}

fn input_v6() -> Vec<Rule> {
    let at = names::input_v6();
    // The other direction of such a flow is one that the node opened (H2).
    let old = [(on_shared_link(), names::nameless()), (on_guarded_link(), names::forged())];
    let old = old.map(|(on_link, next)| {
        old_link_local(&at, Side::Source, &[Match::OriginalDirection, on_link], &next)
    });
    [old.concat(), vec![to_icmp_v6(&at)]].concat()
}

fn to_icmp_v6(at: &ChainName) -> Rule {
    let icmp_v6 = vec![Match::Protocol(Protocol::ICMPV6)];
    rule(names::own_rule(at, "icmpv6"), icmp_v6, Verdict::Jump(names::icmp_v6()).plain())
}

/// A link-local address is nobody's by name, so when its pod is isolated no recheck finds the flows it has: they are
/// asked what a new one is asked, for ever.
fn old_link_local(at: &ChainName, side: Side, more: &[Match], next: &ChainName) -> Vec<Rule> {
    let old = |network| {
        let matches = [&[Match::Prefix(side, network), established()], more].concat();
        let id = names::own_rule(at, &format!("old link-local {side:?} {next}"));
        rule(id, matches, Verdict::Goto(next.clone()).plain())
    };
    network("fe80::/10").map(old).collect()
}

/// L1: established flows, ICMP errors of a flow (F2), and what keeps a link alive (F7) pass before any judging, but
/// for what `six` shuts first.
fn passing(at: &ChainName, six: ChainName) -> [Rule; 3] {
    let own = |purpose: &str, matches, verdict: Verdict| {
        rule(names::own_rule(at, purpose), matches, verdict.plain())
    };
    [
        own("ipv6", vec![Match::Family(Family::V6)], Verdict::Jump(six)),
        // Falling off the end of `recheck` is as good as an accept here, and no new packet has to look into it.
        own("established", vec![established()], Verdict::Goto(names::recheck())),
        icmp_errors(at),
    ]
}

/// What no ban and no door is asked about.
fn admitted(at: &ChainName) -> [Rule; 3] {
    let accepted = rule(names::own_rule(at, "established"), vec![established()], Verdict::Accept.plain());
    [accepted, icmp_errors(at), to_icmp_v6(at)]
}

fn icmp_errors(at: &ChainName) -> Rule {
    let errors = vec![Match::Protocol(Protocol::ICMP), Match::State(vec![ConnState::Related])];
    rule(names::own_rule(at, "icmp errors"), errors, Verdict::Accept.plain())
}

fn established() -> Match {
    Match::State(vec![ConnState::Established])
}

/// What passes of ICMPv6; a chain of its own, so that every other packet is asked once and not for each type.
fn icmp_v6() -> Vec<Rule> {
    let at = names::icmp_v6();
    let accept =
        |purpose: &str, matches| rule(names::own_rule(&at, purpose), matches, Verdict::Accept.plain());
    let mut rules = vec![accept("errors", vec![Match::State(vec![ConnState::Related])])];
    rules.extend(on_link().into_iter().map(|(purpose, matches)| accept(&purpose, matches)));
    rules
}

/// Neighbour discovery and listener discovery, as far as they are a link's own: the kernel forwards any ICMPv6 to
/// any address, so by type alone they carry whatever a pod wants to wherever it wants (both ways, past both ends'
/// policies). Neighbour discovery comes with a hop limit of 255 (RFC 4861, 7.1), which no router leaves at that.
/// Listener discovery comes from a link-local address or from none yet (RFC 3590), which no router forwards.
fn on_link() -> Vec<(String, Vec<Match>)> {
    let mut found =
        vec![("neighbour discovery".to_owned(), vec![Match::Icmpv6Type(133, 137), Match::HopLimit(255)])];
    for (first, last) in [(130, 132), (143, 143)] {
        for source in network("fe80::/10").chain(network("::/128")) {
            let purpose = format!("listeners {first} from {source}");
            let matches = vec![Match::Icmpv6Type(first, last), Match::Prefix(Side::Source, source)];
            found.push((purpose, matches));
        }
    }
    found
}

fn on_shared_link() -> Match {
    Match::In(Lookup::InputLink, names::shared_links())
}

/// Asked last, of what is to or from no pod by name; what is established is asked before it passes, or not at all.
fn first_on_shared_link() -> [Match; 2] {
    let first = vec![ConnState::New, ConnState::Related, ConnState::Invalid, ConnState::Untracked];
    [Match::State(first), on_shared_link()]
}

fn on_guarded_link() -> Match {
    Match::In(Lookup::InputLink, names::guarded_links())
}

/// A literal of this file; the tests below prove each of them good.
fn network(text: &str) -> impl Iterator<Item = IpNetwork> + use<> {
    text.parse().into_iter()
}

/// Between pods on one bridge, what is to no pod by name: their link-local addresses, which nobody tells us and every
/// pod answers at, and what is sent to all of them at once. No policy could speak of it, and it would reach the
/// isolated ones too. DHCP, by which a pod gets its name, passes.
fn shared(options: &Options) -> Vec<Rule> {
    let at = names::shared();
    let mut rules = Vec::new();
    let everybody = network("255.255.255.255/32").map(|all| Match::Prefix(Side::Destination, all));
    for (all, ports) in everybody.zip(PortRange::new(67, 68)) {
        let matches = vec![Match::Port(Protocol::UDP, ports), all];
        rules.push(rule(names::own_rule(&at, "dhcp"), matches, Verdict::Return.plain()));
    }
    let shut = |purpose: &str, matches| {
        rule(names::own_rule(&at, purpose), matches, Verdict::Goto(names::nameless()).plain())
    };
    for text in ["fe80::/10", "ff00::/8", "224.0.0.0/4"] {
        for prefix in network(text) {
            rules.push(shut(&format!("to {text}"), vec![Match::Prefix(Side::Destination, prefix)]));
        }
    }
    match options.spoof_guard {
        SpoofGuard::Off => {}
        SpoofGuard::ReversePath => rules.push(shut("broadcast", vec![Match::Broadcast])),
    }
    rules
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
    rules.extend(match direction {
        Direction::Ingress => unnamed_receivers(&at),
        Direction::Egress => unnamed_senders(&at),
    });
    rules
}

/// Whatever an isolated pod calls itself (link-local, a second address), it is not a name we know. On a bridge
/// nothing tells whose link-local address it is.
fn unnamed_senders(at: &ChainName) -> Vec<Rule> {
    let unknown = Verdict::Goto(names::forged()).plain();
    let mut rules = vec![rule(names::own_rule(at, "unknown"), vec![on_guarded_link()], unknown)];
    for network in network("fe80::/10") {
        let mut matches = vec![Match::Prefix(Side::Source, network)];
        matches.extend(first_on_shared_link());
        let nameless = Verdict::Goto(names::nameless()).plain();
        rules.push(rule(names::own_rule(at, "link-local"), matches, nameless));
    }
    rules
}

/// Behind the maps, where only packets to unknown addresses come by.
fn unnamed_receivers(at: &ChainName) -> Vec<Rule> {
    let shared = Verdict::Jump(names::shared()).plain();
    vec![rule(names::own_rule(at, "shared"), first_on_shared_link().to_vec(), shared)]
}

/// Without these a flow that was cut comes back in the other direction: TCP through tcp_loose (L1), SCTP by the
/// HEARTBEAT that its far end sends every 30 seconds (`sctp_new`).
fn strays(request: &BaseRequest) -> Vec<Rule> {
    let at = names::strays();
    let drop = |purpose: &str, matches| rule(names::own_rule(&at, purpose), matches, Verdict::Drop.counted());
    let mut rules = vec![drop("invalid", vec![Match::State(vec![ConnState::Invalid])])];
    if request.grace_over {
        let matches = vec![Match::TcpNotOpening, Match::State(vec![ConnState::New])];
        rules.push(drop("not opening", matches));
        let matches = vec![Match::SctpNotOpening, Match::State(vec![ConnState::New])];
        rules.push(drop("not initial", matches));
    }
    rules
}

fn shut(chain: &ChainName, options: &Options) -> Vec<Rule> {
    Family::BOTH.into_iter().flat_map(|family| deny_tail(chain, family, options)).collect()
}

fn jump(at: &ChainName, purpose: &str, next: ChainName) -> Rule {
    rule(names::own_rule(at, purpose), Vec::new(), Verdict::Jump(next).plain())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_literal_of_this_file_is_good() {
        let request =
            BaseRequest { size4: 1024, size6: 1024, grace_over: true, barriers: Barriers::default() };
        let chains = chains(&request, &Options::default());
        let rules = |name: ChainName| chains.get(&name).map(|chain| chain.rules.len());
        assert_eq!((rules(names::shared()), on_link().len()), (Some(5), 5));
        assert_eq!((rules(names::forward()), rules(names::input())), (Some(6), Some(6)));
        assert_eq!((rules(names::forward_v6()), rules(names::input_v6())), (Some(3), Some(3)));
        assert_eq!((rules(names::egress()), rules(names::ingress())), (Some(6), Some(5)));
    }
}

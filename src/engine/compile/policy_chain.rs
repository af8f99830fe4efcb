//! One chain for all pods governed by the same policies in one direction and family.
//!
//! A policy-set chain returns what it allows and drops what it denies, in both directions: a packet both ends allow
//! falls off the end of the base chain, and two chains in series are their intersection, which the stager needs.
//! Tiers follow each other inside the chain (policy-semantics section 12): admin rules in order, then either the
//! union of NetworkPolicy accepts and the deny tail, or the baseline rules in order.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use podwall_ruleset::{
    Chain, ChainName, ConnState, Count, Digest, Effect, Family, Key, Log, Lookup, Match, Meter, Outcome,
    PortRange, Protocol, Rule, RuleId, Set, SetName, SetSpec, Shape, Side, Value, Verdict,
};

use crate::compile::names;
use crate::intervals::Intervals;
use crate::model::ban::Mode;
use crate::model::port::FEW_PORTS;
use crate::model::{Action, Direction, IpBlock, NameList, Peer, Peers, Policy, PolicyRule, PortSpec, Ports};
use crate::options::{Learning, Options};
use crate::resolve::group::{Group, Holder};
use crate::resolve::{Governing, SubjectPorts};

/// Changes whenever the same policies compile to other rules than before, so that names keep following content.
const LAYOUT: &str = "2";

/// What decides the content of a chain.
#[derive(Debug, Clone, Copy)]
pub struct ChainRequest<'a> {
    /// Ingress chains match sources, egress chains destinations.
    pub direction: Direction,
    /// Addresses of one family only.
    pub family: Family,
    /// The policies; not empty.
    pub governing: &'a Governing,
    /// The subject's own named ports.
    pub subject_ports: &'a SubjectPorts,
}

/// A chain with everything it looks at.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Its name.
    pub name: ChainName,
    /// The chain, and those it leads to.
    pub chains: BTreeMap<ChainName, Chain>,
    /// Which of them only record and count what they would refuse.
    pub audits: BTreeSet<ChainName>,
    /// Groups it points to: their sets change with the cluster.
    pub groups: BTreeSet<Group>,
    /// Lists of names it asks for: what pods learn for them changes.
    pub lists: BTreeSet<NameList>,
    /// Sets it points to that never change.
    pub constants: BTreeMap<SetName, Set>,
}

/// What a compiled chain is called and does with what its policies do not allow.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) name: ChainName,
    pub(super) mode: Mode,
}

impl ChainRequest<'_> {
    /// The name: a digest of all that decides the content, so it can be known without compiling.
    pub fn name(&self) -> ChainName {
        self.named(self.letter(), "")
    }

    const fn letter(&self) -> &'static str {
        match self.direction {
            Direction::Ingress => "i",
            Direction::Egress => "e",
        }
    }

    /// How names of chains that refuse begin.
    pub(super) fn prefix(&self) -> String {
        format!("{}{}", self.letter(), self.family.digit())
    }

    pub(super) fn named(&self, letters: &str, part: &str) -> ChainName {
        let mut parts = vec![LAYOUT.to_owned(), part.to_owned(), self.direction.to_string()];
        for policy in self.governing.policies() {
            parts.extend([format!("{:?}", policy.id.tier), policy.digest.to_string()]);
        }
        for (name, protocol, numbers) in self.subject_ports {
            parts.extend([name.to_string(), protocol.to_string(), format!("{numbers:?}")]);
        }
        ChainName::of_content(&format!("{letters}{}", self.family.digit()), Digest::of(parts))
    }

    /// The chain itself.
    pub fn compile(&self, options: &Options) -> Compiled {
        let part = Part { name: self.name(), mode: Mode::Enforce };
        self.compile_next(part, self.named(self.letter(), "after admin"), options)
    }

    /// The same under another name, or only recording what it would refuse.
    pub(super) fn compile_as(&self, part: Part, options: &Options) -> Compiled {
        let next = match part.mode {
            Mode::Enforce => self.prefix(),
            Mode::Audit => format!("{}{}", names::audit_prefix(self.direction), self.family.digit()),
        };
        let next = ChainName::of_content(&next, Digest::of(["after admin", part.name.as_str()]));
        self.compile_next(part, next, options)
    }

    fn compile_next(&self, Part { name, mode }: Part, next: ChainName, options: &Options) -> Compiled {
        let mut builder = Builder {
            request: self,
            options,
            mode,
            groups: BTreeSet::new(),
            lists: BTreeSet::new(),
            constants: BTreeMap::new(),
        };
        let mut chains = BTreeMap::new();
        let tail = builder.after_admin(&name, options);
        let mut rules = match mode {
            Mode::Enforce => vec![names::strays_first(&name)],
            Mode::Audit => Vec::new(),
        };
        let passes = self.rules(&self.governing.admin).any(|rule| rule.action == Action::Pass);
        let pass = if passes { Verdict::Goto(next.clone()) } else { Verdict::Return };
        rules.extend(builder.ordered(&self.governing.admin, &name, &pass, options));
        if passes {
            rules.push(rule(names::own_rule(&name, "next tier"), Vec::new(), pass.plain()));
            chains.insert(next, Chain { base: None, rules: tail });
        } else {
            rules.extend(tail);
        }
        chains.insert(name.clone(), Chain { base: None, rules });
        let audits = match mode {
            Mode::Enforce => BTreeSet::new(),
            Mode::Audit => chains.keys().cloned().collect(),
        };
        let Builder { groups, lists, constants, .. } = builder;
        Compiled { name, chains, audits, groups, lists, constants }
    }

    fn rules<'p>(&self, policies: &'p [Arc<Policy>]) -> impl Iterator<Item = &'p PolicyRule> + use<'p> {
        let direction = self.direction;
        policies.iter().filter_map(move |policy| policy.rules(direction)).flatten()
    }

    /// The other end of the packet.
    const fn peer_side(&self) -> Side {
        match self.direction {
            Direction::Ingress => Side::Source,
            Direction::Egress => Side::Destination,
        }
    }
}

struct Builder<'r> {
    request: &'r ChainRequest<'r>,
    options: &'r Options,
    mode: Mode,
    groups: BTreeSet<Group>,
    lists: BTreeSet<NameList>,
    constants: BTreeMap<SetName, Set>,
}

impl Builder<'_> {
    /// Namespace tier for an isolated pod, else the baseline tier.
    fn after_admin(&mut self, chain: &ChainName, options: &Options) -> Vec<Rule> {
        let governing = self.request.governing;
        if governing.namespace.is_empty() {
            return self.ordered(&governing.baseline, chain, &Verdict::Return, options);
        }
        let mut rules = Vec::new();
        for allowed in self.request.rules(&governing.namespace) {
            let alternatives = self.alternatives(allowed);
            rules.extend(alternatives.into_iter().map(|m| rule(allowed.id, m, Verdict::Return.counted())));
        }
        // A pod that reaches itself through a Service is allowed by this tier, and by this tier only (H7, L4). What
        // was not sent to a Service is a neighbour's on the same bridge, with a forged source.
        let family = self.request.family;
        let hairpin = vec![Match::In(Lookup::Pair(family), names::hairpin(family)), Match::Translated];
        rules.push(rule(names::own_rule(chain, "hairpin"), hairpin, Verdict::Return.plain()));
        rules.extend(match self.mode {
            Mode::Enforce => deny_tail(chain, family, options),
            Mode::Audit => audit_tail(chain, family, options),
        });
        rules
    }

    /// Rules of a cluster tier: the first that matches decides (C11).
    fn ordered(
        &mut self,
        policies: &[Arc<Policy>],
        chain: &ChainName,
        pass: &Verdict,
        options: &Options,
    ) -> Vec<Rule> {
        let mut rules = Vec::new();
        for decided in self.request.rules(policies) {
            for matches in self.alternatives(decided) {
                match decided.action {
                    Action::Accept => rules.push(rule(decided.id, matches, Verdict::Return.counted())),
                    Action::Pass => rules.push(rule(decided.id, matches, pass.clone().counted())),
                    Action::Deny => rules.extend(self.denied(decided, matches, chain, options)),
                }
            }
        }
        rules
    }

    /// Recorded and dropped; or only recorded, and done with.
    fn denied(
        &self,
        decided: &PolicyRule,
        matches: Vec<Match>,
        chain: &ChainName,
        options: &Options,
    ) -> [Rule; 2] {
        let record = Effect {
            count: Count::Yes,
            log: Some(log(chain, self.request.family, options)),
            outcome: Outcome::Continue,
        };
        let (recorded, end) = match self.mode {
            Mode::Enforce => (matches.clone(), Verdict::Drop.counted()),
            Mode::Audit => {
                (matches.iter().cloned().chain([first_of_flow()]).collect(), Verdict::Return.plain())
            }
        };
        [rule(decided.id, recorded, record), rule(decided.id, matches, end)]
    }

    /// Every way to match the rule: one peer form with one port form each. A port is compared within 10 ns, a set is
    /// looked up within 50: the port comes first, unless it is looked up as well.
    fn alternatives(&mut self, rule: &PolicyRule) -> Vec<Vec<Match>> {
        let mut found = Vec::new();
        if let Some(ports) = self.numeric_ports(rule) {
            for peer in self.peers(&rule.peers) {
                found.extend(ports.iter().map(|port| match port {
                    Some(Match::In(..)) | None => peer.iter().chain(port).cloned().collect(),
                    Some(compared) => std::iter::once(compared).chain(&peer).cloned().collect(),
                }));
            }
        }
        if self.request.direction == Direction::Egress {
            found.extend(self.named_on_peers(rule));
            found.extend(self.dns_proxy(rule));
        }
        found
    }

    /// `None`: no numeric port can match.
    fn numeric_ports(&mut self, rule: &PolicyRule) -> Option<Vec<Option<Match>>> {
        let Ports::List(list) = &rule.ports else { return Some(vec![None]) };
        let mut ranges: BTreeMap<Protocol, Vec<PortRange>> = BTreeMap::new();
        for port in list {
            let numbers: Vec<PortRange> = match &port.port {
                PortSpec::Range(range) => vec![*range],
                PortSpec::Named(name) => self.subject_numbers(name, port.protocol),
                PortSpec::Never => Vec::new(),
            };
            ranges.entry(port.protocol).or_default().extend(numbers);
        }
        let merged: Vec<(Protocol, PortRange)> = ranges
            .into_iter()
            .flat_map(|(protocol, ranges)| merge(ranges).into_iter().map(move |range| (protocol, range)))
            .collect();
        match merged.len() {
            0 => None,
            1..=FEW_PORTS => Some(merged.into_iter().map(|(p, range)| Some(port_match(p, range))).collect()),
            _ => Some(vec![Some(Match::In(Lookup::Service, self.services(merged)))]),
        }
    }

    fn subject_numbers(&self, name: &str, protocol: Protocol) -> Vec<PortRange> {
        let resolved = self.request.subject_ports.iter();
        let own = resolved.filter(|(n, p, _)| &**n == name && *p == protocol);
        own.flat_map(|(_, _, numbers)| numbers).map(|number| PortRange::single(*number)).collect()
    }

    fn services(&mut self, ports: Vec<(Protocol, PortRange)>) -> SetName {
        let name = SetName::of_content("pt", Digest::of([format!("{ports:?}")]));
        let keys = ports.into_iter().map(|(protocol, range)| Key::Service(protocol, range));
        self.constant(&name, Shape::Services, keys);
        name
    }

    fn constant(&mut self, name: &SetName, shape: Shape, keys: impl Iterator<Item = Key>) {
        let mut set = Set::new(SetSpec { shape, size: None });
        for key in keys {
            // A plain set takes every plain key; there is nothing else to go wrong.
            let _ = set.insert(key, Value::Member);
        }
        self.constants.insert(name.clone(), set);
    }

    fn peers(&mut self, peers: &Peers) -> Vec<Vec<Match>> {
        let Peers::List(list) = peers else { return vec![Vec::new()] };
        let side = self.request.peer_side();
        let mut found: Vec<Vec<Match>> = Vec::new();
        for selector in list.iter().filter_map(Peer::selector) {
            let group = Group::Pods(selector.clone());
            let (set, _) = group.set(self.request.family);
            self.groups.insert(group);
            found.push(vec![Match::In(Lookup::Address(self.request.family, side), set)]);
        }
        found.extend(self.blocks(list.iter().filter_map(Peer::block)));
        found.extend(list.iter().filter_map(Peer::names).filter_map(|names| self.names(names)));
        found
    }

    /// Whatever the pod learned for the names, it and nobody else.
    fn names(&mut self, list: &NameList) -> Option<Vec<Match>> {
        match (self.request.direction, self.options.learning) {
            (Direction::Egress, Learning::Possible) => {}
            (Direction::Ingress, _) | (Direction::Egress, Learning::Impossible) => return None,
        }
        let (set, _) = list.set(self.request.family);
        self.lists.insert(list.clone());
        Some(vec![Match::In(Lookup::Pair(self.request.family), set)])
    }

    /// The way to the node's own proxy, by whatever ports it listens at.
    fn dns_proxy(&self, rule: &PolicyRule) -> Vec<Vec<Match>> {
        let Peers::List(list) = &rule.peers else { return Vec::new() };
        let Some(proxy) = self.options.dns_proxy.filter(|_| list.iter().any(|p| p.dns_proxy().is_some()))
        else {
            return Vec::new();
        };
        let network = IpNetwork::from(proxy.address(self.request.family));
        let to =
            |protocol| vec![Match::Port(protocol, proxy.ports), Match::Prefix(Side::Destination, network)];
        [Protocol::UDP, Protocol::TCP].map(to).to_vec()
    }

    /// All ipBlocks of a rule are one set of intervals, or no match at all if they are the whole family.
    fn blocks<'p>(&mut self, blocks: impl Iterator<Item = &'p IpBlock>) -> Option<Vec<Match>> {
        let (family, side) = (self.request.family, self.request.peer_side());
        let intervals = Intervals::of_blocks(family, blocks);
        if intervals.is_empty() {
            return None;
        }
        if intervals.is_everything() {
            return Some(Vec::new());
        }
        if let Some(network) = intervals.as_network() {
            return Some(vec![Match::Prefix(side, network)]);
        }
        let name = intervals.set_name();
        let keys: Vec<Key> = intervals.iter().map(|(first, last)| Key::Range(first, last)).collect();
        self.constant(&name, Shape::Ranges(family), keys.into_iter());
        Some(vec![Match::In(Lookup::Address(family, side), name)])
    }

    /// Named ports of an egress rule are the peers': address, protocol and number together (O5, O7, O8, O9).
    fn named_on_peers(&mut self, rule: &PolicyRule) -> Vec<Vec<Match>> {
        let Ports::List(list) = &rule.ports else { return Vec::new() };
        let mut found = Vec::new();
        for port in list {
            let PortSpec::Named(name) = &port.port else { continue };
            for holder in holders(&rule.peers) {
                let group = Group::NamedPort(holder, name.clone(), port.protocol);
                let (set, _) = group.set(self.request.family);
                self.groups.insert(group);
                let lookup = Lookup::Endpoint(self.request.family, self.request.peer_side());
                found.push(vec![Match::In(lookup, set)]);
            }
        }
        found
    }
}

/// Whose named ports an egress rule means.
fn holders(peers: &Peers) -> Vec<Holder> {
    let Peers::List(list) = peers else {
        return vec![Holder::Pods(crate::model::PeerSelector::everyone())];
    };
    let mut holders: Vec<Holder> =
        list.iter().filter_map(Peer::selector).cloned().map(Holder::Pods).collect();
    let mut blocks: Vec<IpBlock> = list.iter().filter_map(Peer::block).cloned().collect();
    if !blocks.is_empty() {
        blocks.sort();
        holders.push(Holder::Blocks(blocks));
    }
    holders
}

/// A protocol, and its port where not all of them are meant.
pub fn port_match(protocol: Protocol, range: PortRange) -> Match {
    if range == PortRange::ALL { Match::Protocol(protocol) } else { Match::Port(protocol, range) }
}

/// Sorted, disjoint, not touching: what an interval set takes.
pub fn merge(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort();
    let mut out: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let joined = out.last().filter(|last| range.first() <= last.last().saturating_add(1));
        match joined.and_then(|last| PortRange::new(last.first(), last.last().max(range.last()))) {
            Some(wider) => {
                out.pop();
                out.push(wider);
            }
            None => out.push(range),
        }
    }
    out
}

/// Count, record at a bounded rate for each source, drop in silence (L5, N8).
pub fn deny_tail(chain: &ChainName, family: Family, options: &Options) -> [Rule; 2] {
    let record =
        Effect { count: Count::No, log: Some(log(chain, family, options)), outcome: Outcome::Continue };
    let own = vec![Match::Family(family)];
    [
        rule(names::own_rule(chain, &format!("record{}", family.digit())), own.clone(), record),
        rule(names::own_rule(chain, &format!("deny{}", family.digit())), own, Verdict::Drop.counted()),
    ]
}

/// Record and count what a deny tail would drop. Established flows come by here only while some are judged again, and
/// were recorded when they began.
fn audit_tail(chain: &ChainName, family: Family, options: &Options) -> [Rule; 2] {
    let [mut record, _] = deny_tail(chain, family, options);
    record.matches.push(first_of_flow());
    let count = Effect { count: Count::Yes, log: None, outcome: Outcome::Continue };
    let audited = names::own_rule(chain, &format!("audited{}", family.digit()));
    let matches = record.matches.clone();
    [record, rule(audited, matches, count)]
}

fn first_of_flow() -> Match {
    Match::State(vec![ConnState::New, ConnState::Related, ConnState::Invalid, ConnState::Untracked])
}

fn log(chain: &ChainName, family: Family, options: &Options) -> Log {
    Log {
        group: options.log_group,
        prefix: format!("{}:{chain}:", names::LOG_PREFIX),
        snaplen: options.log_snaplen,
        meter: Meter {
            set: names::meter(family),
            key: Lookup::Address(family, Side::Source),
            rate: options.log_rate,
            burst: options.log_rate.saturating_mul(2),
        },
    }
}

/// A rule.
pub const fn rule(id: RuleId, matches: Vec<Match>, effect: Effect) -> Rule {
    Rule { id, matches, effect }
}

//! Bans in the kernel: who is asked before any destination NAT, and before anything leaves.
//!
//! One rule for each manner, family and way of holding addresses, however many addresses there are; the rule asks for
//! ports and interfaces first, so that an address's counter counts what its ban is about. What is wide goes by `w...`,
//! which spares the ports of administrators. A manner's tail `b...` records, counts, and refuses or not.
use std::collections::{BTreeMap, BTreeSet};

use podwall_ruleset::{
    Answer, Chain, ChainName, ConnState, Count, Digest, Effect, Family, Key, Lookup, Match, Outcome,
    PortRange, Protocol, Rule, Set, SetName, SetSpec, Shape, Side, Value, Verdict,
};

use crate::compile::names;
use crate::compile::policy_chain::{deny_tail, merge, port_match, rule};
use crate::model::ban::{BanAction, BanPort, Mode, Way};
use crate::model::port::FEW_PORTS;
use crate::options::{Options, Rejection};
use crate::resolve::bans::{Kind, Manner};

/// Which sets there are: those that hold something.
pub type Present = BTreeSet<(Manner, Family, Kind)>;

/// The rules that follow from it, but for the base chains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BanRules {
    /// Chains.
    pub chains: BTreeMap<ChainName, Chain>,
    /// Sets they look at that never change.
    pub constants: BTreeMap<SetName, Set>,
}

/// The set of a manner.
pub fn set(manner: &Manner, family: Family, kind: Kind) -> (SetName, SetSpec) {
    let growth = match manner.mode {
        Mode::Enforce => 'c',
        Mode::Audit => 'n',
    };
    let way = match manner.way {
        Way::In => 'i',
        Way::Out => 'o',
    };
    let (letter, shape) = match kind {
        Kind::Singles => ('b', Shape::Banned(family)),
        Kind::Blocks => ('r', Shape::BannedRanges(family)),
        Kind::Wide => ('w', Shape::BannedRanges(family)),
    };
    let name = SetName::of_content(&format!("{growth}_{letter}{way}{}", family.digit()), digest(manner));
    (name, SetSpec { shape, size: None })
}

/// The chain that refuses, or only records, what a manner is about.
pub fn tail(manner: &Manner, family: Family) -> ChainName {
    ChainName::of_content(&format!("b{}", family.digit()), digest(manner))
}

fn digest(manner: &Manner) -> Digest {
    Digest::of([format!("{manner:?}")])
}

/// What the kernel takes: a manner whose chains it refuses cannot be enforced, and shall not keep others from being.
pub fn enforceable(present: &Present, refused: &BTreeSet<ChainName>) -> Present {
    let taken = |(manner, family, _): &&(Manner, Family, Kind)| !is_refused(manner, *family, refused);
    present.iter().filter(taken).cloned().collect()
}

/// Is a chain of the manner among the refused?
pub fn is_refused(manner: &Manner, family: Family, refused: &BTreeSet<ChainName>) -> bool {
    [tail(manner, family), sparing_chain(manner, family)].iter().any(|chain| refused.contains(chain))
}

fn sparing_chain(manner: &Manner, family: Family) -> ChainName {
    ChainName::of_content(&format!("w{}", family.digit()), digest(manner))
}

/// Everything about bans but the base chains that lead to it.
pub fn rules(present: &Present, options: &Options) -> BanRules {
    let mut found = BanRules::default();
    let mut asked: BTreeMap<ChainName, Vec<Rule>> = BTreeMap::new();
    for way in [Way::In, Way::Out] {
        if cuts(present, way) {
            asked.insert(names::bans(way.opposite()), stray(way.opposite()));
        }
    }
    for (manner, family, kind) in present {
        let maker = Maker { manner, family: *family, kind: *kind, way: manner.way, options };
        asked.entry(names::bans(manner.way)).or_default().extend(maker.asking(&mut found.constants));
        if manner.mode == Mode::Enforce {
            let revived = names::revived(manner.way.opposite());
            asked.entry(revived).or_default().extend(maker.reviving(&mut found.constants));
        }
        found.chains.insert(tail(manner, *family), Chain { base: None, rules: maker.tail() });
        if *kind == Kind::Wide {
            found.chains.insert(maker.sparing_chain(), Chain { base: None, rules: maker.sparing() });
        }
    }
    found.chains.extend(asked.into_iter().map(|(name, rules)| (name, Chain { base: None, rules })));
    found
}

/// What is asked because of these.
pub fn barriers(present: &Present) -> (bool, bool) {
    let any =
        |way: Way| present.iter().any(|(manner, ..)| manner.way == way) || cuts(present, way.opposite());
    (any(Way::In), any(Way::Out))
}

/// Do open flows of some banned one end?
fn cuts(present: &Present, way: Way) -> bool {
    present.iter().any(|(manner, ..)| (manner.way, manner.mode) == (way, Mode::Enforce))
}

/// A flow that was cut comes back when the other end than the one that opened it speaks first: its packet looks like
/// the first of a flow the allowed way (`tcp_loose`; HEARTBEATs of SCTP), and what the other then sends is a reply.
/// What opens a connection in earnest looks otherwise.
fn stray(way: Way) -> Vec<Rule> {
    let at = names::bans(way);
    let ask = |purpose: &str, question: Match| {
        let matches = vec![question, Match::State(vec![ConnState::New])];
        rule(names::own_rule(&at, purpose), matches, Verdict::Jump(names::revived(way)).plain())
    };
    vec![ask("stray tcp", Match::TcpNotOpening), ask("stray sctp", Match::SctpNotOpening)]
}

struct Maker<'a> {
    manner: &'a Manner,
    family: Family,
    kind: Kind,
    /// Which way packets are looked at.
    way: Way,
    options: &'a Options,
}

impl Maker<'_> {
    fn asking(&self, constants: &mut BTreeMap<SetName, Set>) -> Vec<Rule> {
        let at = names::bans(self.manner.way);
        let links = self.links(constants);
        let (set, _) = set(self.manner, self.family, self.kind);
        let rules = self.ports(constants).into_iter().enumerate().map(|(index, ports)| {
            let id = names::own_rule(&at, &format!("{set} {index}"));
            let mut matches: Vec<Match> = links.iter().cloned().chain(ports).collect();
            let next = match self.kind {
                Kind::Wide => {
                    matches.insert(0, Match::Family(self.family));
                    Verdict::Jump(self.sparing_chain())
                }
                Kind::Singles | Kind::Blocks => {
                    matches.push(self.banned());
                    self.to_tail()
                }
            };
            rule(id, matches, next.plain())
        });
        rules.collect()
    }

    /// The same the other way round, for what the other end says in a flow that is banned.
    fn reviving(&self, constants: &mut BTreeMap<SetName, Set>) -> Vec<Rule> {
        let reverse = Self { way: self.way.opposite(), ..*self };
        let at = names::revived(reverse.way);
        let side = match reverse.way {
            Way::In => Side::Source,
            Way::Out => Side::Destination,
        };
        let (set, _) = set(self.manner, self.family, self.kind);
        let links = reverse.links(constants);
        let banned = Match::In(Lookup::Address(self.family, side), set.clone());
        let rules = reverse.ports(constants).into_iter().enumerate().map(|(index, ports)| {
            let id = names::own_rule(&at, &format!("{set} {index}"));
            let matches = links.iter().cloned().chain(ports).chain([banned.clone()]);
            rule(id, matches.collect(), Verdict::Drop.counted())
        });
        rules.collect()
    }

    fn banned(&self) -> Match {
        let side = match self.manner.way {
            Way::In => Side::Source,
            Way::Out => Side::Destination,
        };
        Match::In(Lookup::Address(self.family, side), set(self.manner, self.family, self.kind).0)
    }

    fn to_tail(&self) -> Verdict {
        let tail = tail(self.manner, self.family);
        match self.manner.mode {
            Mode::Enforce => Verdict::Goto(tail),
            Mode::Audit => Verdict::Jump(tail),
        }
    }

    /// What is asked of interfaces.
    fn links(&self, constants: &mut BTreeMap<SetName, Set>) -> Option<Match> {
        let links = self.manner.links.as_ref()?;
        let name = SetName::of_content("l", Digest::of(links.iter().map(|link| link.as_str())));
        constants.insert(name.clone(), constant(Shape::Links, links.iter().cloned().map(Key::Link)));
        let lookup = match self.way {
            Way::In => Lookup::InputLink,
            Way::Out => Lookup::OutputLink,
        };
        Some(Match::In(lookup, name))
    }

    /// Every way to match the ports.
    fn ports(&self, constants: &mut BTreeMap<SetName, Set>) -> Vec<Vec<Match>> {
        let Some(ports) = &self.manner.ports else { return vec![Vec::new()] };
        let mut found = Vec::new();
        let mut to: BTreeMap<Protocol, Vec<PortRange>> = BTreeMap::new();
        for port in ports {
            match self.ends(port) {
                (None, Some(range)) => to.entry(port.protocol).or_default().push(range),
                (None, None) => found.push(vec![Match::Protocol(port.protocol)]),
                (Some(from), None) => found.push(vec![Match::SourcePort(port.protocol, from)]),
                (Some(from), Some(range)) => found
                    .push(vec![Match::SourcePort(port.protocol, from), Match::Port(port.protocol, range)]),
            }
        }
        let merged: Vec<(Protocol, PortRange)> = to
            .into_iter()
            .flat_map(|(protocol, ranges)| merge(ranges).into_iter().map(move |range| (protocol, range)))
            .collect();
        if merged.len() <= FEW_PORTS {
            found.extend(merged.into_iter().map(|(protocol, range)| vec![port_match(protocol, range)]));
        } else {
            let name = SetName::of_content("pt", Digest::of([format!("{merged:?}")]));
            let keys = merged.into_iter().map(|(protocol, range)| Key::Service(protocol, range));
            constants.insert(name.clone(), constant(Shape::Services, keys));
            found.push(vec![Match::In(Lookup::Service, name)]);
        }
        found
    }

    /// Source and destination port.
    const fn ends(&self, port: &BanPort) -> (Option<PortRange>, Option<PortRange>) {
        match self.way {
            Way::In => (port.remote, port.local),
            Way::Out => (port.local, port.remote),
        }
    }

    fn sparing_chain(&self) -> ChainName {
        sparing_chain(self.manner, self.family)
    }

    /// Administrators and the cluster come in by these, so a wide ban leaves them open to the node itself.
    fn sparing(&self) -> Vec<Rule> {
        let at = self.sparing_chain();
        let spared = self.options.management_ports.iter().map(|(protocol, ports)| {
            let id = names::own_rule(&at, &format!("spared {protocol} {ports}"));
            rule(id, vec![Match::Local, port_match(*protocol, *ports)], Verdict::Return.plain())
        });
        let banned = rule(names::own_rule(&at, "banned"), vec![self.banned()], self.to_tail().plain());
        spared.chain([banned]).collect()
    }

    /// Records at a bounded rate for each source, counts, and refuses unless only audited.
    fn tail(&self) -> Vec<Rule> {
        let at = tail(self.manner, self.family);
        let [record, drop] = deny_tail(&at, self.family, self.options);
        let own = |purpose: &str, matches, effect| {
            rule(names::own_rule(&at, &format!("{purpose}{}", self.family.digit())), matches, effect)
        };
        let action = match self.options.rejection {
            Rejection::Told => self.manner.action,
            Rejection::Silent => BanAction::Drop,
        };
        match (self.manner.mode, action) {
            (Mode::Audit, BanAction::Drop | BanAction::Reject) => {
                let count = Effect { count: Count::Yes, log: None, outcome: Outcome::Continue };
                vec![record, own("audited", vec![Match::Family(self.family)], count)]
            }
            (Mode::Enforce, BanAction::Drop) => vec![record, drop],
            (Mode::Enforce, BanAction::Reject) => vec![
                record,
                own("reset", vec![Match::Protocol(Protocol::TCP)], Verdict::Reject(Answer::Reset).counted()),
                own("prohibited", Vec::new(), Verdict::Reject(Answer::Prohibited).counted()),
            ],
        }
    }
}

fn constant(shape: Shape, keys: impl Iterator<Item = Key>) -> Set {
    let mut set = Set::new(SetSpec { shape, size: None });
    for key in keys {
        // A plain set takes every plain key; there is nothing else to go wrong.
        let _ = set.insert(key, Value::Member);
    }
    set
}

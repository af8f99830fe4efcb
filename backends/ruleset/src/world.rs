//! Random rulesets of podwall's own layout, for the property tests: a handful of pods, sets and policies, so that
//! everything that can collide does. A world is a list of small numbers; changing one changes one thing.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::LazyLock;

use proptest::prelude::*;

use crate::ids::{ChainName, Digest, LinkName, RuleId, SetName};
use crate::matching::{ConnState, Family, Lookup, Match, PortRange, Protocol, Side};
use crate::packet::{Packet, Transport};
use crate::ruleset::{Base, Chain, Hook, Rule, Ruleset};
use crate::set::{Key, SetSpec, Shape, Value};
use crate::verdict::{Count, Effect, Log, Meter, Outcome, Verdict};
use crate::{Delta, Recorder};

/// Four IPv4 pods (the last one remote) and two IPv6 pods.
pub(crate) const PODS: usize = 6;
const SELECTORS: usize = 3;
const POLICIES: u8 = 6;
/// The least seat that is audited and not merely open.
const AUDITED: u8 = 131;

const MEMBERS: usize = 0;
const ENDPOINTS: usize = MEMBERS + SELECTORS * PODS;
const INGRESS: usize = ENDPOINTS + PODS;
const EGRESS: usize = INGRESS + PODS;
const SELF: usize = EGRESS + PODS;
const RECHECKED: usize = SELF + PODS;
const LINKS: usize = RECHECKED + PODS;
const POD_LINKS: usize = LINKS + 2;
const LOCAL: usize = POD_LINKS + 2;
const MAP_SIZE: usize = LOCAL + 1;
const STRAYS: usize = MAP_SIZE + 1;
const RECHECK: usize = STRAYS + 1;
const INPUT: usize = RECHECK + 1;
const REMADE: usize = INPUT + 1;
const SLOTS: usize = REMADE + 1;

/// Everything about a node that the tests vary.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct World([u8; SLOTS]);

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", crate::text::nft_listing(&self.ruleset()))
    }
}

/// A change of one slot.
pub(crate) type Change = (usize, u8);

pub(crate) fn any_world() -> impl Strategy<Value = World> {
    // Sets are remade by changes on top only, or nearly every case would remake one.
    proptest::collection::vec(any::<u8>(), SLOTS).prop_map(|slots| {
        let mut world = World([0; SLOTS]);
        world.0.copy_from_slice(&slots);
        world.0[REMADE] = 0;
        world
    })
}

/// Changes of any kind.
pub(crate) fn any_changes() -> impl Strategy<Value = Vec<Change>> {
    proptest::collection::vec((0..SLOTS, any::<u8>()), 0..10)
}

/// Other policies for some pods, or none, or one that only audits.
pub(crate) fn seat_changes() -> impl Strategy<Value = Vec<Change>> {
    let seat = prop_oneof![2 => Just(1_u8), 1 => Just(AUDITED), 6 => 4..4 + POLICIES];
    proptest::collection::vec((INGRESS..SELF, seat), 1..8)
}

/// One or two seats, and fixed chains with them.
pub(crate) fn fixed_changes() -> impl Strategy<Value = Vec<Change>> {
    let fixed = prop_oneof![Just(MAP_SIZE), Just(STRAYS), Just(RECHECK), Just(INPUT)];
    let changes = |slot| (Just(slot), any::<u8>());
    let seats = proptest::collection::vec((INGRESS..SELF, any::<u8>()), 1..3);
    let fixed = proptest::collection::vec(fixed.prop_flat_map(changes), 1..3);
    (seats, fixed).prop_map(|(seats, fixed)| [seats, fixed].concat())
}

/// One pod's memberships in address sets.
pub(crate) fn group_changes() -> impl Strategy<Value = Vec<Change>> {
    pod_changes(SELECTORS)
}

/// One pod's memberships in address sets, and its named port.
pub(crate) fn membership_changes() -> impl Strategy<Value = Vec<Change>> {
    pod_changes(SELECTORS + 1)
}

fn pod_changes(sets: usize) -> impl Strategy<Value = Vec<Change>> {
    (0..PODS, proptest::collection::vec((0..sets, any::<u8>()), 1..6)).prop_map(|(pod, changes)| {
        changes.into_iter().map(|(set, value)| (MEMBERS + set * PODS + pod, value)).collect()
    })
}

impl World {
    pub(crate) fn changed(&self, changes: &[Change]) -> Self {
        let mut world = self.clone();
        for (slot, value) in changes {
            world.0[*slot] = *value;
        }
        world
    }

    /// Every address has a seat that is a chain or open: nothing is unknown.
    pub(crate) fn seated(&self) -> Self {
        let mut world = self.clone();
        for seat in &mut world.0[INGRESS..SELF] {
            *seat = match *seat % (4 + POLICIES) {
                seat @ 4.. => seat,
                _ if is_audited(*seat) => AUDITED,
                _ => 1,
            };
        }
        world
    }

    /// Two policies for all, so that what a seat changes to mostly stands already.
    pub(crate) fn crowded(&self) -> Self {
        let mut world = self.clone();
        for seat in &mut world.0[INGRESS..SELF] {
            *seat = [1, 5, 6][usize::from(*seat % 3)];
        }
        world
    }

    fn is(&self, slot: usize) -> bool {
        self.0[slot] % 2 == 1
    }

    fn pods(&self, first: usize, family: Family) -> impl Iterator<Item = IpAddr> {
        (0..PODS)
            .filter(move |pod| self.is(first + pod))
            .map(address)
            .filter(move |a| Family::of(a) == family)
    }

    pub(crate) fn ruleset(&self) -> Ruleset {
        let mut recorder = Recorder::default();
        self.write(&mut recorder);
        recorder.ruleset().clone()
    }

    fn write(&self, into: &mut Recorder) {
        for family in Family::BOTH {
            self.sets(into, family);
            for seat in 0..POLICIES {
                for (direction, first) in [('i', INGRESS), ('e', EGRESS)] {
                    let used = |pod| {
                        self.0[first + pod] % (4 + POLICIES) == 4 + seat
                            && Family::of(&address(pod)) == family
                    };
                    if (0..PODS).any(used) {
                        let (name, chain) = policy(seat, direction, family);
                        into.put_chain(&name, chain);
                        services(into, seat, direction, family);
                    }
                }
            }
            for (direction, first) in [('i', INGRESS), ('e', EGRESS)] {
                let used =
                    |pod: usize| is_audited(self.0[first + pod]) && Family::of(&address(pod)) == family;
                if (0..PODS).any(used) {
                    let (name, chain) = audit(direction, family);
                    into.put_chain(&name, chain);
                }
                self.map(into, family, direction, first);
            }
        }
        self.links(into);
        self.fixed(into);
    }

    fn sets(&self, into: &mut Recorder, family: Family) {
        let digit = family.digit();
        let plain = |shape| SetSpec { shape, size: None };
        let member = |into: &mut Recorder, name: &SetName, key| into.put(name, key, Value::Member);
        for selector in 0..SELECTORS {
            let name = set(&format!("s{digit}_{selector}"));
            let size = (selector == 0 && self.0[REMADE] % 5 == 1).then_some(64);
            into.put_set(&name, SetSpec { shape: Shape::Addresses(family), size });
            for pod in self.pods(MEMBERS + selector * PODS, family) {
                member(into, &name, Key::Address(pod));
            }
        }
        let name = set(&format!("ep{digit}"));
        into.put_set(&name, plain(Shape::Endpoints(family)));
        for pod in self.pods(ENDPOINTS, family) {
            member(into, &name, Key::Endpoint(pod, Protocol::TCP, 80));
        }
        let name = set(&format!("self{digit}"));
        into.put_set(&name, plain(Shape::Pairs(family)));
        for pod in self.pods(SELF, family) {
            member(into, &name, Key::Pair(pod, pod));
        }
        let name = set(&format!("n_recheck{digit}"));
        into.put_set(&name, plain(Shape::Addresses(family)));
        for pod in self.pods(RECHECKED, family) {
            member(into, &name, Key::Address(pod));
        }
        into.put_set(&set(&format!("n_meter{digit}")), plain(Shape::Meter(family)));
        let name = set(&format!("c_local{digit}"));
        let size = (self.0[REMADE] % 5 == 3).then_some(1024);
        into.put_set(&name, SetSpec { shape: Shape::Ranges(family), size });
        for (first, last) in local(self.0[LOCAL] % 6, family) {
            member(into, &name, Key::Range(first, last));
        }
    }

    fn links(&self, into: &mut Recorder) {
        for (name, first) in [("c_links", LINKS), ("c_podlinks", POD_LINKS)] {
            let name = set(name);
            into.put_set(&name, SetSpec { shape: Shape::Links, size: None });
            for link in (0..2).filter(|link| self.is(first + link)) {
                into.put(&name, Key::Link(LinkName::new(&format!("veth{link}")).unwrap()), Value::Member);
            }
        }
    }

    fn map(&self, into: &mut Recorder, family: Family, direction: char, first: usize) {
        let name = self.map_name(family, direction);
        let size = (self.0[REMADE] % 5 == 2).then_some(512);
        into.put_set(&name, SetSpec { shape: Shape::Verdicts(family), size });
        for pod in (0..PODS).filter(|pod| Family::of(&address(*pod)) == family) {
            let verdict = match self.0[first + pod] % (4 + POLICIES) {
                0 => continue,
                1 if is_audited(self.0[first + pod]) => Verdict::Goto(audit(direction, family).0),
                1 => Verdict::Return,
                2 => Verdict::Goto(chain("pending")),
                3 => Verdict::Drop,
                seat => Verdict::Goto(policy(seat - 4, direction, family).0),
            };
            into.put(&name, Key::Address(address(pod)), Value::Verdict(verdict));
        }
    }

    fn map_name(&self, family: Family, direction: char) -> SetName {
        let way = if direction == 'i' { "in" } else { "eg" };
        let grown = if self.0[MAP_SIZE] % 3 == 1 { "_2048" } else { "" };
        set(&format!("{way}{}{grown}", family.digit()))
    }

    fn fixed(&self, into: &mut Recorder) {
        let base = |hook| Some(Base { hook, priority: -1 });
        let jump = |name: &str| rule(vec![], Verdict::Jump(chain(name)));
        let established = || rule(vec![Match::State(vec![ConnState::Established])], Verdict::Accept);
        let forward = vec![jump("recheck"), established(), jump("guard"), jump("egress"), jump("ingress")];
        put(into, "forward", base(Hook::Forward), forward);
        if self.is(INPUT) {
            let input = vec![jump("recheck"), established(), jump("guard"), jump("egress")];
            put(into, "input", base(Hook::Input), input);
        }
        put(into, "judge", None, vec![jump("egress"), jump("ingress")]);
        put(into, "pending", None, denials(Family::V4, "pending"));
        put(into, "forged", None, denials(Family::V4, "forged"));
        let forged = |matches| rule(matches, Verdict::Goto(chain("forged")));
        let on_pod_link = Match::In(Lookup::InputLink, set("c_podlinks"));
        put(into, "guard", None, vec![forged(vec![on_pod_link, Match::ReversePathMissing])]);
        let mut egress = self.dispatch('e', Side::Source);
        egress.push(forged(vec![Match::In(Lookup::InputLink, set("c_links"))]));
        put(into, "egress", None, egress);
        put(into, "ingress", None, self.dispatch('i', Side::Destination));
        put(into, "recheck", None, if self.is(RECHECK) { rechecks() } else { vec![] });
        let stray = vec![
            rule(vec![Match::State(vec![ConnState::Invalid])], Verdict::Drop),
            rule(vec![Match::State(vec![ConnState::New]), Match::TcpNotOpening], Verdict::Drop),
        ];
        put(into, "strays", None, if self.is(STRAYS) { stray } else { vec![] });
    }

    fn dispatch(&self, direction: char, side: Side) -> Vec<Rule> {
        let mapped = |family| Rule {
            id: id("dispatch"),
            matches: vec![],
            effect: Effect {
                count: Count::No,
                log: None,
                outcome: Outcome::Map(Lookup::Address(family, side), self.map_name(family, direction)),
            },
        };
        let caught = |family: Family| {
            let range = Match::In(Lookup::Address(family, side), set(&format!("c_local{}", family.digit())));
            rule(vec![range], Verdict::Goto(chain("pending")))
        };
        vec![mapped(Family::V4), mapped(Family::V6), caught(Family::V4), caught(Family::V6)]
    }
}

/// Rewrites a recorder's ruleset from one world into another by single edits, as the engine would.
pub(crate) fn rewrite(recorder: &mut Recorder, new: &Ruleset) -> Delta {
    let old = recorder.ruleset().clone();
    for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
        recorder.drop_chain(name);
    }
    for (name, set) in &old.sets {
        if new.sets.get(name).is_none_or(|other| other.spec != set.spec) {
            recorder.drop_set(name);
        }
    }
    for (name, chain) in &new.chains {
        recorder.put_chain(name, chain.as_ref().clone());
    }
    for (name, set) in &new.sets {
        recorder.put_set(name, set.spec);
        let stale: Vec<Key> =
            old.sets.get(name).into_iter().flat_map(|set| set.iter()).map(|(key, _)| key.clone()).collect();
        stale.iter().for_each(|key| recorder.take(name, key));
        set.iter().for_each(|(key, value)| recorder.put(name, key.clone(), value));
    }
    recorder.take_delta()
}

/// Policy, direction, family.
type Kind = (u8, char, Family);

/// A policy-set chain, named by its content. Digests cost much without optimisation: each chain is made once.
fn policy(seat: u8, direction: char, family: Family) -> (ChainName, Chain) {
    static MADE: LazyLock<BTreeMap<Kind, (ChainName, Chain)>> = LazyLock::new(|| {
        let all = (0..POLICIES).flat_map(|seat| ['i', 'e'].map(|direction| (seat, direction)));
        let all = all.flat_map(|(seat, way)| Family::BOTH.map(|family| (seat, way, family)));
        all.map(|key| (key, make_policy(key.0, key.1, key.2))).collect()
    });
    MADE[&(seat, direction, family)].clone()
}

/// An open seat whose packets are looked at all the same.
const fn is_audited(seat: u8) -> bool {
    seat % (4 + POLICIES) == 1 && seat >= AUDITED
}

/// What records all but the members of one set, and refuses nobody.
fn audit(direction: char, family: Family) -> (ChainName, Chain) {
    let digit = family.digit();
    let peer = if direction == 'i' { Side::Source } else { Side::Destination };
    let member = Match::In(Lookup::Address(family, peer), set(&format!("s{digit}_0")));
    let mut rules = vec![rule(vec![member], Verdict::Return)];
    rules.extend(denials(family, "audit").into_iter().take(1));
    (chain(&format!("a{direction}{digit}_x")), Chain { base: None, rules })
}

fn make_policy(seat: u8, direction: char, family: Family) -> (ChainName, Chain) {
    let digit = family.digit();
    let peer = if direction == 'i' { Side::Source } else { Side::Destination };
    let of = |set_name: String| Match::In(Lookup::Address(family, peer), set(&set_name));
    let named_port = Match::In(Lookup::Endpoint(family, Side::Destination), set(&format!("ep{digit}")));
    let web = Match::Port(Protocol::TCP, PortRange::single(80));
    let allowed = match seat {
        0 => vec![],
        1 => vec![vec![of(format!("s{digit}_0"))]],
        2 => vec![vec![of(format!("s{digit}_1")), web], vec![of(format!("s{digit}_0"))]],
        3 if direction == 'i' => vec![vec![of(format!("s{digit}_2")), named_port]],
        3 => vec![vec![named_port]],
        4 => vec![vec![Match::In(Lookup::Service, set(&format!("pt_{direction}{digit}")))]],
        _ => vec![vec![of(format!("s{digit}_1"))], vec![of(format!("s{digit}_2")), web]],
    };
    let mut rules = vec![rule(vec![], Verdict::Jump(chain("strays")))];
    rules.extend(allowed.into_iter().map(|matches| rule(matches, Verdict::Return)));
    rules.push(rule(vec![Match::In(Lookup::Pair(family), set(&format!("self{digit}")))], Verdict::Return));
    rules.extend(denials(family, &format!("{direction}{seat}")));
    let digest = Digest::of([format!("{seat}{direction}{digit}")]);
    (ChainName::of_content(&format!("{direction}{digit}"), digest), Chain { base: None, rules })
}

/// The set that comes and goes with policy 4.
fn services(into: &mut Recorder, seat: u8, direction: char, family: Family) {
    if seat == 4 {
        let name = set(&format!("pt_{direction}{}", family.digit()));
        into.put_set(&name, SetSpec { shape: Shape::Services, size: None });
        into.put(&name, Key::Service(Protocol::TCP, PortRange::new(80, 90).unwrap()), Value::Member);
    }
}

fn denials(family: Family, prefix: &str) -> Vec<Rule> {
    let meter = Meter {
        set: set(&format!("n_meter{}", family.digit())),
        key: Lookup::Address(family, Side::Source),
        rate: 10,
        burst: 20,
    };
    let log = Log { group: 64, prefix: format!("podwall {prefix}:"), snaplen: 96, meter };
    let record = Effect { count: Count::Yes, log: Some(log), outcome: Outcome::Continue };
    vec![Rule { id: id("deny"), matches: vec![], effect: record }, rule(vec![], Verdict::Drop)]
}

fn rechecks() -> Vec<Rule> {
    let mut rules = Vec::new();
    for family in Family::BOTH {
        for side in [Side::Source, Side::Destination] {
            let pod = Match::In(Lookup::Address(family, side), set(&format!("n_recheck{}", family.digit())));
            let flow = vec![Match::State(vec![ConnState::Established]), Match::OriginalDirection, pod];
            rules.push(rule(flow, Verdict::Goto(chain("judge"))));
        }
    }
    rules
}

/// The pod range of a node, armed or not, in ways that overlap each other.
fn local(choice: u8, family: Family) -> Vec<(IpAddr, IpAddr)> {
    let at = |last: u8| -> IpAddr {
        match family {
            Family::V4 => [10, 0, 0, last].into(),
            Family::V6 => [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into(),
        }
    };
    let ranges: &[(u8, u8)] = match choice {
        1 => &[(0, 255)],
        2 => &[(0, 127)],
        3 => &[(1, 1), (3, 3)],
        4 => &[(2, 200)],
        _ => &[],
    };
    ranges.iter().map(|(first, last)| (at(*first), at(*last))).collect()
}

/// The address of a pod; the number after the last is an address nobody knows.
pub(crate) fn address(pod: usize) -> IpAddr {
    match pod {
        0..=2 => IpAddr::from([10, 0, 0, u8::try_from(pod).unwrap() + 1]),
        3 => IpAddr::from([10, 9, 9, 9]),
        4 | 5 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::try_from(pod).unwrap() - 3]),
        _ => IpAddr::from([10, 0, 0, 77]),
    }
}

pub(crate) fn any_packet() -> impl Strategy<Value = Packet> {
    let pair = prop_oneof![
        8 => (prop_oneof![0..4_usize, Just(6)], prop_oneof![0..4_usize, Just(6)]),
        2 => (4..6_usize, 4..6_usize),
    ];
    let transport = prop_oneof![
        Just(Transport::Tcp { port: 80, opening: true }),
        Just(Transport::Tcp { port: 80, opening: false }),
        Just(Transport::Tcp { port: 81, opening: true }),
        Just(Transport::Icmpv6(128)),
    ];
    let state = prop_oneof![3 => Just(ConnState::New), 1 => Just(ConnState::Established), 1 => Just(ConnState::Invalid)];
    let hook = prop_oneof![5 => Just(Hook::Forward), 1 => Just(Hook::Input)];
    (hook, pair, transport, state, proptest::option::of(0..2), any::<bool>()).prop_map(
        |(hook, (source, destination), transport, state, link, reverse_path)| Packet {
            hook,
            state,
            input_link: link.map(|link: i32| LinkName::new(&format!("veth{link}")).unwrap()),
            reverse_path,
            ..Packet::opening(address(source), address(destination), transport)
        },
    )
}

pub(crate) fn set(name: &str) -> SetName {
    SetName::new(name).unwrap()
}

pub(crate) fn chain(name: &str) -> ChainName {
    ChainName::new(name).unwrap()
}

pub(crate) fn id(name: &str) -> RuleId {
    let mut bytes = [0; 13];
    bytes.iter_mut().zip(name.bytes()).for_each(|(slot, byte)| *slot = byte);
    bytes[12] = 0;
    RuleId(Digest::from_bytes(bytes))
}

pub(crate) fn rule(matches: Vec<Match>, verdict: Verdict) -> Rule {
    Rule { id: id("rule"), matches, effect: verdict.plain() }
}

fn put(into: &mut Recorder, name: &str, base: Option<Base>, rules: Vec<Rule>) {
    into.put_chain(&chain(name), Chain { base, rules });
}

//! Elements of standing verdict maps: each takes the shortest way that never shows a mixture which leaks.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::StageKind;
use super::chains::ChainWork;
use super::ground::{Direction, Ground};
use super::members::holds_verdicts;
use crate::ids::{ChainName, Digest, RuleId, SetName};
use crate::matching::Family;
use crate::ruleset::{Chain, Rule};
use crate::set::{Key, Value};
use crate::transaction::Op;
use crate::verdict::Verdict;

/// When each element gets which value.
pub(super) struct Route {
    /// Stage 1: lowered to the final value.
    pub(super) down: Vec<Op>,
    /// Stage 2: lowered to the meet, or set to the final value.
    pub(super) middle: Vec<Op>,
    /// Which of the two it is.
    pub(super) middle_kind: StageKind,
    /// Stage 4: raised to the final value.
    pub(super) up: Vec<Op>,
    /// Chains that exist only between stage 1 and the reaping.
    pub(super) meets: Meets,
}

/// The edit of one element.
#[derive(Clone, Copy)]
struct Move<'a> {
    map: &'a SetName,
    key: &'a Key,
    before: Option<&'a Verdict>,
    after: Option<&'a Verdict>,
}

/// Which way an edit goes in the order of what a value lets through.
enum Slope {
    /// The final value lets nothing more through than the one before, and what it leads to stands.
    Down,
    /// So too, but what it leads to is created by this delta.
    DownLater,
    /// The final value lets nothing less through.
    Up,
    /// Neither can be said.
    Across,
}

impl Route {
    pub(super) fn of(ground: &Ground<'_>, chains: &ChainWork) -> Self {
        let rewires = !chains.rewire.is_empty();
        let moves: Vec<Move<'_>> = moves(ground).collect();
        let openness = if rewires || moves.is_empty() { Openness::default() } else { Openness::of(ground) };
        let (mut down, mut later, mut across, mut up) =
            (Vec::new(), Vec::new(), Vec::new(), Batch::default());
        for edit in moves {
            match edit.slope(ground, openness) {
                Slope::Down => down.push(edit),
                Slope::DownLater => later.push(edit),
                Slope::Up => up.set(edit, edit.before, edit.after),
                Slope::Across => across.push(edit),
            }
        }
        let direct = across.is_empty() || (!rewires && no_packet_meets_two(later.iter().chain(&across)));
        if direct && !across.is_empty() && no_packet_meets_two(down.iter().chain(&later).chain(&across)) {
            later.append(&mut down); // all in one commit
        }
        let (mut first, mut middle, mut meets) = (Batch::default(), Batch::default(), Meets::default());
        down.iter().for_each(|edit| first.set(*edit, edit.before, edit.after));
        later.iter().for_each(|edit| middle.set(*edit, edit.before, edit.after));
        for edit in &across {
            if direct {
                middle.set(*edit, edit.before, edit.after);
            } else {
                let meet = meets.of(ground, edit);
                middle.set(*edit, edit.before, Some(&meet));
                up.set(*edit, Some(&meet), edit.after);
            }
        }
        let middle_kind = if direct { StageKind::Repoint } else { StageKind::Narrow };
        Self { down: first.ops(), middle: middle.ops(), middle_kind, up: up.ops(), meets }
    }
}

fn moves<'a>(ground: &Ground<'a>) -> impl Iterator<Item = Move<'a>> + use<'a> {
    let maps = ground.delta.sets.iter().filter(|(_, edit)| edit.spec.is_none() && holds_verdicts(edit));
    maps.flat_map(|(map, edit)| {
        edit.elements.iter().map(move |(key, edit)| Move {
            map,
            key,
            before: edit.before.as_ref().and_then(verdict),
            after: edit.after.as_ref().and_then(verdict),
        })
    })
}

const fn verdict(value: &Value) -> Option<&Verdict> {
    match value {
        Value::Verdict(verdict) => Some(verdict),
        Value::Member | Value::Until(_) => None,
    }
}

impl Move<'_> {
    fn slope(&self, ground: &Ground<'_>, openness: Openness) -> Slope {
        let open = |value: Option<&Verdict>| match value {
            Some(verdict) => Ground::opens(verdict),
            None => openness.absent(self),
        };
        let shut = |value: Option<&Verdict>| value.is_some_and(Ground::shuts);
        if open(self.after) || shut(self.before) {
            Slope::Up
        } else if !open(self.before) && !shut(self.after) {
            Slope::Across
        } else if self
            .after
            .and_then(Verdict::target)
            .is_none_or(|chain| ground.chain_before(chain).is_some())
        {
            Slope::Down
        } else {
            Slope::DownLater
        }
    }

    fn family(&self) -> Option<Family> {
        self.key.address().as_ref().map(Family::of)
    }
}

/// For which maps an absent element is an open one; for none by default.
#[derive(Clone, Copy, Default)]
struct Openness {
    ingress: [bool; 2],
    egress: [bool; 2],
}

impl Openness {
    fn of(ground: &Ground<'_>) -> Self {
        let both = |direction| Family::BOTH.map(|family| ground.absent_is_open(direction, family));
        Self { ingress: both(Direction::Ingress), egress: both(Direction::Egress) }
    }

    fn absent(self, edit: &Move<'_>) -> bool {
        let [v4, v6] = match Direction::of(edit.map) {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
            Direction::Unknown => return false,
        };
        match edit.family() {
            Some(Family::V4) => v4,
            Some(Family::V6) => v6,
            None => false,
        }
    }
}

/// A packet of one family looks into one egress map by its source and into one ingress map by its destination.
fn no_packet_meets_two<'a>(edits: impl Iterator<Item = &'a Move<'a>> + Clone) -> bool {
    let mut directions: [Vec<Direction>; 2] = Default::default();
    let mut addresses: [Vec<IpAddr>; 2] = Default::default();
    for edit in edits {
        let Some(address) = edit.key.address() else { return false };
        let family = usize::from(Family::of(&address) == Family::V6);
        note(directions.get_mut(family), Direction::of(edit.map));
        note(addresses.get_mut(family), address);
    }
    let one_way = |seen: &Vec<Direction>| seen.len() <= 1 && !seen.contains(&Direction::Unknown);
    directions
        .iter()
        .zip(&addresses)
        .all(|(directions, addresses)| one_way(directions) || addresses.len() <= 1)
}

/// Keeps the first two different values: more are not needed to know that there is not only one.
fn note<T: PartialEq>(seen: Option<&mut Vec<T>>, value: T) {
    if let Some(seen) = seen
        && seen.len() < 2
        && !seen.contains(&value)
    {
        seen.push(value);
    }
}

/// Element writes of one commit, map by map.
#[derive(Default)]
struct Batch<'a>(BTreeMap<&'a SetName, Writes>);

#[derive(Default)]
struct Writes {
    out: Vec<Key>,
    into: Vec<(Key, Value)>,
}

impl<'a> Batch<'a> {
    fn set(&mut self, edit: Move<'a>, from: Option<&Verdict>, to: Option<&Verdict>) {
        if from == to {
            return;
        }
        let writes = self.0.entry(edit.map).or_default();
        if from.is_some() {
            writes.out.push(edit.key.clone());
        }
        writes.into.extend(to.map(|verdict| (edit.key.clone(), Value::Verdict(verdict.clone()))));
    }

    /// Out before in: a kernel takes another verdict for a key only after the old one (`nftables.md` gotcha 5).
    fn ops(self) -> Vec<Op> {
        let mut ops = Vec::new();
        for (map, Writes { out, into }) in self.0 {
            if !out.is_empty() {
                ops.push(Op::RemoveElements(map.clone(), out));
            }
            if !into.is_empty() {
                ops.push(Op::AddElements(map.clone(), into));
            }
        }
        ops
    }
}

/// Chains that let through what two others both do.
#[derive(Default)]
pub(super) struct Meets(BTreeMap<ChainName, Arc<Chain>>);

impl Meets {
    /// The highest value that is at most both sides of an edit.
    fn of(&mut self, ground: &Ground<'_>, edit: &Move<'_>) -> Verdict {
        let (Some(Verdict::Goto(old)), Some(Verdict::Goto(new))) = (edit.before, edit.after) else {
            return ground.shut();
        };
        let prefix = format!("x{}", edit.family().map_or('4', Family::digit));
        let name = ChainName::of_content(&prefix, Digest::of([old.as_str(), new.as_str()]));
        // One left behind by a crash is as good, and somebody else deletes it.
        let made_elsewhere = ground.chain_before(&name).is_some() || ground.delta.chains.contains_key(&name);
        if !made_elsewhere {
            let rules = [old, new].map(|chain| Rule {
                id: RuleId(Digest::of(["meet", chain.as_str()])),
                matches: Vec::new(),
                effect: Verdict::Jump(chain.clone()).plain(),
            });
            self.0.insert(name.clone(), Arc::new(Chain { base: None, rules: rules.into() }));
        }
        Verdict::Goto(name)
    }

    pub(super) fn create(&self) -> Vec<Op> {
        let chains = self.0.keys().map(|name| Op::AddChain(name.clone(), None));
        chains
            .chain(self.0.iter().map(|(name, chain)| Op::AddRules(name.clone(), Arc::clone(chain))))
            .collect()
    }

    pub(super) fn reap(&self) -> Vec<Op> {
        self.0.keys().map(|name| Op::DeleteChain(name.clone())).collect()
    }
}

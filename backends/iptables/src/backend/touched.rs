//! Which kernel objects a transaction may change, found from its operations at the cost of what they touch.
use std::collections::{BTreeMap, BTreeSet};

use podwall_ruleset::{ChainName, Family, Key, Op, Outcome, Ruleset, SetName, Shape};

use super::Standing;
use crate::image::{Image, Place};
use crate::lower::dispatch::{self, Node};
use crate::lower::{self, Unsuited, set};
use crate::names::{self, REVERSE_PATH};
use crate::restore::Change;

/// Neutral objects, each with the last operation that touches it.
#[derive(Debug, Default)]
pub(super) struct Touched {
    chains: BTreeMap<ChainName, usize>,
    sets: BTreeMap<SetName, usize>,
    registers: BTreeMap<SetName, usize>,
    nodes: BTreeMap<SetName, (usize, BTreeSet<Node>)>,
    reverse_path: Option<usize>,
    everything: Option<usize>,
}

type Failed = (usize, Unsuited);

impl Touched {
    pub(super) fn of(ops: &[Op], before: &Ruleset, after: &Ruleset) -> Self {
        let mut touched = Self::default();
        for (index, op) in ops.iter().enumerate() {
            match op {
                Op::AddTable => {}
                Op::DeleteTable => touched.everything = Some(index),
                Op::AddSet(name, _) | Op::DeleteSet(name) => drop(touched.sets.insert(name.clone(), index)),
                Op::AddChain(name, _)
                | Op::AddRules(name, _)
                | Op::FlushChain(name)
                | Op::DeleteChain(name) => {
                    touched.chains.insert(name.clone(), index);
                }
                Op::AddElements(name, elements) => {
                    touched.elements((index, name), elements.iter().map(|(key, _)| key), [before, after]);
                }
                Op::RemoveElements(name, keys) => {
                    touched.elements((index, name), keys.iter(), [before, after]);
                }
            }
        }
        for name in touched.sets.clone().keys() {
            touched.users(name, [before, after]);
        }
        touched.follow([before, after]);
        touched
    }

    fn elements<'a>(
        &mut self,
        (index, name): (usize, &SetName),
        keys: impl Iterator<Item = &'a Key>,
        sides: [&Ruleset; 2],
    ) {
        let shape = sides.iter().find_map(|side| side.sets.get(name)).map(|set| set.spec.shape);
        match shape {
            Some(Shape::Verdicts(_)) => {
                let (last, nodes) = self.nodes.entry(name.clone()).or_default();
                *last = index;
                nodes.extend(keys.filter_map(Key::address).flat_map(Node::path));
            }
            Some(shape) if lower::in_rules(shape) => {
                self.registers.insert(name.clone(), index);
                self.users(name, sides);
            }
            Some(_) | None => {}
        }
    }

    /// Rules whose text depends on what a set holds.
    fn users(&mut self, name: &SetName, sides: [&Ruleset; 2]) {
        let in_rules = sides
            .iter()
            .find_map(|side| side.sets.get(name))
            .is_some_and(|set| lower::in_rules(set.spec.shape));
        let op = self.registers.get(name).or_else(|| self.sets.get(name)).copied().unwrap_or_default();
        if !in_rules {
            return;
        }
        for (chain, rules) in sides.iter().flat_map(|side| &side.chains) {
            if rules.sets().any(|set| set == name) {
                self.chains.entry(chain.clone()).or_insert(op);
            }
        }
    }

    /// Maps whose asking rule may have moved, and reverse path checks.
    fn follow(&mut self, sides: [&Ruleset; 2]) {
        for (name, op) in self.chains.clone() {
            for chain in sides.iter().filter_map(|side| side.chains.get(&name)) {
                for rule in &chain.rules {
                    if let Outcome::Map(_, map) = &rule.effect.outcome {
                        self.registers.insert(map.clone(), op);
                    }
                }
                if chain.base.is_some() || chain.rules.iter().any(lower::checks_reverse_path) {
                    self.reverse_path = Some(op);
                }
            }
        }
    }

    /// What has to be compared with what stands.
    pub(super) fn change(&self, standing: &Standing, after: &Ruleset) -> Result<Change, Failed> {
        let (mut change, image) = (Change::default(), &standing.image);
        if let Some(op) = self.everything {
            change.touch(image, op);
            return Ok(change);
        }
        for (name, op) in &self.chains {
            let rules = standing.ruleset.chains.get(name).map_or(0, |chain| chain.rules.len());
            change.touch(&of_chain(image, name, rules), *op);
            let lowered = after.chains.get(name).map(|chain| lower::chain(after, name, chain));
            take(&mut change, lowered, *op)?;
        }
        for (name, op) in &self.sets {
            change.touch(&of_set(image, name), *op);
            let lowered = after.sets.get(name).map(|held| set::whole(after, name, held));
            let lowered =
                lowered.map(|lowered| lowered.map(|image| Image { sets: BTreeMap::new(), ..image }));
            take(&mut change, lowered, *op)?;
        }
        for (name, op) in self.registers.iter().filter(|(name, _)| !self.sets.contains_key(*name)) {
            take(&mut change, after.sets.get(name).map(|held| set::register(after, name, held)), *op)?;
        }
        for (name, (op, nodes)) in self.nodes.iter().filter(|(name, _)| !self.sets.contains_key(*name)) {
            let Some(held) = after.sets.get(name) else { continue };
            let Some(family) = held.spec.shape.family() else { continue };
            for node in nodes {
                let place = dispatch::place(name, family, *node).map_err(|unsuited| (*op, unsuited))?;
                change.chains.entry(place).or_insert(*op);
            }
            take(&mut change, Some(dispatch::tree(name, family, held, Some(nodes))), *op)?;
        }
        if let Some(op) = self.reverse_path {
            change.touch(&leading(image, REVERSE_PATH), op);
            take(&mut change, Some(lower::reverse_path(after)), op)?;
        }
        Ok(change)
    }
}

fn take(change: &mut Change, lowered: Option<Result<Image, Unsuited>>, op: usize) -> Result<(), Failed> {
    let Some(lowered) = lowered else { return Ok(()) };
    let lowered = lowered.map_err(|unsuited| (op, unsuited))?;
    change.touch(&lowered, op);
    change.after.extend(lowered);
    Ok(())
}

/// A kernel chain of either family, and the jumps into it.
fn leading(image: &Image, name: &str) -> Image {
    let mut found = Image::default();
    for family in Family::BOTH {
        keep(image, &(family, name.to_owned()), &mut found);
    }
    let target = format!("-j {name}");
    found.jumps.extend(image.jumps.iter().filter(|(_, jump)| jump.line.ends_with(&target)).cloned());
    found
}

fn keep(image: &Image, place: &Place, found: &mut Image) {
    if let Some(lines) = image.chains.get(place) {
        found.chains.insert(place.clone(), lines.clone());
    }
}

/// What stands of a neutral chain.
fn of_chain(image: &Image, name: &ChainName, rules: usize) -> Image {
    let mut found = leading(image, &format!("PW-{name}"));
    for family in Family::BOTH {
        let segment = format!("PW-{name}.");
        with_prefix(image, family, &segment, &mut found);
        for rule in 0..rules {
            keep(image, &(family, names::links(name, rule)), &mut found);
        }
    }
    found
}

/// What stands of a neutral set, its ipset left out.
fn of_set(image: &Image, name: &SetName) -> Image {
    let mut found = Image::default();
    for family in Family::BOTH {
        keep(image, &(family, format!("PWS-{name}")), &mut found);
        keep(image, &(family, format!("PWM-{name}")), &mut found);
        with_prefix(image, family, &format!("PWM-{name}-"), &mut found);
    }
    found
}

fn with_prefix(image: &Image, family: Family, prefix: &str, found: &mut Image) {
    let all = image.named(family, prefix);
    found.chains.extend(all.map(|(place, lines)| (place.clone(), lines.clone())));
}

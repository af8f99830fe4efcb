//! What each rule costs: the chain twenty times without it, beside the chain twenty times whole.
use std::sync::Arc;

use podwall_ruleset::{Chain, ChainName, Family, Key, Lookup, Op, Outcome, Ruleset, Side};
use podwall_shapes::Shape;

use crate::chain::{Bench, COPIES, at};
use crate::rig::{Flow, Rig};
use crate::{Effort, Failed};

/// One rule, and the ruleset without it.
struct Without {
    rule: String,
    ruleset: Ruleset,
}

/// Nanoseconds that a first packet saves without a rule: quiet and median, beside its text.
pub(crate) fn costs(shape: &Shape, effort: Effort) -> Result<Vec<(String, f64, f64)>, Failed> {
    let mut bench = Bench::build(shape)?;
    let without = without(&bench.often, &bench.rig)?;
    let mut rulesets = vec![bench.often.clone()];
    rulesets.extend(without.iter().map(|without| without.ruleset.clone()));
    let sender = bench.rig.open(Flow::New)?;
    let mut times = bench.in_turn(&rulesets, &sender, effort)?;
    let mut whole = times.remove(0);
    let saved = |percent: usize, whole: &mut [f64], times: &mut [f64]| {
        (at(whole, percent) - at(times, percent)) / f64::from(COPIES)
    };
    let costs = without.into_iter().zip(&mut times).map(|(without, times)| {
        let (quiet, median) = (saved(10, &mut whole, times), saved(50, &mut whole, times));
        (without.rule, quiet, median)
    });
    Ok(costs.collect())
}

fn without(ruleset: &Ruleset, rig: &Rig) -> Result<Vec<Without>, Failed> {
    let mut found = Vec::new();
    for name in met(ruleset, rig)? {
        let Some(chain) = ruleset.chains.get(&name) else { continue };
        for (index, rule) in chain.rules.iter().enumerate() {
            let alone = Arc::new(Chain { base: None, rules: vec![rule.clone()] });
            let text = Op::AddRules(name.clone(), alone).to_string();
            let text = text.split(" comment ").next().unwrap_or_default();
            let text = text.trim_start_matches("add rule inet podwall ").to_owned();
            found.push(Without { rule: text, ruleset: less(ruleset, &name, index) });
        }
    }
    Ok(found)
}

/// The ruleset without a rule of a chain, and of all its copies.
fn less(ruleset: &Ruleset, name: &ChainName, index: usize) -> Ruleset {
    let mut less = ruleset.clone();
    let copies = format!("{name}_");
    for (other, chain) in &mut less.chains {
        if other == name || (name.as_str() == "forward" && other.as_str().starts_with(&copies)) {
            Arc::make_mut(chain).rules.remove(index);
        }
    }
    less
}

/// The chains a packet of the rig may meet, in order: from the hook by jumps, and where the maps lead its addresses.
fn met(ruleset: &Ruleset, rig: &Rig) -> Result<Vec<ChainName>, Failed> {
    let mut names = vec![ChainName::new("forward")?];
    let mut next = 0;
    while let Some(chain) = names.get(next).and_then(|name| ruleset.chains.get(name)) {
        let mut targets = Vec::new();
        for rule in &chain.rules {
            match &rule.effect.outcome {
                Outcome::Verdict(verdict) if rule.matches.is_empty() => targets.extend(verdict.target()),
                Outcome::Map(Lookup::Address(Family::V4, side), map) => {
                    let address = if *side == Side::Source { rig.source } else { rig.target };
                    let verdict = ruleset.sets.get(map).and_then(|map| map.verdict(&Key::Address(address)));
                    targets.extend(verdict.and_then(|verdict| verdict.target()));
                }
                Outcome::Verdict(_) | Outcome::Map(..) | Outcome::Continue => {}
            }
        }
        let new: Vec<ChainName> = targets.into_iter().filter(|name| !names.contains(name)).cloned().collect();
        names.extend(new);
        next += 1;
    }
    Ok(names)
}

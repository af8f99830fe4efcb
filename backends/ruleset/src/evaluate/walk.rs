//! The walk itself: base chains by priority, rules in order, calls on a bounded stack.
use super::question::{holds, point};
use super::{Decision, JUMP_DEPTH, Step, Taken, Trace, View};
use crate::ids::ChainName;
use crate::packet::Packet;
use crate::ruleset::Rule;
use crate::set::Value;
use crate::verdict::{Outcome, Verdict};

/// Chains one packet may enter at one base chain. No loadable ruleset comes near; it ends a loop of gotos, which
/// the stack alone would not.
const ENTRIES: usize = 4096;

pub(super) fn walk(view: &impl View, packet: &Packet) -> Trace {
    let mut bases: Vec<_> = view
        .bases()
        .into_iter()
        .filter_map(|(name, chain)| Some((chain.base.filter(|base| base.hook == packet.hook)?, name, chain)))
        .collect();
    bases.sort_by_key(|(base, name, _)| (base.priority, *name));
    let mut steps = Vec::new();
    for (_, name, chain) in bases {
        let mut walker = Walker { view, packet, steps: &mut steps, callers: Vec::new(), entries: 0 };
        let start = Place { name: name.clone(), rules: &chain.rules, next: 0 };
        if let Decision::Drop { chain, rule } = walker.run(start) {
            return Trace { steps, decision: Decision::Drop { chain, rule } };
        }
    }
    Trace { steps, decision: Decision::Accept }
}

/// One chain alone, as if a base chain did nothing but jump there.
pub(super) fn walk_from(view: &impl View, chain: &ChainName, packet: &Packet) -> Trace {
    let mut steps = Vec::new();
    let rules = view.chain(chain).map_or(&[][..], |chain| &chain.rules);
    let mut walker = Walker { view, packet, steps: &mut steps, callers: Vec::new(), entries: 0 };
    let decision = walker.run(Place { name: chain.clone(), rules, next: 0 });
    Trace { steps, decision }
}

/// Where the walk is: the rule to try next.
struct Place<'a> {
    name: ChainName,
    rules: &'a [Rule],
    next: usize,
}

struct Walker<'a, 'b, V> {
    view: &'a V,
    packet: &'a Packet,
    steps: &'b mut Vec<Step>,
    callers: Vec<Place<'a>>,
    entries: usize,
}

impl<'a, V: View> Walker<'a, '_, V> {
    fn run(&mut self, mut place: Place<'a>) -> Decision {
        loop {
            let Some(rule) = place.rules.get(place.next) else {
                let Some(caller) = self.callers.pop() else { return Decision::Accept };
                place = caller;
                continue;
            };
            place.next += 1;
            if !rule.matches.iter().all(|question| holds(question, self.packet, self.view)) {
                continue;
            }
            let taken = self.taken(rule);
            let verdict = taken.verdict().cloned();
            let step = Step { chain: place.name.clone(), index: place.next - 1, rule: rule.id, taken };
            let dropped = Decision::Drop { chain: step.chain.clone(), rule: step.rule };
            self.steps.push(step);
            match verdict {
                None => {}
                Some(Verdict::Accept) => return Decision::Accept,
                Some(Verdict::Drop | Verdict::Reject(_)) => return dropped,
                Some(Verdict::Return) => place.next = place.rules.len(),
                Some(Verdict::Jump(_)) if self.callers.len() >= JUMP_DEPTH => return dropped,
                Some(Verdict::Jump(_) | Verdict::Goto(_)) if self.entries >= ENTRIES => return dropped,
                Some(Verdict::Jump(target)) => {
                    let target = self.enter(target);
                    self.callers.push(std::mem::replace(&mut place, target));
                }
                Some(Verdict::Goto(target)) => place = self.enter(target),
            }
        }
    }

    fn taken(&self, rule: &Rule) -> Taken {
        match &rule.effect.outcome {
            Outcome::Continue if rule.effect.log.is_some() => Taken::Recorded,
            Outcome::Continue => Taken::Continued,
            Outcome::Verdict(verdict) => Taken::Gave(verdict.clone()),
            Outcome::Map(lookup, map) => {
                let found = point(*lookup, self.packet).and_then(|point| self.view.find(map, &point));
                match found {
                    Some(Value::Verdict(verdict)) => Taken::Found(map.clone(), verdict),
                    Some(Value::Member | Value::Until(_)) | None => Taken::Missed(map.clone()),
                }
            }
        }
    }

    fn enter(&mut self, name: ChainName) -> Place<'a> {
        self.entries += 1;
        let rules = self.view.chain(&name).map_or(&[][..], |chain| &chain.rules);
        Place { name, rules, next: 0 }
    }
}

//! A set that changes its spec under its name: its users drop everything while it is deleted and made anew.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ground::Ground;
use super::{Stage, StageKind};
use crate::delta::{Delta, Edit, SetEdit};
use crate::ids::{ChainName, Digest, RuleId, SetName};
use crate::ruleset::{Chain, Rule};
use crate::set::{Key, SetSpec, Value};
use crate::transaction::Op;

/// The stages that shut the users and remake the sets empty, and the delta from there on; `None` when no set is
/// remade. Only a repair after somebody else's writes, or a new version's other idea of a set, comes here.
pub(super) fn apart(ground: &Ground<'_>) -> Option<(Vec<Stage>, Delta)> {
    let remade: BTreeMap<&SetName, SetSpec> =
        ground.delta.sets.iter().filter_map(|(name, edit)| Some((name, new_spec(edit)?))).collect();
    if remade.is_empty() {
        return None;
    }
    let users: BTreeSet<&ChainName> = ground
        .chains_before()
        .filter(|(_, chain)| chain.sets().any(|set| remade.contains_key(set)))
        .map(|(name, _)| name)
        .collect();
    let mut rest = ground.delta.clone();
    let mut shut = Vec::new();
    for name in users {
        let Some(before) = ground.chain_before(name) else { continue };
        let closed = Arc::new(Chain { base: before.base, rules: vec![nothing_passes(ground)] });
        shut.push(Op::FlushChain(name.clone()));
        shut.push(Op::AddRules(name.clone(), Arc::clone(&closed)));
        let edit = rest.chains.entry(name.clone());
        edit.or_insert_with(|| Edit { before: None, after: Some(Arc::clone(before)) }).before = Some(closed);
    }
    let mut remake: Vec<Op> = remade.keys().map(|name| Op::DeleteSet((*name).clone())).collect();
    for (name, spec) in remade {
        remake.push(Op::AddSet(name.clone(), spec));
        rest.sets.insert(name.clone(), refill(ground, name));
    }
    rest.sets.retain(|_, edit| *edit != SetEdit::default());
    let stages = [Stage::of(StageKind::Narrow, shut), Stage::of(StageKind::Rewire, remake)];
    Some((stages.into_iter().flatten().collect(), rest))
}

fn new_spec(edit: &SetEdit) -> Option<SetSpec> {
    let spec = edit.spec.as_ref()?;
    spec.before.and(spec.after)
}

fn nothing_passes(ground: &Ground<'_>) -> Rule {
    Rule { id: RuleId(Digest::of(["shut"])), matches: Vec::new(), effect: ground.shut().plain() }
}

/// All the set holds after the delta, as additions to an empty one.
fn refill(ground: &Ground<'_>, name: &SetName) -> SetEdit {
    let named = ground.delta.sets.get(name).map(|edit| &edit.elements);
    let kept = ground.set(name).into_iter().flat_map(crate::set::Set::iter);
    let kept = kept.filter(|(key, _)| !named.is_some_and(|named| named.contains_key(*key)));
    let put = |(key, value): (&Key, Value)| (key.clone(), Edit { before: None, after: Some(value) });
    let mut elements: BTreeMap<Key, Edit<Value>> = kept.map(put).collect();
    for (key, edit) in named.into_iter().flatten() {
        if let Some(value) = &edit.after {
            elements.insert(key.clone(), Edit { before: None, after: Some(value.clone()) });
        }
    }
    SetEdit { spec: None, elements }
}

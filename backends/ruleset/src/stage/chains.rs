//! Chains and sets that come, and fixed chains whose rules change.
use std::sync::Arc;

use crate::delta::{Delta, SetEdit};
use crate::ids::{ChainName, SetName};
use crate::ruleset::Chain;
use crate::set::{Key, Value};
use crate::transaction::Op;

/// What happens to chains, and the sets that come with them, by stage.
pub(super) struct ChainWork {
    /// Stage 1: new sets with all they hold, new chains with all their rules.
    pub(super) create: Vec<Op>,
    /// Stage 3: rules replaced in place; base chains come and go here, since nothing leads to one but its hook.
    pub(super) rewire: Vec<Op>,
}

impl ChainWork {
    pub(super) fn of(delta: &Delta) -> Self {
        Self { create: create(delta), rewire: rewire(delta) }
    }
}

/// The whole table from nothing; base chains last.
pub(super) fn load(delta: &Delta) -> Vec<Op> {
    let mut ops = vec![Op::AddTable];
    ops.extend(create(delta));
    ops.extend(rewire(delta));
    ops
}

/// Sets before chains, since rules name both; all chains before any rule, since rules lead from one to another;
/// elements last, since they lead to chains.
fn create(delta: &Delta) -> Vec<Op> {
    let made =
        |edit: &SetEdit| edit.spec.as_ref().filter(|spec| spec.before.is_none()).and_then(|spec| spec.after);
    let sets: Vec<_> = delta.sets.iter().filter_map(|(name, edit)| Some((name, made(edit)?, edit))).collect();
    let new = |(name, edit): (_, &crate::delta::Edit<Arc<Chain>>)| {
        let after = edit.after.clone().filter(|chain| edit.before.is_none() && chain.base.is_none())?;
        Some((name, after))
    };
    let chains: Vec<(&ChainName, Arc<Chain>)> = delta.chains.iter().filter_map(new).collect();
    let mut ops: Vec<Op> = sets.iter().map(|(name, spec, _)| Op::AddSet((*name).clone(), *spec)).collect();
    ops.extend(chains.iter().map(|(name, _)| Op::AddChain((*name).clone(), None)));
    ops.extend(chains.iter().filter_map(|(name, chain)| rules(name, chain)));
    ops.extend(sets.iter().filter_map(|(name, _, edit)| content(name, edit)));
    ops
}

fn rules(name: &ChainName, chain: &Arc<Chain>) -> Option<Op> {
    (!chain.rules.is_empty()).then(|| Op::AddRules(name.clone(), Arc::clone(chain)))
}

fn content(name: &SetName, edit: &SetEdit) -> Option<Op> {
    let holds = |(key, edit): (&Key, &crate::delta::Edit<Value>)| Some((key.clone(), edit.after.clone()?));
    let elements: Vec<_> = edit.elements.iter().filter_map(holds).collect();
    (!elements.is_empty()).then(|| Op::AddElements(name.clone(), elements))
}

/// All flushes and deletions before anything is put back: rules taken out free what other rules no longer name.
fn rewire(delta: &Delta) -> Vec<Op> {
    let (mut out, mut chains, mut back) = (Vec::new(), Vec::new(), Vec::new());
    for (name, edit) in &delta.chains {
        match (edit.before.as_deref(), &edit.after) {
            (Some(before), Some(after)) if before.base == after.base => {
                if !before.rules.is_empty() {
                    out.push(Op::FlushChain(name.clone()));
                }
                back.extend(rules(name, after));
            }
            (Some(_), Some(after)) => {
                out.push(Op::DeleteChain(name.clone()));
                chains.push(Op::AddChain(name.clone(), after.base));
                back.extend(rules(name, after));
            }
            (Some(before), None) if before.base.is_some() => out.push(Op::DeleteChain(name.clone())),
            (None, Some(after)) if after.base.is_some() => {
                chains.push(Op::AddChain(name.clone(), after.base));
                back.extend(rules(name, after));
            }
            (Some(_), None) | (None, Some(_)) | (None, None) => {}
        }
    }
    out.sort_by_key(|op| matches!(op, Op::DeleteChain(_)));
    out.extend(chains);
    out.extend(back);
    out
}

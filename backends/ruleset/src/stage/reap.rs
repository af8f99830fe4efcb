//! What nothing leads to any more, deleted users first.
use std::collections::BTreeSet;

use crate::delta::{Delta, SetEdit};
use crate::ids::{ChainName, SetName};
use crate::ruleset::Chain;
use crate::set::Value;
use crate::transaction::Op;
use crate::verdict::Verdict;

/// Chains and sets that went (base chains have gone with the rewire). A kernel refuses to delete what is referred
/// to (EBUSY), so each object comes after all that name it. Elements go with their set.
pub(super) fn reap(delta: &Delta) -> Vec<Op> {
    let mut order = Order { delta, seen: BTreeSet::new(), used_first: Vec::new() };
    for name in delta.chains.keys() {
        order.visit(Object::Chain(name));
    }
    for name in delta.sets.keys() {
        order.visit(Object::Set(name));
    }
    let delete = |object: &Object<'_>| match object {
        Object::Chain(name) => Op::DeleteChain((*name).clone()),
        Object::Set(name) => Op::DeleteSet((*name).clone()),
    };
    order.used_first.iter().rev().map(delete).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Object<'a> {
    Chain(&'a ChainName),
    Set(&'a SetName),
}

struct Order<'a> {
    delta: &'a Delta,
    seen: BTreeSet<Object<'a>>,
    used_first: Vec<Object<'a>>,
}

impl<'a> Order<'a> {
    /// Depth first; as deep as calls nest, which the kernel bounds.
    fn visit(&mut self, object: Object<'a>) {
        let delta = self.delta;
        let used: Vec<Object<'a>> = match object {
            Object::Chain(name) => {
                let Some(chain) = delta.chains.get(name).and_then(gone) else { return };
                chain.targets().map(Object::Chain).chain(chain.sets().map(Object::Set)).collect()
            }
            Object::Set(name) => {
                let Some(edit) = delta.sets.get(name).filter(|edit| went(edit)) else { return };
                let held = edit.elements.values().filter_map(|edit| edit.before.as_ref());
                held.filter_map(target).map(Object::Chain).collect()
            }
        };
        if self.seen.insert(object) {
            used.into_iter().for_each(|used| self.visit(used));
            self.used_first.push(object);
        }
    }
}

fn gone(edit: &crate::delta::Edit<std::sync::Arc<Chain>>) -> Option<&Chain> {
    let before = edit.before.as_deref().filter(|chain| chain.base.is_none());
    before.filter(|_| edit.after.is_none())
}

fn went(edit: &SetEdit) -> bool {
    edit.spec.as_ref().is_some_and(|spec| spec.before.is_some() && spec.after.is_none())
}

const fn target(value: &Value) -> Option<&ChainName> {
    match value {
        Value::Verdict(verdict) => Verdict::target(verdict),
        Value::Member | Value::Until(_) => None,
    }
}

//! Elements of plain sets: which come and go on the way down, which on the way up.
use std::net::IpAddr;

use super::ranges;
use crate::delta::{Delta, Edit, SetEdit};
use crate::ids::SetName;
use crate::matching::Family;
use crate::set::{Growth, Key, Value};
use crate::transaction::Op;

/// Element edits of standing plain sets, by stage.
#[derive(Default)]
pub(super) struct MemberWork {
    /// Stage 1.
    pub(super) down: Vec<Op>,
    /// Stage 4.
    pub(super) up: Vec<Op>,
    /// After stage 4.
    pub(super) last: Vec<Op>,
}

impl MemberWork {
    pub(super) fn of(delta: &Delta) -> Self {
        let mut work = Self::default();
        let plain = || delta.sets.iter().filter(|(_, edit)| edit.spec.is_none() && !holds_verdicts(edit));
        let neutral_leaves =
            plain().any(|(name, edit)| Growth::of(name) == Growth::Neutral && removed(edit).next().is_some());
        for (name, edit) in plain() {
            let (goes, comes): (Vec<_>, Vec<_>) = (removed(edit).collect(), added(edit).collect());
            change(&mut work.down, name, edit);
            match Growth::of(name) {
                Growth::Opens => {
                    remove(&mut work.down, name, goes);
                    add(&mut work.up, name, valued(edit, comes));
                }
                Growth::Neutral if !goes.iter().any(is_range) => {
                    remove(&mut work.up, name, goes);
                    add(
                        if neutral_leaves { &mut work.down } else { &mut work.last },
                        name,
                        valued(edit, comes),
                    );
                }
                // Of a set that only counts, either is as good; overlapping intervals cannot stand side by side.
                Growth::Closes | Growth::Neutral => {
                    let bridge = ranges::bridge(&goes, &comes);
                    let (down_in, up_in) = (valued(edit, bridge.down_in), valued(edit, bridge.up_in));
                    remove(&mut work.down, name, bridge.down_out);
                    add(&mut work.down, name, down_in);
                    remove(&mut work.up, name, bridge.up_out);
                    add(&mut work.up, name, up_in);
                }
            }
        }
        if work.up.is_empty() {
            work.up.append(&mut work.last);
        }
        work
    }
}

/// Does the delta only move one address (of each family) between sets that open?
pub(super) fn moves_one_address(delta: &Delta) -> bool {
    let mut seen: [Option<IpAddr>; 2] = [None, None];
    let mut the_one = |key: &Key| {
        let Some(address) = sole_address(key) else { return false };
        let [v4, v6] = &mut seen;
        let slot = match Family::of(&address) {
            Family::V4 => v4,
            Family::V6 => v6,
        };
        *slot.get_or_insert(address) == address
    };
    delta.chains.is_empty()
        && delta.sets.iter().all(|(name, edit)| {
            edit.spec.is_none()
                && Growth::of(name) == Growth::Opens
                && !holds_verdicts(edit)
                && edit.elements.keys().all(&mut the_one)
        })
}

/// The one address a key speaks of, if it is asked for as one end of a packet by one of its directions only.
/// Endpoints are asked for by destination in both: one that goes and another that comes could open to a packet
/// whose egress and ingress were never open together.
fn sole_address(key: &Key) -> Option<IpAddr> {
    match key {
        Key::Pair(source, destination) => (source == destination).then_some(*source),
        Key::Address(address) => Some(*address),
        Key::Endpoint(..) | Key::Range(..) | Key::Service(..) | Key::Link(_) => None,
    }
}

/// Is it a verdict map? All its values are of one kind.
pub(super) fn holds_verdicts(edit: &SetEdit) -> bool {
    let first = edit.elements.values().next();
    matches!(first.and_then(|edit| edit.before.as_ref().or(edit.after.as_ref())), Some(Value::Verdict(_)))
}

const fn is_range(key: &Key) -> bool {
    matches!(key, Key::Range(..))
}

fn removed(edit: &SetEdit) -> impl Iterator<Item = Key> {
    edit.elements.iter().filter(|(_, edit)| edit.after.is_none()).map(|(key, _)| key.clone())
}

fn added(edit: &SetEdit) -> impl Iterator<Item = Key> {
    edit.elements.iter().filter(|(_, edit)| edit.before.is_none()).map(|(key, _)| key.clone())
}

/// Keys with what they shall hold. An interval that only bridges others holds nothing but itself.
fn valued(edit: &SetEdit, keys: Vec<Key>) -> Vec<(Key, Value)> {
    let after = |key: &Key| edit.elements.get(key).and_then(|edit| edit.after.clone());
    keys.into_iter().map(|key| (key.clone(), after(&key).unwrap_or(Value::Member))).collect()
}

/// Members that stay and only end at another time: both in one commit, so that none is away meanwhile.
fn change(ops: &mut Vec<Op>, set: &SetName, edit: &SetEdit) {
    let stays = |(key, edit): (&Key, &Edit<Value>)| {
        Some((key.clone(), edit.before.as_ref().and(edit.after.clone())?))
    };
    let elements: Vec<(Key, Value)> = edit.elements.iter().filter_map(stays).collect();
    if !elements.is_empty() {
        ops.push(Op::RemoveElements(set.clone(), elements.iter().map(|(key, _)| key.clone()).collect()));
        ops.push(Op::AddElements(set.clone(), elements));
    }
}

fn remove(ops: &mut Vec<Op>, set: &SetName, keys: Vec<Key>) {
    if !keys.is_empty() {
        ops.push(Op::RemoveElements(set.clone(), keys));
    }
}

fn add(ops: &mut Vec<Op>, set: &SetName, elements: Vec<(Key, Value)>) {
    if !elements.is_empty() {
        ops.push(Op::AddElements(set.clone(), elements));
    }
}

//! What changed between two rulesets, with both sides of every change.
//!
//! Owns the seam's law: `old + delta == new`. A delta is made by [`Recorder`] (the engine, as it works) or by
//! [`Delta::between`] (start-up, repair, and the oracle of the recorder). Both give the same value, and its cost
//! follows the change. Knowing `before` and `after`, a delta checks itself when applied and can be ordered by
//! the stager without a look at anything else.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{ChainName, SetName};
use crate::ruleset::{Chain, Ruleset};
use crate::set::{Key, Set, SetSpec, Value};

/// A value before and after; never equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit<T> {
    /// Absent: it did not exist.
    pub before: Option<T>,
    /// Absent: it no longer exists.
    pub after: Option<T>,
}

impl<T: PartialEq> Edit<T> {
    fn changes(&self) -> bool {
        self.before != self.after
    }
}

/// What changed about one set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetEdit {
    /// The set itself came, went, or (never for content-named sets) was remade with another spec.
    pub spec: Option<Edit<SetSpec>>,
    /// Its elements; those of a new or deleted set included.
    pub elements: BTreeMap<Key, Edit<Value>>,
}

/// All changes from one ruleset to another; each side of each is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    /// Chains that came, went, or (fixed chains only) have other rules.
    pub chains: BTreeMap<ChainName, Edit<Arc<Chain>>>,
    /// Sets that came, went, or hold other elements.
    pub sets: BTreeMap<SetName, SetEdit>,
}

/// The ruleset is not the one the delta was made from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the delta does not fit: {object} is not what it was made from")]
pub struct Misfit {
    /// What differs.
    pub object: String,
}

impl Delta {
    /// Nothing changes.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty()
    }

    /// Everything that differs. Cost: both rulesets, less what they share by pointer.
    pub fn between(old: &Ruleset, new: &Ruleset) -> Self {
        let mut delta = Self::default();
        for name in union(&old.chains, &new.chains) {
            let edit = Edit { before: old.chains.get(name).cloned(), after: new.chains.get(name).cloned() };
            if edit.changes() {
                delta.chains.insert(name.clone(), edit);
            }
        }
        for name in union(&old.sets, &new.sets) {
            let (before, after) = (old.sets.get(name), new.sets.get(name));
            if let (Some(before), Some(after)) = (before, after)
                && Arc::ptr_eq(before, after)
            {
                continue;
            }
            let edit = SetEdit::between(before.map(AsRef::as_ref), after.map(AsRef::as_ref));
            if edit != SetEdit::default() {
                delta.sets.insert(name.clone(), edit);
            }
        }
        delta
    }

    /// `old + delta`. On a misfit the ruleset is left partly changed: throw it away and observe again.
    pub fn apply(&self, ruleset: &mut Ruleset) -> Result<(), Misfit> {
        for (name, edit) in &self.chains {
            if ruleset.chains.get(name) != edit.before.as_ref() {
                return Err(Misfit { object: format!("chain {name}") });
            }
            match &edit.after {
                Some(chain) => ruleset.chains.insert(name.clone(), Arc::clone(chain)),
                None => ruleset.chains.remove(name),
            };
        }
        self.sets.iter().try_for_each(|(name, edit)| edit.apply(name, ruleset))
    }
}

impl SetEdit {
    fn between(before: Option<&Set>, after: Option<&Set>) -> Self {
        let specs = Edit { before: before.map(|set| set.spec), after: after.map(|set| set.spec) };
        let mut elements = BTreeMap::new();
        for (key, value) in before.into_iter().flat_map(Set::iter) {
            if let Some(edit) = differing(Some(value), after.and_then(|set| set.get(key))) {
                elements.insert(key.clone(), edit);
            }
        }
        for (key, value) in after.into_iter().flat_map(Set::iter) {
            if before.is_none_or(|set| set.get(key).is_none()) {
                elements.insert(key.clone(), Edit { before: None, after: Some(value) });
            }
        }
        Self { spec: specs.changes().then_some(specs), elements }
    }

    fn apply(&self, name: &SetName, ruleset: &mut Ruleset) -> Result<(), Misfit> {
        let misfit = || Misfit { object: format!("set {name}") };
        match &self.spec {
            None => {
                let set = ruleset.sets.get_mut(name).ok_or_else(misfit)?;
                self.apply_elements(name, Arc::make_mut(set))
            }
            Some(edit) => {
                let old = ruleset.sets.remove(name);
                if old.as_ref().map(|set| set.spec) != edit.before {
                    return Err(misfit());
                }
                let Some(spec) = edit.after else { return Ok(()) };
                let set = self.remade(name, old.as_deref(), spec)?;
                ruleset.sets.insert(name.clone(), Arc::new(set));
                Ok(())
            }
        }
    }

    fn apply_elements(&self, name: &SetName, set: &mut Set) -> Result<(), Misfit> {
        for (key, edit) in &self.elements {
            let misfit = || Misfit { object: format!("element {key:?} of set {name}") };
            let before = match &edit.after {
                Some(value) => set.insert(key.clone(), value.clone()).map_err(|_| misfit())?,
                None => set.remove(key),
            };
            if before != edit.before {
                return Err(misfit());
            }
        }
        Ok(())
    }

    /// A new set with another spec: what it kept of the old one, and the edits. The shape may be another one.
    fn remade(&self, name: &SetName, old: Option<&Set>, spec: SetSpec) -> Result<Set, Misfit> {
        let misfit = |key: &Key| Misfit { object: format!("element {key:?} of set {name}") };
        let mut set = Set::new(spec);
        for (key, edit) in &self.elements {
            if old.and_then(|old| old.get(key)) != edit.before {
                return Err(misfit(key));
            }
            if let Some(value) = &edit.after {
                set.insert(key.clone(), value.clone()).map_err(|_| misfit(key))?;
            }
        }
        for (key, value) in old.into_iter().flat_map(Set::iter) {
            if !self.elements.contains_key(key) {
                set.insert(key.clone(), value).map_err(|_| misfit(key))?;
            }
        }
        Ok(set)
    }
}

/// A ruleset that notes what is done to it, so that the delta costs what the change costs.
#[derive(Debug, Default)]
pub struct Recorder {
    now: Ruleset,
    chains: BTreeMap<ChainName, Option<Arc<Chain>>>,
    specs: BTreeMap<SetName, Option<SetSpec>>,
    elements: BTreeMap<SetName, BTreeMap<Key, Option<Value>>>,
}

impl Recorder {
    /// Begins with a ruleset that stands already.
    pub fn of(ruleset: Ruleset) -> Self {
        Self { now: ruleset, ..Self::default() }
    }

    /// The ruleset as it stands.
    pub const fn ruleset(&self) -> &Ruleset {
        &self.now
    }

    /// Adds or replaces a chain.
    pub fn put_chain(&mut self, name: &ChainName, chain: Chain) {
        let before = self.now.chains.insert(name.clone(), Arc::new(chain));
        self.chains.entry(name.clone()).or_insert(before);
    }

    /// Takes a chain away; nothing happens if there is none.
    pub fn drop_chain(&mut self, name: &ChainName) {
        if let Some(before) = self.now.chains.remove(name) {
            self.chains.entry(name.clone()).or_insert(Some(before));
        }
    }

    /// Adds an empty set; a set that is there already stays as it is.
    pub fn put_set(&mut self, name: &SetName, spec: SetSpec) {
        if !self.now.sets.contains_key(name) {
            self.specs.entry(name.clone()).or_insert(None);
            self.now.sets.insert(name.clone(), Arc::new(Set::new(spec)));
        }
    }

    /// Takes a set away with all its elements; nothing happens if there is none.
    pub fn drop_set(&mut self, name: &SetName) {
        let Some(set) = self.now.sets.remove(name) else { return };
        self.specs.entry(name.clone()).or_insert(Some(set.spec));
        let noted = self.elements.entry(name.clone()).or_default();
        for (key, value) in set.iter() {
            noted.entry(key.clone()).or_insert(Some(value));
        }
    }

    /// Puts an element. A set that does not exist, or a value of the wrong kind, changes nothing.
    pub fn put(&mut self, name: &SetName, key: Key, value: Value) {
        let Some(set) = self.now.sets.get_mut(name) else { return };
        // Looked at before it is made ours: a set that a snapshot shares must not be copied for nothing.
        if set.get(&key).as_ref() == Some(&value) {
            return;
        }
        let Ok(before) = Arc::make_mut(set).insert(key.clone(), value) else { return };
        self.elements.entry(name.clone()).or_default().entry(key).or_insert(before);
    }

    /// Takes an element out.
    pub fn take(&mut self, name: &SetName, key: &Key) {
        let Some(set) = self.now.sets.get_mut(name) else { return };
        let Some(before) = set.get(key) else { return };
        Arc::make_mut(set).remove(key);
        self.elements.entry(name.clone()).or_default().entry(key.clone()).or_insert(Some(before));
    }

    /// What was done since the last call; what was undone again is not in it.
    pub fn take_delta(&mut self) -> Delta {
        let mut delta = Delta::default();
        for (name, before) in std::mem::take(&mut self.chains) {
            let edit = Edit { before, after: self.now.chains.get(&name).cloned() };
            if edit.changes() {
                delta.chains.insert(name, edit);
            }
        }
        for (name, before) in std::mem::take(&mut self.specs) {
            let edit = Edit { before, after: self.now.sets.get(&name).map(|set| set.spec) };
            if edit.changes() {
                delta.sets.entry(name).or_default().spec = Some(edit);
            }
        }
        for (name, noted) in std::mem::take(&mut self.elements) {
            let set = self.now.sets.get(&name);
            let mut edits = BTreeMap::new();
            for (key, before) in noted {
                let after = set.and_then(|set| set.get(&key));
                if let Some(edit) = differing(before, after) {
                    edits.insert(key, edit);
                }
            }
            if !edits.is_empty() {
                delta.sets.entry(name).or_default().elements = edits;
            }
        }
        delta
    }
}

fn differing(before: Option<Value>, after: Option<Value>) -> Option<Edit<Value>> {
    let edit = Edit { before, after };
    edit.changes().then_some(edit)
}

fn union<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> impl Iterator<Item = &'a K> {
    a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)))
}

#[cfg(test)]
mod tests;

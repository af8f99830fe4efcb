//! What nf_tables allows of one operation, measured and read in `nftables.md` section 5.
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use crate::ids::{ChainName, SetName};
use crate::ruleset::{Base, Chain, Ruleset};
use crate::set::{Key, Set, Shape, Value};
use crate::transaction::Op;

/// Why an operation is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Errno {
    /// The object, or one it names, does not exist.
    #[error("ENOENT: no such object")]
    Missing,
    /// There is one of that name, or an element overlaps.
    #[error("EEXIST: it exists")]
    Exists,
    /// Something still refers to it.
    #[error("EBUSY: still referred to")]
    Busy,
    /// The declared size is used up.
    #[error("ENFILE: the set is full")]
    Full,
    /// The set cannot hold such a key or value.
    #[error("EINVAL: does not fit the set")]
    Invalid,
    /// A rule or element leads into a base chain.
    #[error("EOPNOTSUPP: a base chain cannot be called")]
    BaseCalled,
}

/// Does one operation to a table, or says why the kernel would not; the table is then unchanged, but for the
/// elements before the refused one.
pub fn apply_op(ruleset: &mut Ruleset, op: &Op) -> Result<(), Errno> {
    match op {
        Op::AddTable if ruleset.is_empty() => Ok(()),
        Op::AddTable => Err(Errno::Exists),
        Op::DeleteTable => {
            *ruleset = Ruleset::default();
            Ok(())
        }
        Op::AddSet(name, spec) => vacant(ruleset.sets.entry(name.clone()), Set::new(*spec)),
        Op::DeleteSet(name) => delete_set(ruleset, name),
        Op::AddChain(name, base) => {
            vacant(ruleset.chains.entry(name.clone()), Chain { base: *base, rules: Vec::new() })
        }
        Op::AddRules(name, chain) => add_rules(ruleset, name, chain),
        Op::FlushChain(name) => {
            let chain = ruleset.chains.get_mut(name).ok_or(Errno::Missing)?;
            Arc::make_mut(chain).rules.clear();
            Ok(())
        }
        Op::DeleteChain(name) => delete_chain(ruleset, name),
        Op::AddElements(name, elements) => add_elements(ruleset, name, elements),
        Op::RemoveElements(name, keys) => {
            let set = Arc::make_mut(ruleset.sets.get_mut(name).ok_or(Errno::Missing)?);
            keys.iter().try_for_each(|key| set.remove(key).map(drop).ok_or(Errno::Missing))
        }
    }
}

fn vacant<K: Ord, V>(entry: Entry<'_, K, Arc<V>>, value: V) -> Result<(), Errno> {
    match entry {
        Entry::Occupied(_) => Err(Errno::Exists),
        Entry::Vacant(free) => {
            free.insert(Arc::new(value));
            Ok(())
        }
    }
}

fn add_rules(ruleset: &mut Ruleset, name: &ChainName, chain: &Chain) -> Result<(), Errno> {
    chain.targets().try_for_each(|target| callable(ruleset, target))?;
    if chain.sets().any(|set| !ruleset.sets.contains_key(set)) {
        return Err(Errno::Missing);
    }
    let into = ruleset.chains.get_mut(name).ok_or(Errno::Missing)?;
    Arc::make_mut(into).rules.extend(chain.rules.iter().cloned());
    Ok(())
}

fn callable(ruleset: &Ruleset, target: &ChainName) -> Result<(), Errno> {
    let base: Option<Base> = ruleset.chains.get(target).ok_or(Errno::Missing)?.base;
    if base.is_some() { Err(Errno::BaseCalled) } else { Ok(()) }
}

fn delete_chain(ruleset: &mut Ruleset, name: &ChainName) -> Result<(), Errno> {
    if !ruleset.chains.contains_key(name) {
        return Err(Errno::Missing);
    }
    let called = ruleset.chains.values().any(|chain| chain.targets().any(|target| target == name));
    if called || ruleset.sets.values().any(|set| set.targets().any(|target| target == name)) {
        return Err(Errno::Busy);
    }
    ruleset.chains.remove(name);
    Ok(())
}

fn delete_set(ruleset: &mut Ruleset, name: &SetName) -> Result<(), Errno> {
    if ruleset.chains.values().any(|chain| chain.sets().any(|set| set == name)) {
        return Err(Errno::Busy);
    }
    ruleset.sets.remove(name).map(drop).ok_or(Errno::Missing)
}

fn add_elements(ruleset: &mut Ruleset, name: &SetName, elements: &[(Key, Value)]) -> Result<(), Errno> {
    for (_, value) in elements {
        if let Value::Verdict(verdict) = value
            && let Some(target) = verdict.target()
        {
            callable(ruleset, target)?;
        }
    }
    let set = Arc::make_mut(ruleset.sets.get_mut(name).ok_or(Errno::Missing)?);
    for (key, value) in elements {
        if !holdable(set.spec.shape, key) {
            return Err(Errno::Invalid);
        }
        if set.spec.size.is_some_and(|size| set.len() >= usize::try_from(size).unwrap_or(usize::MAX)) {
            return Err(Errno::Full);
        }
        if set.get(key).is_some() || overlaps(set, key) {
            return Err(Errno::Exists);
        }
        set.insert(key.clone(), value.clone()).map_err(|_| Errno::Invalid)?;
    }
    Ok(())
}

fn holdable(shape: Shape, key: &Key) -> bool {
    let family = shape.family();
    let of = |address: &IpAddr| family == Some(crate::Family::of(address));
    match (shape, key) {
        (Shape::Addresses(_) | Shape::Banned(_) | Shape::Verdicts(_), Key::Address(address)) => of(address),
        (Shape::Ranges(_) | Shape::BannedRanges(_), Key::Range(first, last)) => {
            of(first) && of(last) && first <= last
        }
        (Shape::Pairs(_) | Shape::Learned(_), Key::Pair(source, destination)) => {
            of(source) && of(destination)
        }
        (Shape::Endpoints(_), Key::Endpoint(address, ..)) => of(address),
        (Shape::Services, Key::Service(..)) | (Shape::Links, Key::Link(_)) => true,
        (
            Shape::Addresses(_)
            | Shape::Verdicts(_)
            | Shape::Ranges(_)
            | Shape::Pairs(_)
            | Shape::Endpoints(_)
            | Shape::Services
            | Shape::Links
            | Shape::Banned(_)
            | Shape::BannedRanges(_)
            | Shape::Learned(_)
            | Shape::Meter(_),
            _,
        ) => false,
    }
}

fn overlaps(set: &Set, key: &Key) -> bool {
    match key {
        Key::Range(first, last) => set.iter().any(|(other, _)| match other {
            Key::Range(low, high) => low <= last && first <= high,
            Key::Address(_) | Key::Pair(..) | Key::Endpoint(..) | Key::Service(..) | Key::Link(_) => false,
        }),
        Key::Service(protocol, ports) => set.iter().any(|(other, _)| match other {
            Key::Service(owner, range) => {
                owner == protocol && range.first() <= ports.last() && ports.first() <= range.last()
            }
            Key::Address(_) | Key::Range(..) | Key::Pair(..) | Key::Endpoint(..) | Key::Link(_) => false,
        }),
        Key::Address(_) | Key::Pair(..) | Key::Endpoint(..) | Key::Link(_) => false,
    }
}

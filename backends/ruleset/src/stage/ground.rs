//! What the stager must know beside the delta: a few facts about what the delta leaves alone.
use std::ops::Bound;
use std::sync::Arc;

use crate::delta::Delta;
use crate::ids::{ChainName, SetName};
use crate::matching::Family;
use crate::ruleset::{Chain, Ruleset};
use crate::set::{Growth, Set, Shape};
use crate::verdict::Verdict;

/// The chain that drops what is not judged yet.
const PENDING: &str = "pending";

/// Chains that drop every packet, by name: what is not judged yet, and whose own chain the kernel refused.
const SHUT: [&str; 2] = [PENDING, "refused"];

pub(super) struct Ground<'a> {
    /// Old or new; never asked for what the delta edits.
    standing: &'a Ruleset,
    pub(super) delta: &'a Delta,
}

/// Which end of a packet a verdict map is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// By destination.
    Ingress,
    /// By source.
    Egress,
    /// The name does not say.
    Unknown,
}

impl Direction {
    pub(super) fn of(map: &SetName) -> Self {
        match map.as_str().get(..2) {
            Some("in") => Self::Ingress,
            Some("eg") => Self::Egress,
            _ => Self::Unknown,
        }
    }
}

impl<'a> Ground<'a> {
    pub(super) const fn new(standing: &'a Ruleset, delta: &'a Delta) -> Self {
        Self { standing, delta }
    }

    /// There is no table before.
    pub(super) fn starts_empty(&self) -> bool {
        self.delta_covers_all()
            && self.delta.chains.values().all(|edit| edit.before.is_none())
            && self
                .delta
                .sets
                .values()
                .all(|edit| edit.spec.as_ref().is_some_and(|spec| spec.before.is_none()))
    }

    /// There is no table after.
    pub(super) fn ends_empty(&self) -> bool {
        self.delta_covers_all()
            && self.delta.chains.values().all(|edit| edit.after.is_none())
            && self
                .delta
                .sets
                .values()
                .all(|edit| edit.spec.as_ref().is_some_and(|spec| spec.after.is_none()))
    }

    fn delta_covers_all(&self) -> bool {
        let chains = self.delta.chains.keys().filter(|name| self.standing.chains.contains_key(*name)).count();
        let sets = self.delta.sets.keys().filter(|name| self.standing.sets.contains_key(*name)).count();
        chains == self.standing.chains.len() && sets == self.standing.sets.len()
    }

    /// The chain as it stands before the delta.
    pub(super) fn chain_before(&self, name: &ChainName) -> Option<&'a Arc<Chain>> {
        match self.delta.chains.get(name) {
            Some(edit) => edit.before.as_ref(),
            None => self.standing.chains.get(name),
        }
    }

    /// All chains before the delta. Costs the whole table: only for a set that is remade.
    pub(super) fn chains_before(&self) -> impl Iterator<Item = (&'a ChainName, &'a Arc<Chain>)> {
        let edited = self.delta.chains.iter().filter_map(|(name, edit)| Some((name, edit.before.as_ref()?)));
        let kept = self.standing.chains.iter().filter(|(name, _)| !self.delta.chains.contains_key(*name));
        edited.chain(kept)
    }

    /// The set on the side at hand: what of it the delta does not name is the same on both.
    pub(super) fn set(&self, name: &SetName) -> Option<&'a Set> {
        self.standing.sets.get(name).map(AsRef::as_ref)
    }

    /// The verdict that keeps an address shut, with a count and a record where there is a chain for it.
    pub(super) fn shut(&self) -> Verdict {
        match self.standing.chains.get_key_value(PENDING) {
            Some((name, _)) if !self.delta.chains.contains_key(name) => Verdict::Goto(name.clone()),
            Some(_) | None => Verdict::Drop,
        }
    }

    /// Does the verdict drop every packet?
    pub(super) fn shuts(verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Drop | Verdict::Reject(_) => true,
            Verdict::Goto(chain) | Verdict::Jump(chain) => SHUT.contains(&chain.as_str()),
            Verdict::Accept | Verdict::Return => false,
        }
    }

    /// Does the verdict let every packet through, as far as its map is asked?
    pub(super) fn opens(verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Return => true,
            Verdict::Goto(chain) | Verdict::Jump(chain) => chain.only_audits(),
            Verdict::Accept | Verdict::Drop | Verdict::Reject(_) => false,
        }
    }

    /// Does a packet whose address the map does not hold pass on, whatever else it is? Not where a closing set may
    /// catch it behind the map, nor where the rules behind it change. Sets of interfaces behind an ingress map do not
    /// count: what is asked there is only for addresses no pod has (groups, link-local, broadcast).
    pub(super) fn absent_is_open(&self, direction: Direction, family: Family) -> bool {
        let catches = |shape: Shape| match direction {
            Direction::Ingress => shape == Shape::Ranges(family),
            Direction::Egress => shape == Shape::Ranges(family) || shape == Shape::Links,
            Direction::Unknown => true,
        };
        let edited = self.delta.sets.iter().any(|(name, edit)| {
            let shape = self.set(name).map(|set| set.spec.shape);
            let specs = edit.spec.iter().flat_map(|spec| [spec.before, spec.after]).flatten();
            let mut shapes = specs.map(|spec| spec.shape).chain(shape);
            Growth::of(name) == Growth::Closes && shapes.any(catches)
        });
        let kept = self.closing_sets().any(|(name, set)| {
            !self.delta.sets.contains_key(name) && !set.is_empty() && catches(set.spec.shape)
        });
        direction != Direction::Unknown && !edited && !kept
    }

    fn closing_sets(&self) -> impl Iterator<Item = (&'a SetName, &'a Arc<Set>)> {
        let named_so = (Bound::Included("c_"), Bound::Excluded("c`")); // '`' follows '_'
        self.standing.sets.range::<str, _>(named_so)
    }
}

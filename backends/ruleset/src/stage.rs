//! The stager: a delta in, fail-closed transactions out. Pure; its cost follows the delta.
//!
//! Owns the order of every write. A transaction is atomic for the control plane, not for a packet that looks
//! twice ([`evaluate::mixtures`](crate::evaluate::mixtures), `nftables.md` 2.5), so an edit that touches two
//! things one packet may look at is split into commits. Laws, held by property tests over random rulesets:
//!
//! 1. The stages, one after the other, make exactly `old + delta`.
//! 2. A packet that both old and new deny passes at no stage and in no mixture of a commit.
//! 3. A packet that both allow is dropped at no stage and in no mixture, where the delta only moves one address
//!    between address sets, or only repoints map elements.
//!
//! ## Why it holds
//! The layout is *monotone*: a packet passes iff its egress part and its ingress part pass, and each part lets
//! more through when a set that opens grows, a set that closes shrinks ([`Growth`](crate::Growth)), or its one map element rises
//! in the order `drop`, `goto pending` <= a policy-set chain <= `return`, which a chain that
//! [only audits](crate::ChainName::only_audits) is worth as well. Old and new therefore have a *meet*:
//! all sets at their smaller, all elements at their lower value. **Down** to the meet, then **up** from it: while
//! going down every mixture is at most old, while going up at most new. The stages are:
//!
//! | | kind | does |
//! |---|---|---|
//! | 1 | [`Shrink`](StageKind::Shrink) | creates sets and chains nothing leads to yet; takes from opening sets, adds to closing ones; lowers elements whose target stands |
//! | 2 | [`Repoint`](StageKind::Repoint) | sets the other elements to their final values, if no packet can meet two of them, **or** |
//! | 2 | [`Narrow`](StageKind::Narrow) | sets them to the meet: `x: jump old; jump new` for two chains, `goto pending` where one side is unknown |
//! | 3 | [`Rewire`](StageKind::Rewire) | replaces rules of fixed chains and base chains, in place; all maps are at the meet |
//! | 4 | [`Grow`](StageKind::Grow) | raises elements to their final values, adds to opening sets, takes from closing ones |
//! | 5 | [`Reap`](StageKind::Reap) | deletes what nothing leads to; the caller waits 50 ms before it, for packets still inside |
//!
//! Empty stages are left out. A packet meets two edited elements only as egress of its source and ingress of its
//! destination, so edits of one direction only, or of one address only, take the direct way. An element that is
//! absent is open, unless a closing set may catch the packet behind the map; then it is unknown and the lower
//! value is `goto pending`. Rules of fixed chains change together: a packet runs rules of one generation.
//!
//! Creation is a commit of its own because a packet may find a new element and run the generation of rules in
//! which the chain behind it is still empty; deletion likewise.
//!
//! **One address moving between opening address sets** goes up first, then down: no flow allowed on both sides
//! stalls, and nothing leaks. A packet asks such a set for its source in its ingress part and for its destination
//! in its egress part, so only one part sees the move, and a rule asks each end of at most one set: what passes in
//! the union of the sets passes by one rule, thus on one side. Endpoint sets do not join in: both parts ask them
//! for the destination. (A pod that moves from `ep_b` to `s_a` would be open to one whose egress asks `s_a` while
//! its own ingress asks `ep_b`.)
//!
//! **Neutral sets** (recheck) only concern established flows. What leaves does so in stage 4; what comes, after
//! it, so that flows are judged again by the final policy; but when some leave too, the others come in stage 1,
//! lest a flow be between two rechecks.
//!
//! **A set remade with another spec** under its name cannot be in use meanwhile: the chains that use it drop
//! everything first and come back as a rewire.
//!
//! ## What the layout must keep for this to hold
//! Opening sets are asked only by rules that return, closing ones only by rules that drop or go to such; a packet
//! from an address to itself is always let through (hairpin), since it is the one that meets both elements of
//! one address (one that was not translated is forged: it gains the mixture of a commit at most); maps are named `in...` by destination and `eg...` by source, others count as contended.
use crate::delta::Delta;
use crate::ruleset::Ruleset;
use crate::transaction::{Op, Transaction};

mod chains;
mod ground;
mod members;
mod ranges;
mod reap;
mod remake;
mod repoint;

use chains::ChainWork;
use ground::Ground;
use members::MemberWork;
use repoint::Route;

/// One transaction of an ordered list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// What to commit.
    pub transaction: Transaction,
    /// What it is for.
    pub kind: StageKind,
}

/// What a stage does for the law of the stager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StageKind {
    /// The whole table from nothing, in one: its base chains come with it.
    Load,
    /// Creates unseen, closes.
    Shrink,
    /// Lowers map elements to what both old and new let through.
    Narrow,
    /// Replaces the rules of fixed chains.
    Rewire,
    /// Sets map elements to their final values.
    Repoint,
    /// Opens.
    Grow,
    /// Deletes what nothing leads to. Wait 50 ms before it; the next delta's stages come after it.
    Reap,
    /// Deletes the whole table.
    Unload,
}

impl StageKind {
    /// The name, as logs and metrics carry it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Shrink => "shrink",
            Self::Narrow => "narrow",
            Self::Rewire => "rewire",
            Self::Repoint => "repoint",
            Self::Grow => "grow",
            Self::Reap => "reap",
            Self::Unload => "unload",
        }
    }
}

impl Stage {
    fn of(kind: StageKind, ops: Vec<Op>) -> Option<Self> {
        (!ops.is_empty()).then(|| Self { transaction: Transaction::new(ops), kind })
    }
}

/// Orders a delta into commits. `standing` is the ruleset on **either side** of the delta, old or new: it is only
/// asked for what the delta leaves alone, so that a [`Recorder`](crate::Recorder) need not keep a copy.
pub fn stages(standing: &Ruleset, delta: &Delta) -> Vec<Stage> {
    let ground = Ground::new(standing, delta);
    if delta.is_empty() {
        return Vec::new();
    }
    if ground.starts_empty() {
        return Vec::from_iter(Stage::of(StageKind::Load, chains::load(delta)));
    }
    if ground.ends_empty() {
        return Vec::from_iter(Stage::of(StageKind::Unload, vec![Op::DeleteTable]));
    }
    match remake::apart(&ground) {
        None => staged(&ground),
        Some((mut first, rest)) => {
            first.extend(staged(&Ground::new(standing, &rest)));
            first
        }
    }
}

fn staged(ground: &Ground<'_>) -> Vec<Stage> {
    let members = MemberWork::of(ground.delta);
    if members::moves_one_address(ground.delta) {
        let order = [(StageKind::Grow, members.up), (StageKind::Shrink, members.down)];
        return order.into_iter().filter_map(|(kind, ops)| Stage::of(kind, ops)).collect();
    }
    let chains = ChainWork::of(ground.delta);
    let route = Route::of(ground, &chains);
    let mut create = chains.create;
    create.extend(route.meets.create());
    create.extend(members.down);
    create.extend(route.down);
    let mut up = route.up;
    up.extend(members.up);
    let mut reap = route.meets.reap();
    reap.extend(reap::reap(ground.delta));
    let order = [
        (StageKind::Shrink, create),
        (route.middle_kind, route.middle),
        (StageKind::Rewire, chains.rewire),
        (StageKind::Grow, up),
        (StageKind::Grow, members.last),
        (StageKind::Reap, reap),
    ];
    order.into_iter().filter_map(|(kind, ops)| Stage::of(kind, ops)).collect()
}

#[cfg(test)]
mod tests;

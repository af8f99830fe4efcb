//! A packet that crosses a commit.
//!
//! Owns what such a packet can see. A transaction is atomic for the control plane, not for a packet that looks
//! twice: the rules it runs are those of one generation, taken once for each base chain (`genbit` in
//! `nft_do_chain`), but every set is asked at the time it is asked, and interval sets are swapped one by one
//! while the commit goes on. So rules are taken from one side for the whole packet and each lookup picks its
//! side for itself. A chain or set that its side does not have is there without content: the kernel links a new
//! chain with an empty list of rules into the old generation, so an element that already shows may lead there.
//!
//! A lookup is taken to find what one of the sides holds. Kernels before the set lookup restarts when a commit
//! finishes meanwhile ("restart set lookup on base_seq change", Linux 6.17) can for an instant find neither value
//! of an element that is being replaced; the packet then fares like one of an address without a verdict.
//!
//! Every combination is tried; only lookups whose two sides differ double the work.
use std::cell::RefCell;

use super::{Decision, Trace, View, walk::walk};
use crate::ids::{ChainName, SetName};
use crate::packet::Packet;
use crate::ruleset::{Chain, Ruleset};
use crate::set::{Key, Value};

/// Is there any way for the packet to pass while `before` is turned into `after` in one commit?
pub fn may_pass(before: &Ruleset, after: &Ruleset, packet: &Packet) -> bool {
    mixtures(before, after, packet).any(|trace| trace.decision == Decision::Accept)
}

/// Is there any way for the packet to be dropped while `before` is turned into `after` in one commit?
pub fn may_drop(before: &Ruleset, after: &Ruleset, packet: &Packet) -> bool {
    mixtures(before, after, packet).any(|trace| trace.decision != Decision::Accept)
}

/// Every way through the commit, the two that see only one side included.
pub const fn mixtures<'a>(before: &'a Ruleset, after: &'a Ruleset, packet: &'a Packet) -> Mixtures<'a> {
    Mixtures { before, after, packet, next: Some(Vec::new()) }
}

/// See [`mixtures`].
#[derive(Debug)]
pub struct Mixtures<'a> {
    before: &'a Ruleset,
    after: &'a Ruleset,
    packet: &'a Packet,
    next: Option<Vec<Seen>>,
}

impl Iterator for Mixtures<'_> {
    type Item = Trace;

    fn next(&mut self) -> Option<Trace> {
        let script = self.next.take()?;
        let crossing =
            Crossing { before: self.before, after: self.after, play: RefCell::new(Play { script, at: 0 }) };
        let rules = crossing.play.borrow_mut().choose();
        let trace = match rules {
            Seen::Before => walk(&Sides { rules: self.before, crossing: &crossing }, self.packet),
            Seen::After => walk(&Sides { rules: self.after, crossing: &crossing }, self.packet),
        };
        self.next = crossing.play.into_inner().following();
        Some(trace)
    }
}

/// Which side one look fell on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Before,
    After,
}

/// The looks of one packet: those of the script first, then always the side before.
#[derive(Debug)]
struct Play {
    script: Vec<Seen>,
    at: usize,
}

impl Play {
    fn choose(&mut self) -> Seen {
        let seen = self.script.get(self.at).copied().unwrap_or(Seen::Before);
        if self.at == self.script.len() {
            self.script.push(seen);
        }
        self.at += 1;
        seen
    }

    /// The next script in order, as one counts in binary; what follows the last step back is chosen anew.
    fn following(mut self) -> Option<Vec<Seen>> {
        self.script.truncate(self.at);
        while self.script.last() == Some(&Seen::After) {
            self.script.pop();
        }
        self.script.pop()?;
        self.script.push(Seen::After);
        Some(self.script)
    }
}

struct Crossing<'a> {
    before: &'a Ruleset,
    after: &'a Ruleset,
    play: RefCell<Play>,
}

struct Sides<'a> {
    rules: &'a Ruleset,
    crossing: &'a Crossing<'a>,
}

impl View for Sides<'_> {
    fn bases(&self) -> Vec<(&ChainName, &Chain)> {
        self.rules.bases()
    }

    fn chain(&self, name: &ChainName) -> Option<&Chain> {
        self.rules.chain(name)
    }

    fn find(&self, set: &SetName, point: &Key) -> Option<Value> {
        let (before, after) = (self.crossing.before.find(set, point), self.crossing.after.find(set, point));
        if before == after {
            return before;
        }
        match self.crossing.play.borrow_mut().choose() {
            Seen::Before => before,
            Seen::After => after,
        }
    }
}

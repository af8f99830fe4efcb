//! Established flows after a change: which addresses are owed a look, and the temporary rule while they are looked at.
//!
//! The rule is armed right after the last stage, before any flow is looked at, so a flow that is no longer allowed
//! stops with the commit and not with its deletion (decision L2).
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc::Sender;

use podwall_engine::compile::names;
use podwall_engine::{Barred, recheck};
use podwall_ruleset::{Key, Ruleset, Shape, Value, Verdict, stages};

use super::Established;
use super::kernel::{Failure, Kernel};
use crate::agent::flows::Job;

/// What is owed and what is under way.
pub(super) struct Recheck {
    jobs: Sender<Job>,
    tightened: BTreeSet<IpAddr>,
    released: BTreeSet<IpAddr>,
    barred: Barred,
    /// Flows of these are looked at without the rule.
    reviewed: (BTreeSet<IpAddr>, Barred),
    /// Addresses the rule judges now, and whether it asks for bans.
    armed: (BTreeSet<IpAddr>, Barred),
    number: u64,
}

impl Recheck {
    pub(super) fn new(jobs: Sender<Job>) -> Self {
        let (tightened, released, barred, reviewed, armed) = Default::default();
        Self { jobs, tightened, released, barred, reviewed, armed, number: 0 }
    }

    /// Flows of these addresses must be looked at once the rules stand; all of them, if bans got tighter.
    pub(super) fn owe(&mut self, tightened: &BTreeSet<IpAddr>, released: &BTreeSet<IpAddr>, barred: Barred) {
        self.tightened.extend(tightened);
        self.released.extend(released);
        self.barred = self.barred.max(barred);
    }

    /// Flows of these are looked at although no rule changed: what is forbidden among them went on for as long as no
    /// agent ran, so the rule, which costs every packet a look and the table a write, is not armed for the last moment.
    pub(super) fn review(&mut self, addresses: BTreeSet<IpAddr>) {
        self.reviewed = (addresses, std::mem::take(&mut self.barred));
    }

    /// Nothing is owed: the flows there are were never judged (decision L2). What is banned is cut all the same.
    pub(super) fn forgive(&mut self) {
        self.tightened.clear();
        self.released.clear();
    }

    /// The rules stand: arms the rule and hands the flows on.
    pub(super) fn settle(&mut self, kernel: &mut Kernel, established: Established) -> Result<(), Failure> {
        let tightened = std::mem::take(&mut self.tightened);
        // An address somebody owns again is judged by its new owner's rules: its new flows must not be cut.
        let (owned, gone): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) = std::mem::take(&mut self.released)
            .into_iter()
            .partition(|address| is_owned(kernel.standing(), *address));
        let judged: BTreeSet<IpAddr> = match established {
            Established::Recheck => tightened.into_iter().chain(owned).collect(),
            Established::Keep => owned,
        };
        // Bans cut flows whatever was chosen for policies: that is what they are for.
        let (reviewed, review) = match (std::mem::take(&mut self.reviewed), established) {
            (reviewed, Established::Recheck) => reviewed,
            ((_, barred), Established::Keep) => (BTreeSet::new(), barred),
        };
        let barred = std::mem::take(&mut self.barred);
        if judged.is_empty() && gone.is_empty() && reviewed.is_empty() && barred.max(review) == Barred::Same {
            // A repair takes the rule away while its flows are still being looked at.
            return if self.is_armed() { self.arm(kernel) } else { Ok(()) };
        }
        self.number += 1;
        self.armed.0.extend(&judged);
        self.armed.1 = self.armed.1.max(barred);
        let armed = self.arm(kernel);
        let ruleset = kernel.standing().clone();
        let looked_at = self.armed.0.union(&reviewed).copied().collect();
        let barred = self.armed.1.max(review);
        let job = Job { number: self.number, judged: looked_at, released: gone, barred, ruleset };
        if self.jobs.send(job).is_err() {
            tracing::error!("the flows thread is gone; the next agent cuts what is no longer allowed");
        }
        armed
    }

    /// The number of the last job.
    #[cfg(test)]
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// A job is done; answers whether it was the last.
    pub(super) fn done(&mut self, number: u64) -> bool {
        let last = number == self.number && self.is_armed();
        if last {
            self.armed = Default::default();
        }
        last
    }

    /// Takes the rule away.
    pub(super) fn disarm(&self, kernel: &mut Kernel) -> Result<(), Failure> {
        self.arm(kernel)
    }

    fn is_armed(&self) -> bool {
        !self.armed.0.is_empty() || self.armed.1 != Barred::Same
    }

    fn arm(&self, kernel: &mut Kernel) -> Result<(), Failure> {
        let delta = recheck::arm(kernel.standing(), &self.armed.0, self.armed.1);
        if delta.is_empty() {
            return Ok(());
        }
        let stages = stages(kernel.standing(), &delta);
        kernel.commit_all(&stages)
    }
}

/// Local addresses some direction of which is judged; what is only audited is open.
pub(super) fn judged_addresses(ruleset: &Ruleset) -> BTreeSet<IpAddr> {
    let maps = ruleset.sets.values().filter(|set| matches!(set.spec.shape, Shape::Verdicts(_)));
    let elements = maps.flat_map(|map| map.iter());
    let judged = |(key, value): (&Key, Value)| match value {
        Value::Verdict(verdict) => {
            verdict.target().filter(|chain| !names::is_audit(chain)).and_then(|_| key.address())
        }
        Value::Member | Value::Until(_) => None,
    };
    elements.filter_map(judged).collect()
}

/// Does a pod answer to the address? Kept shut for a gone pod is not owned.
fn is_owned(ruleset: &Ruleset, address: IpAddr) -> bool {
    let pending = Verdict::Goto(names::pending());
    let key = Key::Address(address);
    ruleset.sets.values().filter_map(|set| set.verdict(&key)).any(|verdict| *verdict != pending)
}

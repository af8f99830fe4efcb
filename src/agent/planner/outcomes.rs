//! What the kernel's thread answers, and what the node cannot bear: who is shut for it, and until when.
use std::collections::BTreeMap;
use std::time::Instant as Moment;

use podwall_engine::Change;
use podwall_ruleset::ChainName;
use tokio::time::Instant;

use super::{Phase, Planner, RETRY_REFUSED, relief};
use crate::agent::work::{Outcome, Standing};
use crate::telemetry::health::Concern;

impl Planner {
    pub(super) fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Judged(addresses) => self.judged_before = addresses,
            Outcome::Learned(lessons) => self.teaching.stood(lessons),
            Outcome::Standing(standing) => {
                self.gathering.standing();
                self.telling.standing(standing);
                self.begin_grace(standing);
            }
            Outcome::Done => {
                self.busy = false;
                self.teaching.done();
                self.telling.marks.done();
            }
            Outcome::Undone => {
                self.busy = false;
                self.teaching.done();
                self.telling.marks.lost();
            }
            Outcome::Lost => {
                self.phase = self.phase.lost();
                self.telling.marks.lost();
            }
            Outcome::Refused(chains) => {
                self.phase = self.phase.lost();
                self.telling.marks.lost();
                self.refuse(chains);
            }
            Outcome::Hits(hits) => {
                let told = self.hits.take(hits, &self.engine, &self.telemetry.metrics);
                self.telling.sheet.hits(told);
            }
            Outcome::TornDown => {
                self.phase = Phase::Ended;
                self.telling.marks.withdraw();
                self.teaching.end();
                self.telemetry.health.raise(
                    Concern::TornDown,
                    "the rules were taken away on request; restart the agent to enforce again",
                );
            }
        }
    }

    /// Flows from before the first adoption were never judged, and conntrack may not know them (L1).
    fn begin_grace(&mut self, standing: Standing) {
        let over = match standing {
            Standing::Strict => true,
            Standing::Nothing | Standing::Lenient => self.grace.is_zero(),
        };
        if over {
            self.change(Change::GraceOver, Moment::now());
        } else {
            self.grace_ends = Some(Instant::now() + self.grace);
        }
    }

    pub(super) fn refuse(&mut self, chains: BTreeMap<ChainName, String>) {
        self.refused = chains;
        self.shut();
    }

    /// Shuts whoever would enter a chain that the kernel refused or the node cannot bear.
    fn shut(&mut self) {
        let all: BTreeMap<ChainName, String> =
            self.refused.iter().chain(&self.excess).map(|(name, why)| (name.clone(), why.clone())).collect();
        // Asked before the engine forgets the chains.
        self.reports.refused(&all, &self.engine);
        self.retry_refused = (!all.is_empty()).then(|| Instant::now() + RETRY_REFUSED);
        self.change(Change::Refused(all.into_keys().collect()), Moment::now());
    }

    /// Nothing goes to the kernel that would keep it busy for long.
    pub(super) fn relieve(&mut self) {
        let sets = self.engine.ruleset().sets.len();
        if sets > relief::MOST_SETS {
            let more = relief::excess(self.engine.ruleset(), &self.engine.origins(), relief::MOST_SETS);
            self.excess.extend(more);
            self.shut();
        }
    }
}

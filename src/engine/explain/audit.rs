//! What policies that are only audited would say of a packet, were they enforced.
use podwall_ruleset::evaluate::{Decision, Trace};
use serde::Serialize;

use crate::change::Change;
use crate::compile::names;
use crate::engine::Engine;
use crate::model::ban::Mode;
use crate::model::{Direction, Pod, Policy};
use crate::resolve::{self, Judged};

use super::nearest::{self, Nearest};
use super::{Case, with_open_egress};

/// What audited policies would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// The audited policies that speak of this direction of this pod.
    pub policies: Vec<String>,
    /// What would become of the packet.
    pub outcome: Outcome,
    /// When it would be dropped: the rule that came closest to allowing it.
    pub nearest: Option<Nearest>,
    /// When it would be dropped: the chain that counts and records it.
    pub chain: Option<String>,
}

/// What would become of a packet if all audited policies were enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// What becomes of it now.
    Same,
    /// It passes now, and would be dropped.
    WouldDrop,
    /// It is dropped now, and would pass.
    WouldPass,
}

impl Case<'_> {
    /// `None`: nobody audits this direction of the pod.
    pub(super) fn audit(&self, subject: &Pod, direction: Direction, trace: &Trace) -> Option<Audit> {
        let audited = resolve::audited(self.cluster, subject, direction);
        if audited.is_empty() {
            return None;
        }
        let chain = trace.would_drop().find(|chain| names::is_audit(chain));
        let outcome = match (chain, &trace.decision) {
            (Some(_), Decision::Accept) => Outcome::WouldDrop,
            (_, Decision::Drop { .. }) if self.passes_once_enforced(subject, direction) => Outcome::WouldPass,
            (None, Decision::Accept) | (_, Decision::Drop { .. }) => Outcome::Same,
        };
        let promoted = Judged::of(self.cluster, subject, direction).promoted;
        let nearest = match (outcome, &promoted) {
            (Outcome::WouldDrop, Some((governing, _))) => {
                nearest::nearest(self.cluster, governing, direction, subject, self.peer(direction))
            }
            (Outcome::WouldDrop | Outcome::Same | Outcome::WouldPass, _) => None,
        };
        Some(Audit {
            policies: audited.iter().map(|policy| policy.id.to_string()).collect(),
            nearest,
            chain: chain.filter(|_| outcome == Outcome::WouldDrop).map(ToString::to_string),
            outcome,
        })
    }

    /// Asked of the ruleset that the node would load then.
    fn passes_once_enforced(&self, subject: &Pod, direction: Direction) -> bool {
        let mut all = self.cluster.clone();
        for policy in resolve::audited(self.cluster, subject, direction) {
            all.apply(Change::Policy(Policy { mode: Mode::Enforce, ..policy.as_ref().clone() }));
        }
        let Some(node) = &subject.node else { return false };
        let mut plan = Engine::plan(&all, node, self.options);
        if direction == Direction::Ingress {
            plan.ruleset = with_open_egress(&plan.ruleset, self.from.address);
        }
        self.trace(&plan.ruleset, direction).decision == Decision::Accept
    }
}

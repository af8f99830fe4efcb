//! What is wrong with which object, told once: in the log, as a metric, as a Kubernetes event on the object.
use std::collections::BTreeMap;

use podwall_crd::node_report::{Exception, ExceptionReason, ReportedKind};
use podwall_engine::model::{NodeName, PodUid, PolicyId, Text};
use podwall_engine::plan::Origins;
use podwall_engine::{Change, ObjectRef, Warning};
use podwall_ruleset::ChainName;

use crate::telemetry::events::Events;
use crate::telemetry::health::Concern;
use crate::telemetry::server::Telemetry;

/// Every warning that holds now, by object.
#[derive(Debug)]
pub struct Reports {
    by_object: BTreeMap<Subject, Vec<Warning>>,
    refused: Vec<Warning>,
    events: Events,
    telemetry: Telemetry,
    revision: u64,
}

/// The object of a change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Pod(PodUid),
    Namespace(Text),
    Node(NodeName),
    Policy(PolicyId),
}

impl Subject {
    fn of(change: &Change) -> Option<Self> {
        match change {
            Change::Pod(pod) => Some(Self::Pod(pod.uid.clone())),
            Change::PodGone(uid) => Some(Self::Pod(uid.clone())),
            Change::Namespace(name, _) | Change::NamespaceGone(name) => {
                Some(Self::Namespace(Text::clone(name)))
            }
            Change::Node(node) => Some(Self::Node(node.name.clone())),
            Change::NodeGone(name) => Some(Self::Node(name.clone())),
            Change::Policy(policy) => Some(Self::Policy(policy.id.clone())),
            Change::PolicyGone(id) => Some(Self::Policy(id.clone())),
            Change::Links(_)
            | Change::AddressHeld(_)
            | Change::AddressFree(_)
            | Change::Watch(_)
            | Change::GraceOver
            | Change::Refused(_) => None,
        }
    }
}

impl Reports {
    /// Nothing is wrong yet.
    pub const fn new(events: Events, telemetry: Telemetry) -> Self {
        Self { by_object: BTreeMap::new(), refused: Vec::new(), events, telemetry, revision: 0 }
    }

    /// The warnings of an object as it is now; new ones are told.
    pub fn object(&mut self, change: &Change, warnings: Vec<Warning>) {
        if warnings.is_empty() && self.by_object.is_empty() {
            return;
        }
        let Some(subject) = Subject::of(change) else { return };
        self.revision += 1;
        let known = self.by_object.remove(&subject).unwrap_or_default();
        for warning in warnings.iter().filter(|warning| !known.contains(warning)) {
            self.tell(warning);
        }
        if !warnings.is_empty() {
            self.by_object.insert(subject, warnings);
        }
        self.count();
    }

    /// An object that cannot be used at all.
    pub fn unusable(&self, warning: &Warning) {
        self.tell(warning);
    }

    /// The kernel refuses these chains; `origins` know whose they are. Replaces what was refused before.
    pub fn refused(&mut self, chains: &BTreeMap<ChainName, String>, origins: &Origins) {
        let mut warnings = Vec::new();
        for (chain, reason) in chains {
            let policies =
                origins.chains.get(chain).map(|origin| origin.policies.as_slice()).unwrap_or_default();
            warnings.extend(policies.iter().map(|policy| refusal(policy, chain, reason)));
        }
        for warning in warnings.iter().filter(|warning| !self.refused.contains(warning)) {
            self.tell(warning);
        }
        let words = (!chains.is_empty())
            .then(|| format!("the kernel refuses {} chains; the pods they govern are shut", chains.len()));
        self.telemetry.health.set(Concern::Refused, words);
        self.telemetry.metrics.refused_chains.set(i64::try_from(chains.len()).unwrap_or(i64::MAX));
        self.refused = warnings;
        self.count();
    }

    /// How often anything here changed.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Objects of kinds that are reported on and are not in force as they stand, one exception for each field at fault.
    pub fn exceptions(&self) -> Vec<Exception> {
        self.by_object.values().flatten().filter_map(exception).collect()
    }

    fn tell(&self, warning: &Warning) {
        tracing::warn!("{warning}");
        self.events.tell(warning);
    }

    fn count(&self) {
        let objects = self.by_object.len() + self.refused.len();
        self.telemetry.metrics.warnings.set(i64::try_from(objects).unwrap_or(i64::MAX));
    }
}

fn exception(warning: &Warning) -> Option<Exception> {
    let kind = match warning.object.kind {
        "Ban" => ReportedKind::Ban,
        "ServiceExposure" => ReportedKind::ServiceExposure,
        "Ktban" => ReportedKind::Ktban,
        _ => return None,
    };
    Some(Exception {
        kind,
        namespace: warning.object.namespace.to_string(),
        name: warning.object.name.to_string(),
        uid: warning.object.uid.to_string(),
        reason: ExceptionReason::NotUnderstood,
        field: warning.field.clone(),
        message: warning.problem.clone(),
    })
}

fn refusal(policy: &PolicyId, chain: &ChainName, reason: &str) -> Warning {
    let object = ObjectRef {
        kind: "NetworkPolicy",
        namespace: Text::clone(&policy.namespace),
        name: Text::clone(&policy.name),
        uid: Text::from(""),
    };
    let problem = format!("the kernel refused its chain {chain} ({reason}); the pods it selects are shut");
    Warning { object, field: "spec".to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use podwall_engine::model::{Direction, Tier};
    use podwall_engine::plan::ChainOrigin;

    use super::*;

    fn id() -> PolicyId {
        PolicyId { tier: Tier::Namespace, namespace: "shop".into(), name: "web".into() }
    }

    #[test]
    fn a_warning_counts_while_its_object_has_it_and_a_refused_chain_names_its_policies() {
        let telemetry = Telemetry::default();
        let events = Events::nowhere(std::sync::Arc::clone(&telemetry.metrics));
        let mut reports = Reports::new(events, telemetry.clone());
        let chain = ChainName::new("i4_x").unwrap();
        let warning = refusal(&id(), &chain, "EINVAL");
        reports.object(&Change::PolicyGone(id()), vec![warning.clone()]);
        assert_eq!(telemetry.metrics.warnings.get(), 1);
        reports.object(&Change::PolicyGone(id()), Vec::new());
        assert_eq!(telemetry.metrics.warnings.get(), 0);

        let origin = ChainOrigin { direction: Direction::Ingress, policies: vec![id()] };
        let origins = Origins { chains: BTreeMap::from([(chain.clone(), origin)]), ..Origins::default() };
        reports.refused(&BTreeMap::from([(chain, "EINVAL".to_owned())]), &origins);
        assert_eq!(reports.refused, [warning]);
        assert_eq!(telemetry.metrics.refused_chains.get(), 1);
        reports.refused(&BTreeMap::new(), &Origins::default());
        assert_eq!((telemetry.metrics.warnings.get(), telemetry.health.report().concerns.len()), (0, 1));
    }
}

//! What is wrong with which object, told once: in the log, as a metric, as a Kubernetes event on the object.
//!
//! Events wait until everything was read: only then is it known which node writes them.
mod teller;

use std::collections::BTreeMap;

use podwall_crd::node_report::{Exception, ExceptionReason, ReportedKind};
use podwall_engine::compile::names;
use podwall_engine::model::ban::Mode;
use podwall_engine::model::{BanId, Exposure, Named, NodeName, PodUid, PolicyId, Text};
use podwall_engine::{Change, Cluster, Engine, ObjectRef, Warning};
use podwall_ruleset::ChainName;

use crate::telemetry::events::Events;
use crate::telemetry::health::Concern;
use crate::telemetry::server::Telemetry;

/// Every warning that holds now, by object.
#[derive(Debug)]
pub struct Reports {
    by_object: BTreeMap<Subject, Vec<Warning>>,
    refused: BTreeMap<ChainName, Vec<Warning>>,
    /// What this node cannot do of bans that it understands.
    remarks: BTreeMap<BanId, Vec<Remark>>,
    /// Policies whose names lead nowhere here.
    nameless: BTreeMap<PolicyId, Remark>,
    /// No event was written of these yet, by us or another node.
    untold: Vec<Warning>,
    events: Events,
    telemetry: Telemetry,
    revision: u64,
}

/// Something about an object that is well understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// What.
    pub warning: Warning,
    /// Why, in one word.
    pub reason: ExceptionReason,
}

/// The object of a change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Pod(PodUid),
    Namespace(Text),
    Node(NodeName),
    Policy(PolicyId),
    Ban(BanId),
    Service(Named),
    Exposure(Named),
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
            Change::Ban(ban) => Some(Self::Ban(ban.id.clone())),
            Change::BanGone(id) => Some(Self::Ban(id.clone())),
            Change::Exposure(exposure) => Some(Self::Exposure(exposure.id.clone())),
            Change::ExposureGone(id) => Some(Self::Exposure(id.clone())),
            Change::Service(service) => Some(Self::Service(service.id.clone())),
            Change::ServiceGone(id) => Some(Self::Service(id.clone())),
            Change::ApiServers(_)
            | Change::Clock(_)
            | Change::Learned(_)
            | Change::Links(_)
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
    pub fn new(events: Events, telemetry: Telemetry) -> Self {
        Self {
            by_object: BTreeMap::new(),
            refused: BTreeMap::new(),
            remarks: BTreeMap::new(),
            nameless: BTreeMap::new(),
            untold: Vec::new(),
            events,
            telemetry,
            revision: 0,
        }
    }

    /// Everything there is was read: tells the cluster what is ours to tell.
    pub fn tell_cluster(&mut self, engine: &Engine) {
        for warning in std::mem::take(&mut self.untold) {
            let teller = teller::teller(engine.cluster(), &warning.object);
            if teller.is_none_or(|node| node == *engine.node()) {
                self.events.tell(&warning);
            }
        }
    }

    /// The warnings of an object as it is now; new ones are told.
    pub fn object(&mut self, change: &Change, warnings: Vec<Warning>) {
        if warnings.is_empty() && self.by_object.is_empty() {
            return;
        }
        let Some(subject) = Subject::of(change) else { return };
        let known = self.by_object.remove(&subject).unwrap_or_default();
        if known != warnings {
            self.revision += 1;
        }
        for warning in warnings.iter().filter(|warning| !known.contains(warning)) {
            self.note(warning);
        }
        if !warnings.is_empty() {
            self.by_object.insert(subject, warnings);
        }
        self.count();
    }

    /// All there is to say about a ban that is understood; what is new is told.
    pub fn remark(&mut self, ban: &BanId, remarks: Vec<Remark>) {
        let known = self.remarks.remove(ban).unwrap_or_default();
        if known != remarks {
            self.revision += 1;
        }
        for remark in remarks.iter().filter(|remark| !known.contains(remark)) {
            self.note(&remark.warning);
        }
        if !remarks.is_empty() {
            self.remarks.insert(ban.clone(), remarks);
        }
        self.count();
    }

    /// Takes what this node has to say of a policy instead of what it said before.
    pub fn remark_policy(&mut self, policy: &PolicyId, remark: Option<Remark>) {
        if self.nameless.get(policy) == remark.as_ref() {
            return;
        }
        self.revision += 1;
        match remark {
            None => drop(self.nameless.remove(policy)),
            Some(remark) => {
                self.note(&remark.warning);
                self.nameless.insert(policy.clone(), remark);
            }
        }
        self.count();
    }

    /// The bans of which something was said.
    pub fn remarked(&self) -> impl Iterator<Item = &BanId> {
        self.remarks.keys()
    }

    /// An object that cannot be used at all.
    pub fn unusable(&mut self, warning: &Warning) {
        self.note(warning);
    }

    /// These chains are refused; the engine knows whose they are, unless they were before. Replaces what was refused.
    /// Another node may take them, so each tells of its own.
    pub fn refused(&mut self, chains: &BTreeMap<ChainName, String>, engine: &Engine) {
        let (origins, mut known) = (engine.origins(), std::mem::take(&mut self.refused));
        for (chain, reason) in chains {
            let warnings = known.remove(chain).unwrap_or_else(|| {
                let origin = origins.chains.get(chain);
                let policies = origin.map(|origin| origin.policies.as_slice()).unwrap_or_default();
                let policies = policies.iter().map(|policy| refusal(engine.cluster(), policy, chain, reason));
                let exposures = engine.kept_by(chain).into_iter();
                let exposures = exposures.filter_map(|id| engine.cluster().exposure(&id));
                let exposures = exposures.map(|exposure| shut_doors(exposure, chain, reason));
                let warnings: Vec<Warning> = policies.chain(exposures).collect();
                for warning in &warnings {
                    tracing::warn!("{warning}");
                    self.events.tell(warning);
                }
                if warnings.is_empty() {
                    // A ban's: each says so itself, but not why.
                    tracing::warn!("chain {chain} is refused ({reason})");
                }
                warnings
            });
            self.refused.insert(chain.clone(), warnings);
        }
        self.revision += 1;
        self.telemetry.health.set(Concern::Refused, consequences(chains));
        self.telemetry.metrics.refused_chains.set(i64::try_from(chains.len()).unwrap_or(i64::MAX));
        self.count();
    }

    /// How often anything here changed.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Objects of kinds that are reported on and are not in force as they stand, one exception for each field at fault.
    pub fn exceptions(&self) -> Vec<Exception> {
        let misread = self.by_object.values().flatten();
        let misread = misread.filter_map(|warning| exception(warning, ExceptionReason::NotUnderstood));
        let remarks = self.remarks.values().flatten().chain(self.nameless.values());
        let remarks = remarks.filter_map(|remark| exception(&remark.warning, remark.reason));
        let refused = self.refused.values().flatten();
        let refused = refused.filter_map(|warning| exception(warning, ExceptionReason::KernelRefused));
        misread.chain(remarks).chain(refused).collect()
    }

    fn note(&mut self, warning: &Warning) {
        tracing::warn!("{warning}");
        self.untold.push(warning.clone());
    }

    fn count(&self) {
        let objects = self.by_object.len()
            + self.remarks.len()
            + self.nameless.len()
            + self.refused.values().map(Vec::len).sum::<usize>();
        self.telemetry.metrics.warnings.set(i64::try_from(objects).unwrap_or(i64::MAX));
    }
}

fn exception(warning: &Warning, reason: ExceptionReason) -> Option<Exception> {
    let kind = match warning.object.kind {
        "Ban" => ReportedKind::Ban,
        "ServiceExposure" => ReportedKind::ServiceExposure,
        "Ktban" => ReportedKind::Ktban,
        "DomainPolicy" => ReportedKind::DomainPolicy,
        _ => return None,
    };
    Some(Exception {
        kind,
        namespace: warning.object.namespace.to_string(),
        name: warning.object.name.to_string(),
        uid: warning.object.uid.to_string(),
        reason,
        field: warning.field.clone(),
        message: warning.problem.clone(),
    })
}

/// `kubectl describe` finds events by the object's UID alone.
fn refusal(cluster: &Cluster, policy: &PolicyId, chain: &ChainName, reason: &str) -> Warning {
    let object = ObjectRef {
        kind: policy.kind.as_str(),
        namespace: Text::clone(&policy.namespace),
        name: Text::clone(&policy.name),
        uid: cluster.policy(policy).map(|policy| Text::clone(&policy.uid)).unwrap_or_default(),
    };
    let effect = if names::is_audit(chain) {
        "this node does not audit it, and enforces everything else"
    } else {
        "the pods it selects are shut"
    };
    let problem = format!("its chain {chain} is refused ({reason}); {effect}");
    Warning { object, field: "spec".to_owned(), problem }
}

fn shut_doors(exposure: &Exposure, chain: &ChainName, reason: &str) -> Warning {
    let object = ObjectRef {
        kind: "ServiceExposure",
        namespace: Text::clone(&exposure.id.namespace),
        name: Text::clone(&exposure.id.name),
        uid: Text::clone(&exposure.uid),
    };
    let effect = match exposure.mode {
        Mode::Enforce => "nobody from outside comes in by its doors here",
        Mode::Audit => "this node does not audit it",
    };
    let problem = format!("its chain {chain} is refused ({reason}); {effect}");
    Warning { object, field: "spec".to_owned(), problem }
}

/// What follows from refused chains. An audit that is not to be had leaves everything enforced as it is.
fn consequences(chains: &BTreeMap<ChainName, String>) -> Option<String> {
    let (optional, others): (Vec<_>, Vec<_>) = chains.keys().partition(|chain| names::is_optional(chain));
    let shut = others.into_iter().filter(|chain| !names::is_audit(chain)).count();
    let shut = (shut > 0).then(|| format!("{shut} chains are refused; the pods they govern are shut"));
    let optional = (!optional.is_empty()).then(|| {
        let count = optional.len();
        format!(
            "{count} chains of bans or doors are refused; such bans are not in force, such doors are shut"
        )
    });
    let words: Vec<String> = shut.into_iter().chain(optional).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

#[cfg(test)]
mod tests {
    use podwall_engine::{Options, ingest};
    use serde_json::json;

    use super::*;

    /// A node with one pod, isolated by one policy; and the chain that does it.
    fn engine() -> (Engine, ChainName) {
        let mut engine = Engine::new(NodeName::from("n1"), Options::default());
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": "web", "uid": "u1"}, "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}});
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "shop", "name": "shut", "uid": "1234"}, "spec": {"podSelector": {}}});
        for object in [pod, policy] {
            engine.apply(ingest::object(&object).unwrap().unwrap().0);
        }
        let chain = engine.origins().chains.into_keys().next().unwrap();
        (engine, chain)
    }

    fn reports() -> (Reports, Telemetry) {
        let telemetry = Telemetry::default();
        let events = Events::nowhere(std::sync::Arc::clone(&telemetry.metrics));
        (Reports::new(events, telemetry.clone()), telemetry)
    }

    #[test]
    fn a_warning_counts_while_its_object_has_it() {
        let (mut reports, telemetry) = reports();
        let (engine, chain) = engine();
        let id = engine.cluster().policies().next().unwrap().id.clone();
        let warning = refusal(engine.cluster(), &id, &chain, "EINVAL");
        reports.object(&Change::PolicyGone(id.clone()), vec![warning.clone()]);
        assert_eq!(telemetry.metrics.warnings.get(), 1);
        let revision = reports.revision();
        reports.object(&Change::PolicyGone(id), vec![warning.clone()]);
        reports.object(&Change::PodGone(PodUid("y".into())), Vec::new());
        assert_eq!((&reports.untold, reports.revision()), (&vec![warning], revision), "once");
        reports.tell_cluster(&engine);
        assert_eq!(reports.untold, []);
        reports.object(&Change::PodGone(PodUid("x".into())), Vec::new());
        assert_eq!(telemetry.metrics.warnings.get(), 1);
    }

    #[test]
    fn a_refused_chain_names_its_policies_as_kubectl_looks_for_them() {
        let (mut reports, telemetry) = reports();
        let (engine, chain) = engine();
        reports.refused(&BTreeMap::from([(chain, "EINVAL".to_owned())]), &engine);
        let objects: Vec<&ObjectRef> =
            reports.refused.values().flatten().map(|warning| &warning.object).collect();
        let policy = ObjectRef {
            kind: "NetworkPolicy",
            namespace: "shop".into(),
            name: "shut".into(),
            uid: "1234".into(),
        };
        assert_eq!(objects, [&policy]);
        assert_eq!(telemetry.metrics.refused_chains.get(), 1);
        reports.refused(&BTreeMap::new(), &engine);
        assert_eq!((telemetry.metrics.warnings.get(), telemetry.health.report().concerns.len()), (0, 1));
    }

    #[test]
    fn what_the_kernel_refuses_of_a_kind_that_is_reported_is_an_exception_of_its_object() {
        let (mut reports, telemetry) = reports();
        let (mut engine, _) = engine();
        for object in [
            json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "DomainPolicy",
                "metadata": {"namespace": "shop", "name": "names", "uid": "d"},
                "spec": {"podSelector": {}, "egress": [{"cidrs": ["192.0.2.0/24"]}]}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
                "spec": {"type": "NodePort", "selector": {"app": "web"},
                    "ports": [{"port": 80, "nodePort": 30080}]}}),
            json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "ServiceExposure",
                "metadata": {"namespace": "shop", "name": "closed", "uid": "s"},
                "spec": {"services": ["web"], "allow": [{"cidrs": ["198.51.100.0/24"]}]}}),
        ] {
            engine.apply(ingest::object(&object).unwrap().unwrap().0);
        }
        let chains: Vec<&ChainName> = engine.ruleset().chains.keys().collect();
        let of = |start: &str| chains.iter().find(|chain| chain.as_str().starts_with(start)).unwrap();
        let refused = [of("e4_"), of("d4_")].map(|chain| ((*chain).clone(), "ENOMEM".to_owned()));
        reports.refused(&refused.into(), &engine);
        let told = reports.exceptions().into_iter();
        let told: Vec<_> = told.map(|told| (told.kind, told.name, told.uid, told.reason)).collect();
        let refused = ExceptionReason::KernelRefused;
        let closed = (ReportedKind::ServiceExposure, "closed".to_owned(), "s".to_owned(), refused);
        assert_eq!(told, [closed, (ReportedKind::DomainPolicy, "names".to_owned(), "d".to_owned(), refused)]);
        let words =
            "1 chains are refused; the pods they govern are shut; 1 chains of bans or doors are refused";
        assert!(telemetry.health.report().to_string().contains(words), "{}", telemetry.health.report());
    }
}

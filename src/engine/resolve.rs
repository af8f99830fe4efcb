//! What follows from the cluster for one pod: which policies govern it, and which addresses a peer stands for.
//!
//! Owns the upstream rule that being selected is what isolates (policy-semantics N2). Cost: the policies of the
//! pod's namespace for [`governing`]; nothing here looks at all pods.
pub mod bans;
pub mod exposures;
pub mod group;

use std::sync::Arc;

use podwall_ruleset::Protocol;

use crate::cluster::Cluster;
use crate::model::ban::Mode;
use crate::model::{Direction, NodeName, Pod, Policy, PortSpec, Ports, Text, Tier};

pub use group::Group;

/// The policies that speak about one direction of one pod, in the order they are asked.
#[derive(Debug, Clone, Default)]
pub struct Governing {
    /// Admin tier, by priority, then name (C17).
    pub admin: Vec<Arc<Policy>>,
    /// NetworkPolicies; not empty means isolated.
    pub namespace: Vec<Arc<Policy>>,
    /// Baseline tier, by priority, then name; skipped for an isolated direction (C15).
    pub baseline: Vec<Arc<Policy>>,
}

impl Governing {
    /// Nobody says anything: the direction is open.
    pub const fn is_empty(&self) -> bool {
        self.admin.is_empty() && self.namespace.is_empty() && self.baseline.is_empty()
    }

    /// All of them, in order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.admin.iter().chain(&self.namespace).chain(&self.baseline)
    }
}

/// All policies that speak of one direction of one pod, enforced or not, in the order they are asked.
struct Speaking {
    admin: Vec<Arc<Policy>>,
    namespace: Vec<Arc<Policy>>,
    baseline: Vec<Arc<Policy>>,
}

impl Speaking {
    fn of(cluster: &Cluster, pod: &Pod, direction: Direction) -> Self {
        let of = |tier| {
            let labels = cluster.namespace(&pod.namespace);
            let mut found: Vec<Arc<Policy>> = cluster
                .policies_for(tier, &pod.namespace)
                .filter(|policy| policy.rules(direction).is_some())
                .filter(|policy| policy.subject.covers_namespace(&pod.namespace, labels))
                .filter(|policy| policy.subject.pods.matches(&pod.labels))
                .cloned()
                .collect();
            found.sort_by(|a, b| a.priority.cmp(&b.priority).then_with(|| a.id.cmp(&b.id)));
            found
        };
        let mut namespace = of(Tier::Namespace);
        namespace.extend(pod.own.iter().filter(|own| own.rules(direction).is_some()).cloned());
        Self { admin: of(Tier::Admin), namespace, baseline: of(Tier::Baseline) }
    }

    fn audited(&self) -> impl Iterator<Item = &Arc<Policy>> {
        let all = self.admin.iter().chain(&self.namespace).chain(&self.baseline);
        all.filter(|policy| policy.mode == Mode::Audit)
    }

    fn governing(&self, counts: impl Fn(&Policy) -> bool) -> Governing {
        let pick = |tier: &[Arc<Policy>]| -> Vec<Arc<Policy>> {
            tier.iter().filter(|policy| counts(policy)).cloned().collect()
        };
        let namespace = pick(&self.namespace);
        let baseline = if namespace.is_empty() { pick(&self.baseline) } else { Vec::new() };
        Governing { admin: pick(&self.admin), namespace, baseline }
    }

    fn enforced(&self) -> Governing {
        self.governing(|policy| policy.mode == Mode::Enforce)
    }

    /// What would govern if nothing were audited; `None` if that could refuse nothing more than what governs now.
    fn promoted(&self, enforced: &Governing) -> Option<Governing> {
        self.audited().next()?;
        let all = self.governing(|_| true);
        let isolates = !all.namespace.is_empty() || all.baseline.len() > enforced.baseline.len();
        let more = all.admin.len() > enforced.admin.len() || (enforced.namespace.is_empty() && isolates);
        more.then_some(all)
    }
}

/// Which policies govern the pod in that direction (N2, C11); audited ones do not (D2).
pub fn governing(cluster: &Cluster, pod: &Pod, direction: Direction) -> Governing {
    Speaking::of(cluster, pod, direction).enforced()
}

/// The audited policies that speak of that direction of the pod.
pub fn audited(cluster: &Cluster, pod: &Pod, direction: Direction) -> Vec<Arc<Policy>> {
    Speaking::of(cluster, pod, direction).audited().cloned().collect()
}

/// Policies with what their chain needs to know of its subject.
pub type Subject = (Governing, SubjectPorts);

/// What is asked about one direction of a pod.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// Who governs; `None`: nobody, the direction is open.
    pub enforced: Option<Subject>,
    /// Who would govern if nothing were audited; `None`: nothing more would be refused.
    pub promoted: Option<Subject>,
}

impl Judged {
    /// That of the pod.
    pub fn of(cluster: &Cluster, pod: &Pod, direction: Direction) -> Self {
        let speaking = Speaking::of(cluster, pod, direction);
        let subject = |governing: Governing| {
            let ports = subject_ports(pod, &governing, direction);
            (governing, ports)
        };
        let enforced = speaking.enforced();
        let promoted = speaking.promoted(&enforced).map(subject);
        Self { enforced: (!enforced.is_empty()).then(|| subject(enforced)), promoted }
    }
}

/// Does any policy select the pod, whichever way?
pub fn selected(cluster: &Cluster, pod: &Pod) -> bool {
    Direction::BOTH.into_iter().any(|direction| !governing(cluster, pod, direction).is_empty())
}

/// Does the pod live on the node, and count?
pub fn local(pod: &Pod, node: &NodeName) -> bool {
    pod.counts() && pod.node.as_ref() == Some(node)
}

/// A subject's named ports as its ingress rules ask for them (O5 to O7): name, protocol, numbers.
pub type SubjectPorts = Vec<(Text, Protocol, Vec<u16>)>;

/// Resolves every named port that ingress rules of the policies mention on the subject itself.
pub fn subject_ports(pod: &Pod, governing: &Governing, direction: Direction) -> SubjectPorts {
    if direction == Direction::Egress {
        return Vec::new();
    }
    let rules = governing.policies().filter_map(|policy| policy.rules(direction)).flatten();
    let mut resolved: SubjectPorts = rules
        .filter_map(|rule| match &rule.ports {
            Ports::Any => None,
            Ports::List(ports) => Some(ports),
        })
        .flatten()
        .filter_map(|port| match &port.port {
            PortSpec::Named(name) => Some((name, port.protocol)),
            PortSpec::Range(_) | PortSpec::Never => None,
        })
        .map(|(name, protocol)| (name.clone(), protocol, pod.named(name, protocol).collect()))
        .collect();
    resolved.sort();
    resolved.dedup();
    resolved
}

//! What this node has to say of a ban or a DomainPolicy that it reads well and cannot carry out to the letter.
//!
//! Owns when that is looked at again: it depends on addresses of nodes and API servers, and on whether the ban is meant
//! here and still in force.
use std::collections::BTreeSet;
use std::net::IpAddr;

use podwall_crd::node_report::ExceptionReason;
use podwall_engine::compile::names;
use podwall_engine::model::ban::{BanAction, Way};
use podwall_engine::model::{Ban, BanId, Direction, Node, Peer, Peers, Policy, PolicyId, PolicyKind};
use podwall_engine::options::{Learning, Rejection};
use podwall_engine::{Change, Engine, ObjectRef, Warning};
use podwall_ruleset::ChainName;

use crate::agent::reports::{Remark, Reports};

/// The bans that a change makes worth another look.
#[derive(Debug)]
pub(super) enum Revisit {
    /// None.
    Nothing,
    /// This one.
    Ban(BanId),
    /// No ban, but this policy.
    Policy(PolicyId),
    /// Those of these addresses, which are spared now or no longer.
    Addresses(BTreeSet<IpAddr>),
    /// Those that ended.
    Ended,
    /// All.
    All,
}

impl Revisit {
    /// To be asked before the change is made.
    pub(super) fn after(change: &Change, engine: &Engine) -> Self {
        let cluster = engine.cluster();
        let addresses = |node: Option<&Node>| -> BTreeSet<IpAddr> {
            node.into_iter().flat_map(|node| node.addresses.iter().copied()).collect()
        };
        match change {
            Change::Ban(ban) => Self::Ban(ban.id.clone()),
            Change::BanGone(id) => Self::Ban(id.clone()),
            Change::Node(node) => {
                let before = cluster.node(&node.name);
                let same_place = before.is_some_and(|before| {
                    before.labels == node.labels && before.link_groups == node.link_groups
                });
                if node.name == *engine.node() && !same_place {
                    Self::All
                } else {
                    Self::Addresses(&addresses(before) ^ &addresses(Some(node)))
                }
            }
            Change::NodeGone(name) => Self::Addresses(addresses(cluster.node(name))),
            Change::ApiServers(servers) => Self::Addresses(servers ^ cluster.api_servers()),
            Change::Clock(_) => Self::Ended,
            Change::Refused(chains) if optional(chains) != optional(cluster.refused()) => Self::All,
            Change::Policy(policy) => Self::Policy(policy.id.clone()),
            Change::PolicyGone(id) => Self::Policy(id.clone()),
            Change::Learned(_)
            | Change::Pod(_)
            | Change::PodGone(_)
            | Change::Namespace(..)
            | Change::NamespaceGone(_)
            | Change::Service(_)
            | Change::ServiceGone(_)
            | Change::Exposure(_)
            | Change::ExposureGone(_)
            | Change::Links(_)
            | Change::AddressHeld(_)
            | Change::AddressFree(_)
            | Change::Watch(_)
            | Change::GraceOver
            | Change::Refused(_) => Self::Nothing,
        }
    }

    /// To be called after it.
    pub(super) fn carry_out(self, engine: &Engine, reports: &mut Reports) {
        let bans: BTreeSet<BanId> = match self {
            Self::Nothing => return,
            Self::Policy(id) => return reports.remark_policy(&id, nameless(engine, &id)),
            Self::Ban(id) => BTreeSet::from([id]),
            Self::Addresses(addresses) => {
                let ways = addresses.iter().flat_map(|address| [(*address, Way::In), (*address, Way::Out)]);
                ways.flat_map(|(address, way)| engine.banned_by(address, way)).collect()
            }
            Self::Ended => reports.remarked().filter(|id| !engine.enforces(id)).cloned().collect(),
            Self::All => {
                for policy in engine.cluster().policies() {
                    reports.remark_policy(&policy.id, nameless(engine, &policy.id));
                }
                engine.cluster().bans().map(|ban| &ban.id).chain(reports.remarked()).cloned().collect()
            }
        };
        for id in bans {
            let ban = engine.cluster().ban(&id).filter(|_| engine.enforces(&id));
            reports.remark(&id, ban.map(|ban| remarks(engine, ban)).unwrap_or_default());
        }
    }
}

/// That no name of the policy leads anywhere on this node.
fn nameless(engine: &Engine, id: &PolicyId) -> Option<Remark> {
    match (engine.options().learning, id.kind) {
        (Learning::Impossible, PolicyKind::DomainPolicy) => {}
        (Learning::Possible, _) | (_, PolicyKind::NetworkPolicy | PolicyKind::Annotations) => return None,
    }
    let policy = engine.cluster().policy(id).filter(|policy| names_domains(policy))?;
    let object = ObjectRef {
        kind: id.kind.as_str(),
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        uid: policy.uid.clone(),
    };
    let problem = "this node's packet filter cannot hold what pods learn: rules with domains allow nothing";
    let warning = Warning { object, field: "spec.egress".to_owned(), problem: problem.to_owned() };
    Some(Remark { warning, reason: ExceptionReason::NotSupported })
}

fn names_domains(policy: &Policy) -> bool {
    policy.rules(Direction::Egress).unwrap_or_default().iter().any(|rule| match &rule.peers {
        Peers::Any => false,
        Peers::List(peers) => peers.iter().any(|peer| Peer::names(peer).is_some()),
    })
}

/// Every part of the ban that has no effect here, or another.
fn remarks(engine: &Engine, ban: &Ban) -> Vec<Remark> {
    let silent = ban.action == BanAction::Reject && engine.options().rejection == Rejection::Silent;
    let silent = silent.then(|| {
        let problem = "this node's packet filter cannot reject here: packets are dropped";
        remark(ban, ("spec.action", problem), ExceptionReason::NotSupported)
    });
    let refused = engine.kernel_refuses(ban).then(|| {
        let problem = "this node's kernel refuses rules it needs: what they would judge is not banned here";
        remark(ban, ("spec", problem), ExceptionReason::KernelRefused)
    });
    let spared = ban.addresses.iter().filter(|network| is_single(network) && engine.spares(network.ip()));
    let spared = spared.map(|network| {
        let problem = format!(
            "{} is a node's or an API server's, or named by --never-ban: it is not banned",
            network.ip()
        );
        remark(ban, ("spec.addresses", &problem), ExceptionReason::Failsafe)
    });
    // The gravest last: that is the one a status shows.
    silent.into_iter().chain(spared).chain(refused).collect()
}

/// Those of bans and doors.
fn optional(chains: &BTreeSet<ChainName>) -> BTreeSet<&ChainName> {
    chains.iter().filter(|chain| names::is_optional(chain)).collect()
}

fn is_single(network: &ipnetwork::IpNetwork) -> bool {
    match network {
        ipnetwork::IpNetwork::V4(network) => network.prefix() == 32,
        ipnetwork::IpNetwork::V6(network) => network.prefix() == 128,
    }
}

fn remark(ban: &Ban, (field, problem): (&str, &str), reason: ExceptionReason) -> Remark {
    let object = ObjectRef {
        kind: ban.id.kind.as_str(),
        namespace: ban.id.namespace.clone(),
        name: ban.id.name.clone(),
        uid: ban.uid.clone(),
    };
    Remark { warning: Warning { object, field: field.to_owned(), problem: problem.to_owned() }, reason }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use podwall_engine::{NodeName, Options, ingest};
    use podwall_ruleset::Deadline;
    use serde_json::{Value, json};

    use super::*;
    use crate::telemetry::events::Events;
    use crate::telemetry::server::Telemetry;

    /// A node's engine that cannot reject, and what it reports.
    struct Case(Engine, Reports);

    impl Case {
        fn new() -> Self {
            let telemetry = Telemetry::default();
            let reports = Reports::new(Events::nowhere(Arc::clone(&telemetry.metrics)), telemetry);
            let options = Options { rejection: Rejection::Silent, ..Options::default() };
            let mut case = Self(Engine::new(NodeName::from("a"), options), reports);
            case.node("a", "192.0.2.1");
            case
        }

        fn change(&mut self, change: Change) {
            let revisit = Revisit::after(&change, &self.0);
            self.0.apply(change);
            revisit.carry_out(&self.0, &mut self.1);
        }

        fn object(&mut self, object: &Value) {
            let (change, warnings) = ingest::object(object).unwrap().unwrap();
            assert_eq!(warnings, Vec::new());
            self.change(change);
        }

        fn node(&mut self, name: &str, address: &str) {
            self.object(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "status": {"addresses": [{"type": "InternalIP", "address": address}]}}));
        }

        fn ban(&mut self, spec: Value) {
            self.object(&json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "Ban", "metadata": {"name": "x"}, "spec": spec}));
        }

        fn told(&self) -> Vec<(String, ExceptionReason)> {
            let told = self.1.exceptions().into_iter();
            told.map(|exception| (exception.field, exception.reason)).collect()
        }
    }

    fn failsafe() -> Vec<(String, ExceptionReason)> {
        vec![("spec.addresses".to_owned(), ExceptionReason::Failsafe)]
    }

    #[test]
    fn a_policy_of_names_that_this_node_cannot_hold_is_said_and_one_of_networks_is_not() {
        for learning in [Learning::Impossible, Learning::Possible] {
            let mut case = Case::new();
            let options = Options { learning, ..Options::default() };
            case.0 = Engine::new(NodeName::from("a"), options);
            let policy = |egress: Value| {
                json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "DomainPolicy",
                    "metadata": {"namespace": "shop", "name": "x", "uid": "u"},
                    "spec": {"podSelector": {}, "egress": [egress]}})
            };
            case.object(&policy(json!({"cidrs": ["192.0.2.0/24"]})));
            assert_eq!(case.told(), []);
            case.object(&policy(json!({"domains": ["api.example.com"]})));
            let told = ("spec.egress".to_owned(), ExceptionReason::NotSupported);
            let wanted = match learning {
                Learning::Impossible => vec![told],
                Learning::Possible => Vec::new(),
            };
            assert_eq!(case.told(), wanted);
            let id = case.0.cluster().policies().next().unwrap().id.clone();
            case.change(Change::PolicyGone(id));
            assert_eq!(case.told(), []);
        }
    }

    #[test]
    fn what_a_ban_cannot_do_on_this_node_is_said_and_what_it_can_is_not() {
        let mut case = Case::new();
        case.ban(json!({"addresses": ["192.0.2.0/24", "198.51.100.1"]}));
        assert_eq!(case.told(), []);
        case.ban(json!({"addresses": ["192.0.2.1", "198.51.100.1"], "action": "Reject"}));
        let silent = ("spec.action".to_owned(), ExceptionReason::NotSupported);
        assert_eq!(case.told(), [vec![silent], failsafe()].concat());
        let id = case.0.cluster().bans().next().unwrap().id.clone();
        case.change(Change::BanGone(id));
        assert_eq!(case.told(), []);
    }

    #[test]
    fn a_ban_whose_rules_the_kernel_refuses_says_so_until_it_takes_them_and_so_does_one_that_comes_later() {
        let mut case = Case::new();
        case.ban(json!({"addresses": ["198.51.100.1"]}));
        let chains = case.0.ruleset().chains.keys();
        let tail = chains.filter(|chain| chain.as_str().starts_with("b4_")).cloned().collect::<BTreeSet<_>>();
        assert_eq!(tail.len(), 1);
        let refused = ("spec".to_owned(), ExceptionReason::KernelRefused);
        case.change(Change::Refused(tail));
        assert_eq!(case.told(), std::slice::from_ref(&refused));
        case.ban(json!({"addresses": ["198.51.100.2", "192.0.2.1"]}));
        assert_eq!(case.told(), [failsafe(), vec![refused]].concat());
        case.ban(json!({"addresses": ["2001:db8::1"]}));
        assert_eq!(case.told(), [], "the other family's are not");
        case.ban(json!({"addresses": ["198.51.100.1"]}));
        case.change(Change::Refused(BTreeSet::new()));
        assert_eq!(case.told(), []);
    }

    #[test]
    fn a_node_or_an_api_server_that_comes_after_its_ban_is_spared_and_that_is_said() {
        let mut case = Case::new();
        case.ban(json!({"addresses": ["192.0.2.2", "198.51.100.1"], "direction": "Out"}));
        assert_eq!(case.told(), []);
        case.node("b", "192.0.2.2");
        assert_eq!(case.told(), failsafe());
        case.change(Change::NodeGone(NodeName::from("b")));
        assert_eq!(case.told(), []);
        case.change(Change::ApiServers(["198.51.100.1".parse().unwrap()].into()));
        assert_eq!(case.told(), failsafe());
        case.change(Change::ApiServers(BTreeSet::new()));
        assert_eq!(case.told(), []);
    }

    #[test]
    fn of_a_ban_that_is_over_or_meant_for_other_nodes_nothing_is_said() {
        let mut case = Case::new();
        let ban = |more: &str| json!({"addresses": ["192.0.2.1"], "nodeSelector": {"matchLabels": {"in": more}}, "expiresAt": "1970-01-01T00:00:09Z"});
        case.ban(ban("elsewhere"));
        assert_eq!(case.told(), []);
        case.object(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "labels": {"in": "elsewhere"}},
                "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}}));
        assert_eq!(case.told(), failsafe());
        case.change(Change::Clock(Deadline(9_000)));
        assert_eq!(case.told(), []);
    }
}

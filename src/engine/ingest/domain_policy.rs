//! DomainPolicy to model: always isolates egress, ingress only where it names listening ports.
use std::collections::BTreeSet;

use podwall_crd::LabelSelector;
use podwall_crd::csv::{ANNOTATION, Variables};
use podwall_crd::domain_policy::PrivateAnswers;
use podwall_crd::meta::ObjectMeta;
use podwall_crd::read::{self, DomainOrder, DomainPortOrder, DomainRuleOrder, Reader};
use podwall_ruleset::{Digest, PortRange, Protocol, RuleId};
use serde_json::{Value, json};

use crate::model::ban::Mode;
use crate::model::domain::Private;
use crate::model::{
    Action, Direction, DnsServer, IpBlock, NameList, NamePattern, Peer, PeerSelector, Peers, Policy,
    PolicyId, PolicyKind, PolicyRule, PortMatch, PortSpec, Ports, Requirement, Scope, Text, Tier,
};
use crate::warning::{ObjectRef, Warning};

use super::ban::{selector, warnings};
use super::{Ingested, marks, raw};

/// Where the cluster's DNS lives, by the names that every installer gives it (kubernetes/kubernetes,
/// `cluster/addons/dns`).
pub(crate) const CLUSTER_DNS: (&str, &str, &str) = ("kube-system", "k8s-app", "kube-dns");

const DNS: u16 = 53;

/// Reads one. One that does not say who it is gets refused; everything else closes and warns.
pub fn domain_policy(object: &Value) -> Result<Ingested, Warning> {
    let named = raw::named(object, PolicyKind::DomainPolicy.as_str())?;
    let read = read::domain_policy(object);
    let policy = policy(&named, &read.asks);
    let mut marks = Reader::default();
    marks::enforced(&mut marks, object);
    let problems = read.problems.into_iter().chain(marks.finish()).collect();
    Ok(Ingested { policy, warnings: warnings(&named, problems) })
}

/// What a pod's own annotations ask for. What is unclear in them shuts the pod in, and is told.
pub(super) fn of_annotations(meta: &ObjectMeta) -> Option<(Policy, Vec<Warning>)> {
    let annotations = meta.annotations.as_ref()?;
    let told =
        Variables::from_lookup(|name| annotations.get(&format!("{ANNOTATION}{name}")).map(String::as_str))?;
    let named = super::reference(meta, "Pod");
    let (order, warnings) = match told.spec(LabelSelector::default()) {
        Ok(spec) => (read::domain_policy(&json!({"spec": spec})).asks, Vec::new()),
        Err(problem) => {
            let problem = format!("{problem}; nothing is allowed");
            let field = format!("metadata.annotations[{ANNOTATION}*]");
            let closed = read::domain_policy(&Value::Null).asks;
            (closed, vec![Warning { object: named.clone(), field, problem }])
        }
    };
    let mut own = policy(&named, &order);
    own.id.kind = PolicyKind::Annotations;
    Some((own, warnings))
}

fn policy(named: &ObjectRef, order: &DomainOrder) -> Policy {
    let maker = Maker { named, private: private(order.private_answers) };
    let servers: BTreeSet<DnsServer> = order
        .dns_servers
        .iter()
        .map(|server| match server {
            read::DnsServer::Cluster => DnsServer::Cluster,
            read::DnsServer::At(address) => DnsServer::At(*address),
        })
        .collect();
    let ruled = order.egress.iter().map(|rule| maker.egress(rule));
    let egress = maker.numbered(Direction::Egress, ruled.chain(dns(&servers)).collect());
    let ingress = order.listening.as_ref().map(|listening| {
        // An empty list of ports is no port.
        let open = (Peers::Any, ports(Some(listening)));
        maker.numbered(Direction::Ingress, vec![open])
    });
    let digest = Digest::of([
        "DomainPolicy",
        &*named.uid,
        &*named.namespace,
        &*named.name,
        format!("{ingress:?}").as_str(),
        format!("{egress:?}").as_str(),
    ]);
    Policy {
        id: PolicyId {
            tier: Tier::Namespace,
            namespace: Text::clone(&named.namespace),
            name: Text::clone(&named.name),
            kind: PolicyKind::DomainPolicy,
        },
        uid: Text::clone(&named.uid),
        digest,
        priority: 0,
        mode: Mode::Enforce,
        subject: PeerSelector {
            scope: Scope::Named(Text::clone(&named.namespace)),
            pods: selector(&order.pods),
        },
        ingress,
        egress: Some(egress),
    }
}

const fn private(answers: PrivateAnswers) -> Private {
    match answers {
        PrivateAnswers::Refuse => Private::Refuse,
        PrivateAnswers::Allow => Private::Allow,
    }
}

type Half = (Peers, Ports);

struct Maker<'a> {
    named: &'a ObjectRef,
    private: Private,
}

impl Maker<'_> {
    fn egress(&self, rule: &DomainRuleOrder) -> Half {
        let names = (!rule.domains.is_empty()).then(|| {
            let patterns = rule.domains.iter().map(|text| NamePattern::new(text));
            Peer::Names(NameList::new(patterns, self.private))
        });
        let blocks = rule.cidrs.iter().map(|cidr| Peer::Block(IpBlock { cidr: *cidr, except: Vec::new() }));
        (Peers::List(names.into_iter().chain(blocks).collect()), ports(rule.ports.as_ref()))
    }

    /// Positions are those of the object's list; what follows from other fields comes behind.
    fn numbered(&self, direction: Direction, halves: Vec<Half>) -> Vec<PolicyRule> {
        let rule = |(index, (peers, ports)): (usize, Half)| {
            let id = RuleId(Digest::of([
                "DomainPolicy",
                &*self.named.uid,
                &*self.named.namespace,
                &*self.named.name,
                direction.to_string().as_str(),
                index.to_string().as_str(),
                format!("{peers:?} {ports:?}").as_str(),
            ]));
            PolicyRule { id, index, action: Action::Accept, peers, ports }
        };
        halves.into_iter().enumerate().map(rule).collect()
    }
}

fn ports(orders: Option<&Vec<DomainPortOrder>>) -> Ports {
    let Some(orders) = orders else { return Ports::Any };
    let port = |order: &DomainPortOrder| PortMatch {
        protocol: Protocol(order.protocol),
        port: match order.span.map(|span| PortRange::new(span.first(), span.last())) {
            None => PortSpec::Range(PortRange::ALL),
            Some(Some(range)) => PortSpec::Range(range),
            Some(None) => PortSpec::Never,
        },
    };
    Ports::List(orders.iter().map(port).collect())
}

/// What asking for names takes: the node's proxy, and the servers themselves for when it is away.
fn dns(servers: &BTreeSet<DnsServer>) -> Vec<Half> {
    if servers.is_empty() {
        return Vec::new();
    }
    let plain = [Protocol::UDP, Protocol::TCP]
        .map(|protocol| PortMatch { protocol, port: PortSpec::Range(PortRange::single(DNS)) });
    let mut halves = vec![(Peers::List(vec![Peer::DnsProxy(servers.clone())]), Ports::List(plain.to_vec()))];
    if servers.contains(&DnsServer::Cluster) {
        // The pods may listen on another port than their Service; then it has one of these names.
        let named = [(Protocol::UDP, "dns"), (Protocol::TCP, "dns-tcp")]
            .map(|(protocol, name)| PortMatch { protocol, port: PortSpec::Named(Text::from(name)) });
        let (namespace, key, value) = CLUSTER_DNS;
        let pods =
            [Requirement::In(Text::from(key), BTreeSet::from([Text::from(value)]))].into_iter().collect();
        let pods = Peer::Pods(PeerSelector { scope: Scope::Named(Text::from(namespace)), pods });
        halves.push((Peers::List(vec![pods]), Ports::List(plain.iter().cloned().chain(named).collect())));
    }
    let addresses = servers.iter().filter_map(|server| match server {
        DnsServer::Cluster => None,
        DnsServer::At(address) => Some(Peer::Block(IpBlock { cidr: (*address).into(), except: Vec::new() })),
    });
    let addresses: Vec<Peer> = addresses.collect();
    if !addresses.is_empty() {
        halves.push((Peers::List(addresses), Ports::List(plain.to_vec())));
    }
    halves
}

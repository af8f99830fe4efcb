//! What the node's DNS proxy must know: which pod may ask whom, and for which names its answers open addresses.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use podwall_ruleset::Family;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::ingest::CLUSTER_DNS;
use crate::model::domain::Private;
use crate::model::{Direction, DnsServer, NodeName, Peer, Peers, Pod};
use crate::options::Options;
use crate::resolve;

/// Everything, for one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// Pods with a policy that names servers, by each address they may ask from.
    pub readers: BTreeMap<IpAddr, Reader>,
    /// Lists of names they are allowed, by what learned addresses are kept under.
    pub lists: BTreeMap<String, Names>,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    /// `namespace/name`.
    pub pod: String,
    /// What tells it from another pod of its address.
    pub uid: String,
    /// All its addresses: one of IPv6 may be learned from a question over IPv4.
    pub addresses: BTreeSet<IpAddr>,
    /// Whom it may ask.
    pub servers: BTreeSet<IpAddr>,
    /// Which names it may use.
    pub lists: BTreeSet<String>,
}

/// Names that are allowed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// As policies write them.
    pub patterns: Vec<String>,
    /// Are private addresses in answers taken?
    pub private: PrivateAnswers,
    /// Who allows them.
    pub policies: BTreeSet<String>,
}

/// What becomes of private addresses in answers for names outside the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrivateAnswers {
    /// The answer is refused.
    Refuse,
    /// They are addresses like others.
    Allow,
}

/// The book of a node, from scratch.
pub fn of_node(cluster: &Cluster, node: &NodeName, options: &Options) -> Book {
    let local = cluster.addresses().filter(|(_, pod)| resolve::local(pod, node));
    book(cluster, local.map(|(address, _)| address), node, options)
}

/// The book of a node, whose pods have these addresses.
pub(crate) fn book(
    cluster: &Cluster,
    addresses: impl Iterator<Item = IpAddr>,
    node: &NodeName,
    options: &Options,
) -> Book {
    let mut book = Book::default();
    let cluster_dns = cluster_dns(cluster, options);
    let owned = addresses.filter_map(|address| Some((address, cluster.owner(address)?)));
    for (address, pod) in owned.filter(|(_, pod)| resolve::local(pod, node)) {
        if let Some(reader) = reader(cluster, pod, &cluster_dns, &mut book.lists) {
            book.readers.insert(address, reader);
        }
    }
    book
}

/// Where the cluster's DNS is asked.
pub fn cluster_dns(cluster: &Cluster, options: &Options) -> BTreeSet<IpAddr> {
    let (namespace, key, value) = CLUSTER_DNS;
    let services = cluster.services().filter(|service| {
        &*service.id.namespace == namespace
            && (&*service.id.name == value || service.labels.get(key) == Some(value))
    });
    services
        .flat_map(|service| service.inside.iter().copied())
        .chain(options.cluster_dns.iter().copied())
        .collect()
}

/// Is it a pod that says itself who may come? The proxy would come in the node's name, which is let in whatever the pod's
/// policies say of whom it asks for. Such a server is asked directly, and both ends' policies have their say.
fn shuns_strangers(cluster: &Cluster, address: IpAddr) -> bool {
    let governed = |pod: &Arc<Pod>| !resolve::governing(cluster, pod, Direction::Ingress).is_empty();
    cluster.owner(address).is_some_and(governed)
}

fn reader(
    cluster: &Cluster,
    pod: &Pod,
    cluster_dns: &BTreeSet<IpAddr>,
    lists: &mut BTreeMap<String, Names>,
) -> Option<Reader> {
    let (mut servers, mut own) = (BTreeSet::new(), BTreeSet::new());
    for policy in resolve::governing(cluster, pod, Direction::Egress).policies() {
        let rules = policy.rules(Direction::Egress).unwrap_or_default();
        let peers = rules.iter().flat_map(|rule| match &rule.peers {
            Peers::Any => &[][..],
            Peers::List(peers) => peers.as_slice(),
        });
        for peer in peers {
            for server in peer.dns_proxy().into_iter().flatten() {
                match server {
                    DnsServer::Cluster => servers.extend(cluster_dns),
                    DnsServer::At(address) if shuns_strangers(cluster, *address) => {}
                    DnsServer::At(address) => drop(servers.insert(*address)),
                }
            }
            if let Some(list) = Peer::names(peer) {
                let id = list.id().to_string();
                let names = lists.entry(id.clone()).or_insert_with(|| Names {
                    patterns: list.patterns().map(ToString::to_string).collect(),
                    private: match list.private() {
                        Private::Refuse => PrivateAnswers::Refuse,
                        Private::Allow => PrivateAnswers::Allow,
                    },
                    policies: BTreeSet::new(),
                });
                names.policies.insert(format!("{}/{}", policy.id.namespace, policy.id.name));
                own.insert(id);
            }
        }
    }
    let families: BTreeSet<Family> = pod.addresses.iter().map(Family::of).collect();
    servers.retain(|server| families.contains(&Family::of(server)));
    let owned = pod.addresses.iter().copied().filter(|a| cluster.owner(*a).is_some_and(|o| o.uid == pod.uid));
    (!servers.is_empty()).then(|| Reader {
        pod: pod.to_string(),
        uid: pod.uid.0.to_string(),
        addresses: owned.collect(),
        servers,
        lists: own,
    })
}

//! A name as the receiver: judged as if the sender had been given an address for it a moment ago.
//!
//! Nothing is decided here either: the stand-in is taught as an answer would teach it, and the packet to it meets the
//! very ruleset. It is an address that no block holds but one that holds everything.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwall_ruleset::{Deadline, Family};

use crate::change::Change;
use crate::cluster::Cluster;
use crate::lessons::Lesson;
use crate::model::domain::DomainName;
use crate::model::{Direction, Peer, Peers, Pod};
use crate::options::Options;
use crate::{readers, resolve};

/// Reserved for ever (RFC 1112, section 4), and of the prefix that is discarded (RFC 6666).
pub(super) const STAND_INS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(240, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1))];

/// The cluster with the pod having been told the stand-ins for the name, if a policy of it lists the name.
pub(super) fn supposing(cluster: &Cluster, pod: &Pod, name: &DomainName) -> Option<Cluster> {
    let mut taught: Option<Cluster> = None;
    for policy in resolve::governing(cluster, pod, Direction::Egress).policies() {
        let rules = policy.rules(Direction::Egress).unwrap_or_default();
        let peers = rules.iter().flat_map(|rule| match &rule.peers {
            Peers::Any => &[][..],
            Peers::List(peers) => peers.as_slice(),
        });
        for list in peers.filter_map(Peer::names).filter(|list| list.matches(name)) {
            for own in &pod.addresses {
                let same = |address: &IpAddr| Family::of(address) == Family::of(own);
                let Some(address) = STAND_INS.into_iter().find(same) else { continue };
                let lesson = Lesson {
                    pod: *own,
                    owner: pod.uid.clone(),
                    list: list.id(),
                    address,
                    ends: Deadline(u64::MAX),
                };
                taught.get_or_insert_with(|| cluster.clone()).apply(Change::Learned(lesson));
            }
        }
    }
    taught
}

/// What has to happen before a connection by this name.
pub(super) fn proviso(cluster: &Cluster, pod: &Pod, options: &Options) -> String {
    let book = pod.node.as_ref().map(|node| {
        let addresses = pod.addresses.iter().copied();
        readers::book(cluster, addresses, node, options)
    });
    let readers = book.iter().flat_map(|book| book.readers.values());
    let servers: std::collections::BTreeSet<IpAddr> =
        readers.flat_map(|reader| reader.servers.iter().copied()).collect();
    if servers.is_empty() {
        let missing = "no DNS server that it may ask is known here: the cluster's is that of Service \
                       kube-system/kube-dns, or --cluster-dns";
        return format!("once {pod} has asked for it; but {missing}");
    }
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    format!(
        "once {pod} has asked {} for it: the addresses of the answer are open to this pod alone",
        servers.join(" or ")
    )
}

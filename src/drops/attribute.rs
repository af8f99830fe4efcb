//! From addresses to names, at the time of the packet.
//!
//! Pure: the cluster, and the memory of who left it. Serves whoever has records, ours or others'.
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use podwall_engine::Cluster;
use podwall_engine::explain::{Blame, Dropped, Tail};
use podwall_engine::model::{Direction, Labels, Named, Pod};
use podwall_engine::{Engine, model};
use podwall_ruleset::packet::Transport;
use podwall_ruleset::{LinkName, Protocol};

use super::record::{Carried, Cause, Record};
use super::report::{End, Report, Reporting, Sample, Side, Who};
use super::tenants::{Tenant, Tenants};

/// The label of a pod or namespace that says whether drops are reported on its pods.
pub const REPORTS_LABEL: &str = "podwall.dev/drop-reports";
/// Services told of one pod.
const MOST_SERVICES: usize = 4;

/// How sure the names are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// Nothing that may still be told changes them.
    Settled,
    /// A pod that is told of within moments may be the one.
    Early,
}

/// Names both ends.
pub fn name(cluster: &Cluster, tenants: &Tenants, record: &Record) -> (End, End, Certainty) {
    let (source, from) = end(cluster, tenants, record, Side::Sending);
    let (destination, to) = end(cluster, tenants, record, Side::Receiving);
    // Whoever is judged is a pod, known or not; of the others only who has a pod's address.
    let unknown = |end: &End| end.who == Who::Stranger;
    let judged = match &record.cause {
        Cause::Ours(chain) => match Tail::of(chain) {
            Some(Tail::Policies(Direction::Ingress)) => unknown(&destination),
            Some(Tail::Policies(Direction::Egress) | Tail::Forged) => unknown(&source),
            Some(Tail::Pending) => unknown(&source) || unknown(&destination),
            Some(Tail::Ban | Tail::Door | Tail::Nameless | Tail::Refused | Tail::Strays) | None => false,
        },
        Cause::Theirs(_) => false,
    };
    let early = judged || from == Certainty::Early || to == Certainty::Early;
    let judged = if early { Certainty::Early } else { Certainty::Settled };
    (source, destination, judged)
}

/// The whole of it, for records of our own rules.
pub fn report(engine: &Engine, tenants: &Tenants, record: Record, sample: Sample) -> (Report, Certainty) {
    let (mut source, destination, certainty) = name(engine.cluster(), tenants, &record);
    if let Cause::Ours(chain) = &record.cause
        && Tail::of(chain) == Some(Tail::Forged)
    {
        // Whose address it is, is just what it lies about.
        source.who = sender(engine.cluster(), record.arrived_by.as_deref()).map_or(Who::Stranger, Who::Pod);
        source.reporting = reporting(engine.cluster(), &source.who);
        source.services.clear();
    }
    let blame = match &record.cause {
        Cause::Ours(chain) => blame(engine, chain, &record, (&source, &destination)),
        Cause::Theirs(_) => None,
    };
    (Report { record, source, destination, blame, sample }, certainty)
}

fn blame(engine: &Engine, chain: &str, record: &Record, (from, to): (&End, &End)) -> Option<Blame> {
    engine.blame(&Dropped {
        chain,
        source: record.source,
        destination: record.destination,
        transport: transport(record.carried),
        from: from.pod().map(AsRef::as_ref),
        to: to.pod().map(AsRef::as_ref),
    })
}

/// The one pod behind an interface.
fn sender(cluster: &Cluster, link: Option<&str>) -> Option<Arc<Pod>> {
    let link = LinkName::new(link?).ok()?;
    let address = cluster.on_link(&link).next().filter(|_| cluster.is_exclusive(&link))?;
    cluster.owner(*address).cloned()
}

/// As rules see it.
pub const fn transport(carried: Carried) -> Transport {
    match carried {
        Carried::Ports { protocol: Protocol::TCP, destination, .. } => {
            Transport::Tcp { port: destination, opening: true }
        }
        Carried::Ports { protocol: Protocol::UDP, destination, .. } => Transport::Udp(destination),
        Carried::Ports { protocol: Protocol::SCTP, destination, .. } => Transport::Sctp(destination),
        Carried::Icmp { protocol: Protocol::ICMP, kind, .. } => Transport::Icmp(kind),
        Carried::Icmp { kind, .. } => Transport::Icmpv6(kind),
        Carried::Ports { protocol, .. } | Carried::Other(protocol) => Transport::Other(protocol),
    }
}

fn end(cluster: &Cluster, tenants: &Tenants, record: &Record, side: Side) -> (End, Certainty) {
    let (address, port) = match side {
        Side::Sending => (record.source, record.carried.source_port()),
        Side::Receiving => (record.destination, record.carried.port()),
    };
    let (who, certainty) = who(cluster, tenants, (address, record.at), (record.carried.protocol(), port));
    let services = match &who {
        Who::Pod(pod) => services_of(cluster, pod),
        Who::Node(_) | Who::Service(_) | Who::Stranger => Vec::new(),
    };
    let reporting = reporting(cluster, &who);
    (End { address, who, services, reporting }, certainty)
}

fn who(
    cluster: &Cluster,
    tenants: &Tenants,
    (address, at): (IpAddr, Timestamp),
    (protocol, port): (Protocol, Option<u16>),
) -> (Who, Certainty) {
    match tenants.at(cluster, address, at) {
        Tenant::Known(pod) => return (Who::Pod(pod), Certainty::Settled),
        Tenant::Likely(pod) => return (Who::Pod(pod), Certainty::Early),
        Tenant::Nobody => {}
    }
    let places = tenants.places();
    if let Some(node) = places.node(address) {
        let pod = port.and_then(|port| places.behind(cluster, node, (protocol, port)));
        return (pod.map_or_else(|| Who::Node(node.clone()), Who::Pod), Certainty::Settled);
    }
    match places.service(address) {
        Some(service) => (Who::Service(service.clone()), Certainty::Settled),
        None if places.is_for_pods(address) => (Who::Stranger, Certainty::Early),
        None => (Who::Stranger, Certainty::Settled),
    }
}

fn services_of(cluster: &Cluster, pod: &Pod) -> Vec<Named> {
    let selects =
        |service: &&Arc<model::Service>| service.pods.as_ref().is_some_and(|pods| pods.matches(&pod.labels));
    let found = cluster.services_in(&pod.namespace).filter(selects).take(MOST_SERVICES);
    found.map(|service| service.id.clone()).collect()
}

/// A pod's own word first, then its namespace's.
fn reporting(cluster: &Cluster, who: &Who) -> Reporting {
    let Who::Pod(pod) = who else { return Reporting::On };
    let word =
        |labels: Option<&Labels>| labels.and_then(|labels| labels.get(REPORTS_LABEL)).map(str::to_owned);
    let said = word(Some(&pod.labels)).or_else(|| word(cluster.namespace(&pod.namespace)));
    match said.as_deref() {
        Some("off" | "false" | "disabled") => Reporting::Off,
        Some(_) | None => Reporting::On,
    }
}

#[cfg(test)]
mod tests;

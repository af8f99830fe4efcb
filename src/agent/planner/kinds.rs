//! Under which label objects and their changes are counted.
use podwall_engine::{Change, Cluster};

use crate::telemetry::metrics::Kind;

/// The label of a change.
pub(super) const fn kind(change: &Change) -> Kind {
    match change {
        Change::Pod(_) | Change::PodGone(_) => Kind::Pod,
        Change::Namespace(..) | Change::NamespaceGone(_) => Kind::Namespace,
        Change::Node(_) | Change::NodeGone(_) => Kind::Node,
        Change::Policy(_) | Change::PolicyGone(_) => Kind::Policy,
        Change::Ban(_) | Change::BanGone(_) => Kind::Ban,
        Change::Service(_) | Change::ServiceGone(_) => Kind::Service,
        Change::Exposure(_) | Change::ExposureGone(_) => Kind::Exposure,
        Change::Links(_) | Change::AddressHeld(_) | Change::AddressFree(_) => Kind::Links,
        Change::ApiServers(_)
        | Change::Clock(_)
        | Change::Watch(_)
        | Change::GraceOver
        | Change::Refused(_) => Kind::Agent,
    }
}

/// How many objects of each kind are known.
pub(super) fn counts(cluster: &Cluster) -> [(Kind, usize); 7] {
    [
        (Kind::Pod, cluster.pods().count()),
        (Kind::Namespace, cluster.namespaces().count()),
        (Kind::Node, cluster.nodes().count()),
        (Kind::Policy, cluster.policies().count()),
        (Kind::Ban, cluster.bans().count()),
        (Kind::Service, cluster.services().count()),
        (Kind::Exposure, cluster.exposures().count()),
    ]
}

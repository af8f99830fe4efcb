//! The events the engine understands. Each is whole: it carries the object as it is now, so events may be repeated,
//! and only their order for one object matters.
use std::collections::BTreeSet;
use std::net::IpAddr;

use podwall_ruleset::{ChainName, Deadline};

use crate::lessons::Lesson;
use crate::model::{
    Ban, BanId, Exposure, Labels, Links, Named, Node, NodeName, Pod, PodUid, Policy, PolicyId, Service, Text,
};

/// One change of what the engine knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A pod is as given.
    Pod(Pod),
    /// The pod of this UID is gone. A late delete of an old pod cannot harm a new one of its name (W5).
    PodGone(PodUid),
    /// A namespace has these labels.
    Namespace(Text, Labels),
    /// A namespace object is gone.
    NamespaceGone(Text),
    /// A node is as given.
    Node(Node),
    /// A node is gone.
    NodeGone(NodeName),
    /// A policy is as given.
    Policy(Policy),
    /// A policy is gone.
    PolicyGone(PolicyId),
    /// A ban is as given.
    Ban(Ban),
    /// A ban is gone.
    BanGone(BanId),
    /// A Service is as given.
    Service(Service),
    /// A Service is gone.
    ServiceGone(Named),
    /// A ServiceExposure is as given.
    Exposure(Exposure),
    /// A ServiceExposure is gone.
    ExposureGone(Named),
    /// Addresses of API servers, whole: never banned (decision B1).
    ApiServers(BTreeSet<IpAddr>),
    /// It is this late: what ends by now has ended. Time does not go back.
    Clock(Deadline),
    /// A pod was given an address for a name; nothing happens unless it still owns the address from which it asked.
    Learned(Lesson),
    /// The host's interfaces and routes, whole.
    Links(Links),
    /// The kernel still judges this address, and perhaps its pod is still there: kept shut unless somebody owns it,
    /// as if its pod had gone just now (W8).
    AddressHeld(IpAddr),
    /// The interface behind a gone pod's address is gone too: the address need not be kept shut any longer (W8).
    AddressFree(IpAddr),
    /// Our view of the cluster is current, or not any more.
    Watch(Freshness),
    /// The grace period after the first adoption is over: mid-stream TCP without a flow is dropped from now on (L1).
    GraceOver,
    /// The kernel refused these chains; whoever would enter one is shut instead (policy-semantics L5).
    /// The set replaces the one before.
    Refused(BTreeSet<ChainName>),
}

/// What a change says of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfPod<'c> {
    /// It is as given.
    Is(&'c Pod),
    /// It is gone.
    Gone(&'c PodUid),
}

impl Change {
    /// What it says of a pod; `None`: it is about something else.
    pub const fn of_pod(&self) -> Option<OfPod<'_>> {
        match self {
            Self::Pod(pod) => Some(OfPod::Is(pod)),
            Self::PodGone(uid) => Some(OfPod::Gone(uid)),
            Self::Namespace(..)
            | Self::NamespaceGone(_)
            | Self::Node(_)
            | Self::NodeGone(_)
            | Self::Policy(_)
            | Self::PolicyGone(_)
            | Self::Ban(_)
            | Self::BanGone(_)
            | Self::Service(_)
            | Self::ServiceGone(_)
            | Self::Exposure(_)
            | Self::ExposureGone(_)
            | Self::ApiServers(_)
            | Self::Clock(_)
            | Self::Learned(_)
            | Self::Links(_)
            | Self::AddressHeld(_)
            | Self::AddressFree(_)
            | Self::Watch(_)
            | Self::GraceOver
            | Self::Refused(_) => None,
        }
    }
}

/// How current the caches are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// Complete, and watching.
    #[default]
    Current,
    /// A watch is down: pods may have come that we know nothing of.
    Stale,
}

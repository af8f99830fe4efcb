//! What reaches the planner: changes of objects and of the host, and how current their sources are.
use std::sync::Arc;
use std::time::Instant;

use podwall_crd::ResourceVersion;
use podwall_crd::node_report::ReportedKind;
use podwall_engine::{Change, Lesson, Warning};
use tokio::sync::{mpsc, oneshot};

use super::host::view::View;
use super::node_report::marks::News;

use crate::telemetry::metrics::Kind;

/// A source of changes. The first write waits until every source of the agent is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feed {
    /// Watch of pods.
    Pods,
    /// Watch of namespaces.
    Namespaces,
    /// Watch of nodes.
    Nodes,
    /// Watch of NetworkPolicies.
    Policies,
    /// Watch of DomainPolicies.
    Domains,
    /// Watch of Services.
    Services,
    /// Watch of bans.
    Bans,
    /// Watch of the bans of kubetables.
    Ktbans,
    /// Watch of ServiceExposures.
    Exposures,
    /// Addresses of API servers.
    ApiServers,
    /// Folder of manifests.
    Folder,
    /// Links, addresses and routes of this host.
    Host,
}

impl Feed {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Namespaces => "namespaces",
            Self::Nodes => "nodes",
            Self::Policies => "networkpolicies",
            Self::Domains => "domainpolicies",
            Self::Services => "services",
            Self::Bans => "bans",
            Self::Ktbans => "ktbans",
            Self::Exposures => "serviceexposures",
            Self::ApiServers => "addresses of API servers",
            Self::Folder => "manifests",
            Self::Host => "links of this host",
        }
    }

    /// May pods come or policies change unseen while it is away?
    pub const fn tells_of_pods(self) -> bool {
        match self {
            Self::Pods
            | Self::Namespaces
            | Self::Nodes
            | Self::Policies
            | Self::Domains
            | Self::Folder
            | Self::Host => true,
            Self::Services | Self::Bans | Self::Ktbans | Self::Exposures | Self::ApiServers => false,
        }
    }

    /// The metric label of what it brings.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Pods => Kind::Pod,
            Self::Namespaces => Kind::Namespace,
            Self::Nodes => Kind::Node,
            Self::Policies => Kind::Policy,
            Self::Domains => Kind::DomainPolicy,
            Self::Services => Kind::Service,
            Self::Bans => Kind::Ban,
            Self::Ktbans => Kind::Ktban,
            Self::Exposures => Kind::Exposure,
            Self::ApiServers | Self::Folder => Kind::Agent,
            Self::Host => Kind::Links,
        }
    }
}

/// One message.
#[derive(Debug)]
pub enum Input {
    /// An object came, changed or went; `warnings` are what its reader closed and why.
    Object {
        /// What changed.
        change: Change,
        /// All that is wrong with the object as it is now.
        warnings: Vec<Warning>,
    },
    /// An object that cannot be used at all; only told.
    Unusable(Warning),
    /// A watch of a kind that is reported on has told everything up to a version.
    Reached {
        /// Which kind.
        kind: ReportedKind,
        /// Up to where.
        version: ResourceVersion,
        /// Objects of the kind there are.
        objects: usize,
        /// What moved it there.
        news: News,
    },
    /// A source has delivered everything there is. Repeated after each relist.
    Complete(Feed),
    /// A watch stands again, or has been away for a while, with the reason.
    Watch(Feed, Option<String>),
    /// The host's network, whole.
    Host(Arc<View>),
    /// Pods are about to learn these; whoever waits is told when the kernel holds them.
    Teach(Vec<Lesson>, oneshot::Sender<()>),
    /// The DNS proxy works by the book of this revision.
    BookRead(u64),
}

/// A message with the moment it was received, for the lag metric.
#[derive(Debug)]
pub struct Stamped {
    /// What.
    pub input: Input,
    /// When it reached the agent.
    pub at: Instant,
}

/// The sending end. Bounded: a flood of objects slows its watch down instead of filling memory.
#[derive(Debug, Clone)]
pub struct Inputs(mpsc::Sender<Stamped>);

/// The planner is gone: the agent is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Stopping;

/// Messages that may wait. A page of a list is 500.
const QUEUE: usize = 1024;

impl Inputs {
    /// A channel to a planner.
    pub fn channel() -> (Self, mpsc::Receiver<Stamped>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Sends, and waits while the planner is busy.
    pub async fn send(&self, input: Input) -> Result<(), Stopping> {
        let stamped = Stamped { input, at: Instant::now() };
        self.0.send(stamped).await.map_err(|_| Stopping)
    }

    /// The same from a thread.
    pub fn send_blocking(&self, input: Input) -> Result<(), Stopping> {
        self.0.blocking_send(Stamped { input, at: Instant::now() }).map_err(|_| Stopping)
    }

    /// The planner is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_watches_are_told_under_one_label() {
        let watches = [
            Feed::Pods,
            Feed::Namespaces,
            Feed::Nodes,
            Feed::Policies,
            Feed::Domains,
            Feed::Services,
            Feed::Bans,
            Feed::Ktbans,
            Feed::Exposures,
        ];
        assert_eq!(watches.map(Feed::kind).into_iter().collect::<BTreeSet<_>>().len(), watches.len());
    }
}

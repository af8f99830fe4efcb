//! A dropped packet with the names of both ends, and who dropped it.
use std::net::IpAddr;
use std::sync::Arc;

use podwall_engine::explain::{Blame, Tail};
use podwall_engine::model::{Direction, Named, NodeName, Pod};

use super::record::{Carried, Record};

/// One drop, as far as the cluster knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What the packet says.
    pub record: Record,
    /// Who sent it.
    pub source: End,
    /// Whom it was for.
    pub destination: End,
    /// Who dropped it; `None`: somebody else, or a chain nobody remembers.
    pub blame: Option<Blame>,
    /// As many of its bytes as were copied.
    pub sample: Sample,
}

/// Bytes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    /// From its IP header on, as far as they were copied; none where there is no copy.
    pub bytes: Arc<[u8]>,
    /// How many it had.
    pub length: u32,
}

/// One end of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its address.
    pub address: IpAddr,
    /// Whose that is.
    pub who: Who,
    /// Services whose pods these are.
    pub services: Vec<Named>,
    /// Does anybody want to hear of it?
    pub reporting: Reporting,
}

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A pod; of its node's network, too, where only one can be meant.
    Pod(Arc<Pod>),
    /// A node.
    Node(NodeName),
    /// A Service: an address of its own, not of its pods.
    Service(Named),
    /// Nobody of the cluster.
    Stranger,
}

/// Whether drops are reported on an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reporting {
    /// They are.
    #[default]
    On,
    /// A label of it or of its namespace says no.
    Off,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The one that sent it.
    Sending,
    /// The one it was for.
    Receiving,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Sending, Self::Receiving];
}

impl Report {
    /// The end on that side.
    pub const fn end(&self, side: Side) -> &End {
        match side {
            Side::Sending => &self.source,
            Side::Receiving => &self.destination,
        }
    }

    /// The other one.
    pub const fn other(&self, side: Side) -> &End {
        match side {
            Side::Sending => &self.destination,
            Side::Receiving => &self.source,
        }
    }

    /// The way it was going for the pod whose policies refused it.
    pub fn direction(&self) -> Option<Direction> {
        match self.blame.as_ref()? {
            Blame::Policies { direction, .. } => Some(*direction),
            Blame::Fixed(tail) => tail.direction(),
            Blame::Bans(..) | Blame::Doors(..) => None,
        }
    }

    /// One word for why.
    pub fn reason(&self) -> &'static str {
        match &self.blame {
            None => "other",
            Some(Blame::Policies { .. }) => "policy",
            Some(Blame::Bans(..)) => "ban",
            Some(Blame::Doors(..)) => "exposure",
            Some(Blame::Fixed(tail)) => tail.as_str(),
        }
    }

    /// Is there anything to tell somebody on that side? A forged packet is not from who its address names.
    pub fn concerns(&self, side: Side) -> bool {
        let forged = self.blame == Some(Blame::Fixed(Tail::Forged));
        self.end(side).reporting == Reporting::On && (!forged || side == Side::Sending)
    }

    /// Did it pass, and is only told of?
    pub fn is_audit(&self) -> bool {
        self.blame.as_ref().is_some_and(Blame::is_audit)
    }
}

impl End {
    /// The pod, if it is one.
    pub fn pod(&self) -> Option<&Arc<Pod>> {
        match &self.who {
            Who::Pod(pod) => Some(pod),
            Who::Node(_) | Who::Service(_) | Who::Stranger => None,
        }
    }

    /// The namespace of the object it is.
    pub fn namespace(&self) -> Option<&str> {
        match &self.who {
            Who::Pod(pod) => Some(&pod.namespace),
            Who::Service(service) => Some(&service.namespace),
            Who::Node(_) | Who::Stranger => None,
        }
    }
}

impl Carried {
    /// The port it was for.
    pub const fn port(self) -> Option<u16> {
        match self {
            Self::Ports { destination, .. } => Some(destination),
            Self::Icmp { .. } | Self::Other(_) => None,
        }
    }

    /// The port it came from.
    pub const fn source_port(self) -> Option<u16> {
        match self {
            Self::Ports { source, .. } => Some(source),
            Self::Icmp { .. } | Self::Other(_) => None,
        }
    }

    /// The protocol.
    pub const fn protocol(self) -> podwall_ruleset::Protocol {
        match self {
            Self::Ports { protocol, .. } | Self::Icmp { protocol, .. } | Self::Other(protocol) => protocol,
        }
    }

    /// The same for every packet of every client of one service: a client chooses its port anew each time.
    pub const fn without_source(self) -> Self {
        match self {
            Self::Ports { protocol, destination, .. } => Self::Ports { protocol, source: 0, destination },
            Self::Icmp { .. } | Self::Other(_) => self,
        }
    }
}

//! Services, the doors they have on nodes, and who may come in by them.
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use podwall_ruleset::Protocol;

use super::Text;
use super::ban::Mode;
use super::policy::IpBlock;
use super::selector::{Labels, Selector};

/// A namespaced object by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Named {
    /// Namespace.
    pub namespace: Text,
    /// Name.
    pub name: Text,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Service, as far as it has doors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Which.
    pub id: Named,
    /// Its own labels.
    pub labels: Labels,
    /// Which pods are behind it; `None`: somebody else says.
    pub pods: Option<Selector>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Addresses of load balancers, and external addresses, in order.
    pub addresses: BTreeSet<IpAddr>,
    /// Its addresses inside the cluster.
    pub inside: BTreeSet<IpAddr>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, if it has one.
    pub name: Option<Text>,
    /// Protocol.
    pub protocol: Protocol,
    /// Number on the Service's addresses.
    pub port: u16,
    /// Number on every address of every node, if it has one.
    pub node_port: Option<u16>,
    /// The port of the pods.
    pub target: Target,
}

/// A port of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By number.
    Number(u16),
    /// By the name its container gives it.
    Named(Text),
}

/// A port of a pod that its node answers for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The name its container gives it.
    pub name: Option<Text>,
    /// Protocol.
    pub protocol: Protocol,
    /// Number on the pod.
    pub port: u16,
    /// Number on the node.
    pub host_port: u16,
    /// On this address of the node only.
    pub address: Option<IpAddr>,
}

/// Who outside the cluster may reach which Services of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// Which.
    pub id: Named,
    /// UID; empty when the object came from a file.
    pub uid: Text,
    /// The Services it closes but for what it allows.
    pub services: Chosen,
    /// Who may pass.
    pub allow: Vec<Allow>,
    /// Whether packets are refused.
    pub mode: Mode,
}

/// Services of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// These.
    Names(BTreeSet<Text>),
    /// Those with such labels.
    Labelled(Selector),
}

impl Exposure {
    /// Is the Service among those it closes?
    pub fn chooses(&self, service: &Service) -> bool {
        self.id.namespace == service.id.namespace
            && match &self.services {
                Chosen::Names(names) => names.contains(&service.id.name),
                Chosen::Labelled(selector) => selector.matches(&service.labels),
            }
    }
}

/// Some clients, and what they may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// Any of these.
    pub from: Vec<IpBlock>,
    /// Any of these ports; `None`: all.
    pub ports: Option<Vec<PortChoice>>,
}

/// A port of a Service, as an exposure calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortChoice {
    /// By name.
    Named(Text),
    /// By number.
    Numbered(Protocol, u16),
}

impl Allow {
    /// Does it speak of the port?
    pub fn speaks_of(&self, port: &ServicePort) -> bool {
        let Some(choices) = &self.ports else { return true };
        choices.iter().any(|choice| match choice {
            PortChoice::Named(name) => port.name.as_ref() == Some(name),
            PortChoice::Numbered(protocol, number) => (port.protocol, port.port) == (*protocol, *number),
        })
    }
}

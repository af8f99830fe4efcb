//! Objects as they came, into what they ask for: once, at the door (decision S6).
//!
//! Raw JSON is read, because a field this version does not know has to be noticed: to skip what narrows a ban would
//! widen it, to skip what narrows an exposure would open it. So nothing is ever read as more than it says. What is not
//! understood takes with it the smallest part that holds it, and is reported by its path: an entry of a list is left
//! out, a [`Ban`](crate::Ban) without it bans nothing, a [`ServiceExposure`](crate::ServiceExposure) and a
//! [`DomainPolicy`](crate::DomainPolicy) allow nothing.
mod ban;
mod domain_policy;
mod exposure;
mod fields;
mod ktban;
mod selector;
mod time;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::ban::{AfterExpiry, BanAction, BanDirection, BanInterfaces, BanMode, ManagementPorts};
use crate::domain_policy::PrivateAnswers;
use crate::exposure::ExposureMode;
use crate::selector::LabelSelector;

pub use ban::ban;
pub use domain_policy::domain_policy;
pub use exposure::exposure;
pub use fields::{Reader, Unclear, field};
pub use k8s_openapi::jiff::Timestamp;
pub use ktban::ktban;
pub use selector::selector;

/// Something in an object that could not be understood, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Path of the field, as `kubectl explain` writes it: `spec.ports[1].localPort`.
    pub field: String,
    /// What is wrong, and what podwall does about it.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// What an object asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    /// As far as it could be understood.
    pub asks: T,
    /// All that could not.
    pub problems: Vec<Problem>,
}

/// What a [`Ban`](crate::Ban) or a [`Ktban`](crate::Ktban) asks for. One that could not be understood has no addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanOrder {
    /// Who, sorted, each once; none has bits beyond its prefix, none is an IPv4 address in IPv6 clothes.
    pub addresses: Vec<IpNetwork>,
    /// Which way.
    pub direction: BanDirection,
    /// Which protocols and ports; `None` is everything, the empty list is nothing.
    pub ports: Option<Vec<PortOrder>>,
    /// On which nodes; `None` is all.
    pub nodes: Option<LabelSelector>,
    /// By which interfaces; `None` is any, empty lists are none.
    pub interfaces: Option<BanInterfaces>,
    /// When it ends; `None` is never.
    pub ends: Option<Timestamp>,
    /// What becomes of the object then.
    pub after_expiry: AfterExpiry,
    /// Why, for people.
    pub reason: String,
    /// What the banned side notices.
    pub action: BanAction,
    /// Whether packets are refused.
    pub mode: BanMode,
    /// Whether wide bans cover the ports of administrators.
    pub management_ports: ManagementPorts,
}

impl BanOrder {
    /// Bans nobody.
    pub const NOTHING: Self = Self {
        addresses: Vec::new(),
        direction: BanDirection::In,
        ports: None,
        nodes: None,
        interfaces: None,
        ends: None,
        after_expiry: AfterExpiry::Keep,
        reason: String::new(),
        action: BanAction::Drop,
        mode: BanMode::Enforce,
        management_ports: ManagementPorts::Spare,
    };

    /// Whether its time is over at `now`.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

/// A protocol, and ports of it on either side; `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortOrder {
    /// IANA's number.
    pub protocol: u8,
    /// Ports on the side of the node or pod, first and last.
    pub local: Option<PortSpan>,
    /// Ports on the side of the banned addresses.
    pub remote: Option<PortSpan>,
}

/// Ports from first to last, both included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortSpan {
    first: u16,
    last: u16,
}

impl PortSpan {
    /// `None` when the last is below the first, or the first is 0.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || last < first { None } else { Some(Self { first, last }) }
    }

    /// The first port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub const fn last(self) -> u16 {
        self.last
    }
}

/// What a [`ServiceExposure`](crate::ServiceExposure) asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposureOrder {
    /// Which Services of its namespace are closed but for `allow`.
    pub services: Services,
    /// Who may pass.
    pub allow: Vec<AllowOrder>,
    /// Whether packets are refused.
    pub mode: ExposureMode,
}

/// Which Services of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Services {
    /// These.
    Named(Vec<String>),
    /// Those with such labels; empty: all.
    Labelled(LabelSelector),
}

/// Some clients, and what they may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowOrder {
    /// Any of these; an empty list is nobody.
    pub from: Vec<Block>,
    /// Any of these ports; `None` is all, an empty list none.
    pub ports: Option<Vec<ServicePort>>,
}

/// A CIDR less its exceptions, which are strict parts of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The whole.
    pub cidr: IpNetwork,
    /// What is not meant, sorted, each once.
    pub except: Vec<IpNetwork>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServicePort {
    /// By its name.
    Named(String),
    /// By its number and IANA's number of its protocol.
    Numbered {
        /// Protocol.
        protocol: u8,
        /// `spec.ports[].port` of the Service.
        port: u16,
    },
}

/// What a [`DomainPolicy`](crate::DomainPolicy) asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainOrder {
    /// Which pods of its namespace are isolated.
    pub pods: LabelSelector,
    /// What they may talk to. A rule that was unclear keeps its place and allows nothing.
    pub egress: Vec<DomainRuleOrder>,
    /// Ports on which they may be reached; `None`: nothing is said.
    pub listening: Option<Vec<DomainPortOrder>>,
    /// Whom they may ask for names.
    pub dns_servers: Vec<DnsServer>,
    /// What becomes of private addresses in answers for public names.
    pub private_answers: PrivateAnswers,
}

/// Names and networks, and ports on which they may be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainRuleOrder {
    /// Patterns in lower case without a final dot, sorted, each once.
    pub domains: Vec<String>,
    /// Networks, sorted, each once.
    pub cidrs: Vec<IpNetwork>,
    /// `None`: all; an empty list: none.
    pub ports: Option<Vec<DomainPortOrder>>,
}

/// A protocol, and ports of it; `None`: all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DomainPortOrder {
    /// IANA's number.
    pub protocol: u8,
    /// First and last.
    pub span: Option<PortSpan>,
}

/// Who answers questions for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DnsServer {
    /// The cluster's own.
    Cluster,
    /// This one.
    At(IpAddr),
}

/// Addresses in one form: without bits beyond the prefix, IPv4 as IPv4 even when it came as IPv4-mapped IPv6, which no
/// packet on the wire carries.
fn network(text: &str) -> Option<IpNetwork> {
    let network: IpNetwork = text.parse().ok()?;
    let (address, prefix) = match network {
        IpNetwork::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) if v6.prefix() >= 96 => (v4.into(), v6.prefix() - 96),
            _ => (v6.ip().into(), v6.prefix()),
        },
        IpNetwork::V4(v4) => (v4.ip().into(), v4.prefix()),
    };
    IpNetwork::new(address, prefix).ok()
}

/// The same, but only if nothing is cut off.
fn exact_network(text: &str) -> Option<IpNetwork> {
    network(text).filter(|network| network.ip() == network.network())
}

fn spec(raw: &Value) -> &Value {
    raw.get("spec").unwrap_or(&Value::Null)
}

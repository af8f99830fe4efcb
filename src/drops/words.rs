//! A drop in words: the sentence the old tool wrote, and behind it who dropped the packet and what would have passed.
//!
//! The first sentence is box/kube-iptables-tailer's, letter for letter, for packets with ports: people search for it.
use std::fmt::Write as _;
use std::net::IpAddr;

use podwall_engine::explain::{Blame, Tail};
use podwall_engine::model::ban::Mode;
use podwall_engine::model::{Direction, Pod};
use podwall_ruleset::Protocol;

use super::record::{Carried, Cause, Record};
use super::report::{End, Report, Side, Who};

/// What a pod is called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PodName {
    /// `namespace/name`.
    #[default]
    NamespacedName,
    /// Its name.
    Name,
    /// Its namespace, as the old tool did unless told otherwise.
    Namespace,
    /// The value of a label, or its name where it has none.
    Label(String),
}

impl PodName {
    /// That of a pod.
    pub fn of(&self, pod: &Pod) -> String {
        match self {
            Self::NamespacedName => pod.to_string(),
            Self::Name => pod.name.to_string(),
            Self::Namespace => pod.namespace.to_string(),
            Self::Label(key) => pod.labels.get(key).unwrap_or(&pod.name).to_owned(),
        }
    }
}

/// `shop/web (10.0.0.1)`, or an address alone. `reverse`: what DNS says of a stranger.
pub fn end(end: &End, names: &PodName, reverse: Option<&str>) -> String {
    let name = match &end.who {
        Who::Pod(pod) => names.of(pod),
        Who::Node(node) => node.to_string(),
        Who::Service(service) => format!("service {service}"),
        Who::Stranger => match reverse {
            Some(name) => name.to_owned(),
            None => return end.address.to_string(),
        },
    };
    format!("{name} ({})", end.address)
}

/// What somebody on one side of it reads.
pub fn sentence(report: &Report, side: Side, names: &PodName, reverse: Option<&str>) -> String {
    let what = if report.is_audit() { "Packet would be dropped" } else { "Packet dropped" };
    let doing = match side {
        Side::Sending => "when sending traffic to",
        Side::Receiving => "when receiving traffic from",
    };
    let other = end(report.other(side), names, reverse);
    format!("{what} {doing} {other} {}", by(report.record.carried))
}

/// `on port 80/TCP`.
pub fn by(carried: Carried) -> String {
    match carried {
        Carried::Ports { protocol, destination, .. } => {
            format!("on port {destination}/{}", protocol_name(protocol))
        }
        Carried::Icmp { protocol, kind, code } => {
            format!("by {} type {kind} code {code}", protocol_name(protocol))
        }
        Carried::Other(protocol) => format!("by protocol {}", protocol_name(protocol)),
    }
}

/// As the kernel's own log writes it (`PROTO=`, net/netfilter/nf_log_syslog.c), and by number beyond that.
pub fn protocol_name(protocol: Protocol) -> String {
    let known = match protocol {
        Protocol::ICMP => "ICMP",
        Protocol::TCP => "TCP",
        Protocol::UDP => "UDP",
        Protocol::ICMPV6 => "ICMPv6",
        Protocol::SCTP => "SCTP",
        Protocol(2) => "IGMP",
        Protocol(33) => "DCCP",
        Protocol(47) => "GRE",
        Protocol(50) => "ESP",
        Protocol(51) => "AH",
        Protocol(136) => "UDPLITE",
        Protocol(number) => return number.to_string(),
    };
    known.to_owned()
}

/// Who dropped it and why, as a clause; empty where nobody knows.
pub fn why(report: &Report) -> String {
    match &report.blame {
        Some(Blame::Policies { mode, direction, policies, decided, nearest }) => {
            let subject = match direction {
                Direction::Ingress => &report.destination,
                Direction::Egress => &report.source,
            };
            let mut words = match decided {
                Some(decided) => format!("{} {} {}", decided.policy, decided.rule, decided.text),
                None => isolated(subject, (*mode, *direction), &list(policies.iter())),
            };
            if let Some(nearest) = nearest {
                let _ =
                    write!(words, "; nearest rule: {} {}: {}", nearest.policy, nearest.rule, nearest.misses);
            }
            words
        }
        Some(Blame::Bans(_, bans)) if bans.is_empty() => "refused by a ban".to_owned(),
        Some(Blame::Bans(_, bans)) => format!("refused by {}", list(bans.iter())),
        Some(Blame::Doors(_, services)) if services.is_empty() => {
            "refused by a ServiceExposure: no allow entry names the client".to_owned()
        }
        Some(Blame::Doors(_, services)) => format!(
            "refused by the ServiceExposures of service {}: no allow entry names the client",
            list(services.iter())
        ),
        Some(Blame::Fixed(tail)) => fixed(*tail, &report.record),
        None => match &report.record.cause {
            Cause::Ours(chain) => format!("dropped in chain {chain}, which has gone since"),
            Cause::Theirs(_) => String::new(),
        },
    }
}

fn isolated(subject: &End, (mode, direction): (Mode, Direction), policies: &str) -> String {
    let name = subject.pod().map_or_else(|| subject.address.to_string(), |pod| pod.to_string());
    if policies.is_empty() {
        return format!("{name} was isolated for {direction}");
    }
    let is = match mode {
        Mode::Enforce => "is",
        Mode::Audit => "would be",
    };
    format!("{name} {is} isolated for {direction} by {policies}")
}

fn fixed(tail: Tail, record: &Record) -> String {
    match tail {
        Tail::Pending => "one end is an address of this node that no verdict is known for yet".to_owned(),
        Tail::Forged => format!("{} is not an address of the pod that sent it", record.source),
        Tail::Nameless => "one end is an address that is no pod's own".to_owned(),
        Tail::Refused => "the kernel refuses the rules of the pod's policies, so it is shut".to_owned(),
        Tail::Strays => "it belongs to no open connection".to_owned(),
        Tail::Policies(_) | Tail::Ban | Tail::Door => String::new(),
    }
}

fn list<T: std::fmt::Display>(names: impl Iterator<Item = T>) -> String {
    names.map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

/// What DNS says is whatever somebody wrote there: a name and nothing else is let through.
pub fn clean_name(name: &str) -> Option<String> {
    let name = name.trim_end_matches('.');
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let is_address = name.parse::<IpAddr>().is_ok();
    (!name.is_empty() && name.len() <= 253 && name.chars().all(good) && !is_address).then(|| name.to_owned())
}

#[cfg(test)]
mod tests;

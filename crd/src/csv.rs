//! What k8s-dynamic-iptables was told in three variables, as a DomainPolicy says it.
//!
//! Stricter than the tool was: no host, a name nobody could resolve, or a port that is none is an error here.
use ipnetwork::IpNetwork;

use crate::domain_policy::{DomainPolicySpec, DomainPort, DomainRule, PrivateAnswers};
use crate::selector::LabelSelector;

/// Names to resolve, required.
pub const HOSTS: &str = "hosts_csv";
/// TCP ports on which the pod listens.
pub const PORTS: &str = "listening_ports_csv";
/// Addresses and networks beside the names.
pub const EXTRA: &str = "extra_whitelist_ips_csv";

/// Before each of the three, as an annotation of a pod.
pub const ANNOTATION: &str = "podwall.dev/";

/// The three variables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Variables<'a> {
    /// [`HOSTS`].
    pub hosts: Option<&'a str>,
    /// [`PORTS`].
    pub ports: Option<&'a str>,
    /// [`EXTRA`].
    pub extra: Option<&'a str>,
}

impl<'a> Variables<'a> {
    /// Looks each of them up; `None`: there is none.
    pub fn from_lookup(mut lookup: impl FnMut(&str) -> Option<&'a str>) -> Option<Self> {
        let found = Self { hosts: lookup(HOSTS), ports: lookup(PORTS), extra: lookup(EXTRA) };
        (found != Self::default()).then_some(found)
    }

    /// What they ask for, for the pods that are selected.
    pub fn spec(self, pod_selector: LabelSelector) -> Result<DomainPolicySpec, String> {
        let hosts: Vec<String> = entries(self.hosts).map(str::to_owned).collect();
        if hosts.is_empty() {
            return Err(format!("{HOSTS} names no host"));
        }
        let cidrs: Vec<String> = entries(self.extra).map(network).collect::<Result<_, _>>()?;
        let listening: Vec<DomainPort> = entries(self.ports).map(port).collect::<Result<_, _>>()?;
        let mut egress = vec![DomainRule { domains: hosts, ..DomainRule::default() }];
        if !cidrs.is_empty() {
            egress.push(DomainRule { cidrs, ..DomainRule::default() });
        }
        let spec = DomainPolicySpec {
            pod_selector,
            egress,
            listening_ports: self.ports.map(|_| listening),
            dns_servers: None,
            private_answers: PrivateAnswers::Refuse,
        };
        let read = crate::read::domain_policy(&serde_json::json!({"spec": spec}));
        match read.problems.first() {
            Some(problem) => Err(format!("{HOSTS}: {}", problem.problem)),
            None => Ok(spec),
        }
    }
}

fn entries(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

fn network(entry: &str) -> Result<String, String> {
    let bad = || format!("{EXTRA}: {entry:?} is neither an address nor a CIDR");
    let network: IpNetwork = entry.parse().map_err(|_| bad())?;
    IpNetwork::new(network.network(), network.prefix()).map(|exact| exact.to_string()).map_err(|_| bad())
}

fn port(entry: &str) -> Result<DomainPort, String> {
    let number = entry.parse::<u16>().ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| format!("{PORTS}: {entry:?} is no port"))?;
    Ok(DomainPort { port: Some(i32::from(number)), ..DomainPort::default() })
}

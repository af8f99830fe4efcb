//! `podwall init`: names for clusters that allow no DaemonSet, as an init container: resolved once, before the pod's own
//! containers start, and enforced in the pod's own network.
//!
//! Refuses what the tool before it let pass: a name without an address is an error, IPv6 is no way round, and DNS goes
//! to the pod's own resolvers alone.
use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use clap::Args;
use ipnetwork::IpNetwork;
use podwall_crd::csv::{EXTRA, HOSTS, PORTS, Variables};
use podwall_crd::selector::LabelSelector;
use podwall_engine::compile::names::own_rule;
use podwall_engine::compile::policy_chain::rule;
use podwall_engine::intervals::Intervals;
use podwall_nftables::{Guard, Nftables, Options};
use podwall_ruleset::{
    Backend as _, Base, Chain, ChainName, ConnState, Delta, Family, Hook, Key, LinkName, Lookup, Match,
    PortRange, Protocol, Recorder, Rule, Ruleset, SetName, SetSpec, Shape, Side, Value, Verdict, stages,
};

use super::output::{self, NAME, paint};
use super::{CliError, CliResult, Exit};

/// Let this pod talk to some names only, from an init container
#[derive(Debug, Args)]
#[command(
    long_about = "Let this pod talk to some names only, from an init container.\n\n\
        For clusters that allow no DaemonSet; everywhere else a DomainPolicy does better. Resolves the names with the \
        pod's own resolvers, and writes rules into the pod's own network, IPv4 and IPv6 alike: out to these addresses \
        and to DNS at the pod's resolvers, in to the listening ports if there are any. A name without an address is an \
        error, and the pod does not start.\n\n\
        The addresses are those of this moment: they cannot follow their names while the pod lives. A container of the \
        pod with CAP_NET_ADMIN can take the rules away. Needs CAP_NET_ADMIN itself.",
    after_help = "Examples:\n  podwall init --hosts googleapis.com,api.example.com --listening-ports 3000\n  \
        hosts_csv=googleapis.com podwall init"
)]
pub struct Init {
    /// Names to resolve
    #[arg(long, value_name = "NAME,..", env = HOSTS)]
    hosts: Option<String>,
    /// TCP ports on which the pod may be reached; none given: inbound stays as it is
    #[arg(long, value_name = "PORT,..", env = PORTS)]
    listening_ports: Option<String>,
    /// Addresses and CIDRs beside the names
    #[arg(long, value_name = "CIDR,..", env = EXTRA)]
    extra: Option<String>,
    /// Where the pod's resolvers are listed
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf", hide = true)]
    resolv_conf: PathBuf,
}

/// What the rules are made from.
#[derive(Debug, Default, PartialEq, Eq)]
struct Order {
    addresses: BTreeSet<IpAddr>,
    networks: Vec<IpNetwork>,
    resolvers: BTreeSet<IpAddr>,
    /// `None`: inbound stays as it is.
    ports: Option<Vec<PortRange>>,
}

impl Init {
    /// Runs it.
    pub fn run(self) -> CliResult {
        let order = self.order()?;
        let ruleset = ruleset(&order);
        let failed = |error| CliError::backend("writing the rules of this pod", error);
        let mut kernel = Nftables::open(Options { guard: Guard::Watched }).map_err(failed)?;
        let standing = kernel.observe().map_err(failed)?.or_empty();
        for stage in stages(&standing, &Delta::between(&standing, &ruleset)) {
            kernel.commit(&stage.transaction).map_err(failed)?;
        }
        let addresses: Vec<String> = order.addresses.iter().map(ToString::to_string).collect();
        output::answer(&format!("this pod may talk to {}\n", paint(NAME, addresses.join(" "))))?;
        Ok(Exit::Done)
    }

    fn order(&self) -> Result<Order, CliError> {
        let told = Variables {
            hosts: self.hosts.as_deref(),
            ports: self.listening_ports.as_deref(),
            extra: self.extra.as_deref(),
        };
        if told.hosts.is_none() {
            return Err(CliError::Usage(format!("no name is given: --hosts, or {HOSTS} in the environment")));
        }
        let spec = told.spec(LabelSelector::default()).map_err(CliError::Usage)?;
        let mut order = Order { resolvers: self.resolvers()?, ..Order::default() };
        for rule in &spec.egress {
            for name in &rule.domains {
                order.addresses.extend(resolve(name)?);
            }
            order.networks.extend(rule.cidrs.iter().filter_map(|cidr| cidr.parse::<IpNetwork>().ok()));
        }
        let number = |port: i32| u16::try_from(port).ok().map(PortRange::single);
        order.ports =
            spec.listening_ports.map(|ports| ports.iter().filter_map(|p| number(p.port?)).collect());
        Ok(order)
    }

    fn resolvers(&self) -> Result<BTreeSet<IpAddr>, CliError> {
        let doing = format!("reading {}", self.resolv_conf.display());
        let text = std::fs::read_to_string(&self.resolv_conf).map_err(|error| CliError::io(&doing, error))?;
        let found: BTreeSet<IpAddr> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok())
            .collect();
        if found.is_empty() {
            return Err(CliError::Usage(format!("{} names no resolver", self.resolv_conf.display())));
        }
        Ok(found)
    }
}

/// Every address of a name, which needs one.
fn resolve(name: &str) -> Result<Vec<IpAddr>, CliError> {
    if name.starts_with("*.") {
        let words =
            format!("{HOSTS}: {name:?} cannot be resolved: an init container knows no names beforehand");
        return Err(CliError::Usage(words));
    }
    // With its final dot it is looked for as it stands.
    let whole = format!("{}.", name.trim_end_matches('.'));
    let found =
        (whole.as_str(), 0).to_socket_addrs().map(|all| all.map(|address| address.ip()).collect::<Vec<_>>());
    match found {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        Ok(_) => Err(CliError::Usage(format!("{HOSTS}: {name:?} has no address"))),
        Err(error) => Err(CliError::Input { doing: format!("resolving {name:?}"), source: Box::new(error) }),
    }
}

fn ruleset(order: &Order) -> Ruleset {
    let mut recorder = Recorder::default();
    let mut out = passing(&output_chain());
    let mut allow = |purpose: String, matches: Vec<Match>| {
        out.push(rule(own_rule(&output_chain(), &purpose), matches, Verdict::Accept.counted()));
    };
    allow("local".to_owned(), vec![Match::Local]);
    for resolver in &order.resolvers {
        for protocol in [Protocol::UDP, Protocol::TCP] {
            let to = Match::Prefix(Side::Destination, (*resolver).into());
            allow(
                format!("dns {protocol} {resolver}"),
                vec![Match::Port(protocol, PortRange::single(53)), to],
            );
        }
    }
    let singles = order.addresses.iter().map(|address| IpNetwork::from(*address));
    let networks: Vec<IpNetwork> = singles.chain(order.networks.iter().copied()).collect();
    for family in Family::BOTH {
        let intervals = Intervals::of_networks(family, &networks);
        let Ok(name) = SetName::new(&format!("names{}", family.digit())) else { continue };
        recorder.put_set(&name, SetSpec { shape: Shape::Ranges(family), size: None });
        for (first, last) in intervals.iter() {
            recorder.put(&name, Key::Range(first, last), Value::Member);
        }
        let lookup = Lookup::Address(family, Side::Destination);
        allow(format!("names{}", family.digit()), vec![Match::In(lookup, name)]);
    }
    out.push(rule(own_rule(&output_chain(), "rest"), Vec::new(), Verdict::Drop.counted()));
    recorder.put_chain(&output_chain(), base(Hook::Output, out));
    if let Some(ports) = &order.ports {
        recorder.put_chain(&input_chain(), base(Hook::Input, inbound(ports)));
    }
    recorder.ruleset().clone()
}

fn inbound(ports: &[PortRange]) -> Vec<Rule> {
    let at = input_chain();
    let mut rules = passing(&at);
    if let Ok(link) = LinkName::new("lo") {
        rules.push(rule(own_rule(&at, "loopback"), vec![Match::InputLink(link)], Verdict::Accept.plain()));
    }
    for port in ports {
        let matches = vec![Match::Port(Protocol::TCP, *port)];
        rules.push(rule(own_rule(&at, &format!("port {port}")), matches, Verdict::Accept.counted()));
    }
    rules.push(rule(own_rule(&at, "rest"), Vec::new(), Verdict::Drop.counted()));
    rules
}

/// Replies, errors of connections, and what keeps a link alive.
fn passing(at: &ChainName) -> Vec<Rule> {
    let states = vec![ConnState::Established, ConnState::Related];
    let accept = |purpose: &str, matches| rule(own_rule(at, purpose), matches, Verdict::Accept.plain());
    vec![
        accept("established", vec![Match::State(states)]),
        accept("neighbour discovery", vec![Match::Icmpv6Type(133, 137), Match::HopLimit(255)]),
    ]
}

const fn base(hook: Hook, rules: Vec<Rule>) -> Chain {
    /// `NF_IP_PRI_FILTER - 1`.
    const PRIORITY: i32 = -1;
    Chain { base: Some(Base { hook, priority: PRIORITY }), rules }
}

fn output_chain() -> ChainName {
    podwall_engine::compile::names::leaving()
}

fn input_chain() -> ChainName {
    podwall_engine::compile::names::input()
}

#[cfg(test)]
mod tests {
    use podwall_ruleset::evaluate::{Decision, evaluate};
    use podwall_ruleset::packet::{Packet, Transport};

    use super::*;

    #[test]
    fn only_what_was_resolved_is_open_in_both_families() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let order = Order {
            addresses: [ip("198.51.100.1"), ip("2001:db8::1")].into(),
            networks: vec!["192.0.2.0/24".parse().unwrap()],
            resolvers: [ip("10.96.0.10")].into(),
            ports: Some(vec![PortRange::single(3000)]),
        };
        let ruleset = ruleset(&order);
        let passes = |hook, to: &str, transport| {
            let from = if to.contains(':') { "fd00::2" } else { "10.0.0.2" };
            let packet = Packet { hook, ..Packet::opening(ip(from), ip(to), transport) };
            evaluate(&ruleset, &packet).decision == Decision::Accept
        };
        let tcp = |port| Transport::Tcp { port, opening: true };
        let out = |to: &str, transport| passes(Hook::Output, to, transport);
        assert!(
            out("198.51.100.1", tcp(443))
                && out("2001:db8::1", Transport::Udp(9))
                && out("192.0.2.9", tcp(1))
        );
        assert!(!out("198.51.100.2", tcp(443)) && !out("2001:db8::2", tcp(443)));
        assert!(out("10.96.0.10", Transport::Udp(53)) && out("10.96.0.10", tcp(53)));
        assert!(!out("10.96.0.10", tcp(853)) && !out("8.8.8.8", Transport::Udp(53)));
        let comes = |port| passes(Hook::Input, "10.0.0.2", tcp(port));
        assert!(comes(3000) && !comes(3001));
    }

    #[test]
    fn a_pattern_cannot_be_resolved_and_says_so() {
        assert!(matches!(resolve("*.example.com"), Err(CliError::Usage(_))));
    }
}

//! Flags that change what ruleset a node gets, shared by `agent`, `render` and `explain`.
use std::net::{Ipv4Addr, Ipv6Addr};

use clap::{Args, ValueEnum};
use ipnetwork::IpNetwork;
use podwall_engine::options::{DnsProxy, SpoofGuard};
use podwall_engine::{Options, PendingMode, PodRanges};
use podwall_ruleset::{PortRange, Protocol};

/// How local addresses without a verdict are treated.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Promises")]
pub struct PlanFlags {
    /// When to drop packets of local pod addresses that have no verdict yet
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pending: Pending,
    /// This node's pod ranges: `auto` takes the Node's podCIDRs if every known pod agrees; `off`; or CIDRs with commas
    #[arg(long, value_name = "auto|off|CIDR,..", default_value = "auto", value_parser = pod_ranges)]
    pod_cidrs: PodRanges,
    /// Addresses and CIDRs that no ban covers, beside those of nodes and API servers
    #[arg(long, value_name = "CIDR,..", value_delimiter = ',', value_parser = network)]
    never_ban: Vec<IpNetwork>,
    /// TCP ports of the node that bans wider than /16 (IPv4) or /32 (IPv6) leave open: SSH, API server, kubelet
    #[arg(long, value_name = "PORT,..", value_delimiter = ',', default_values_t = [22, 6443, 10250])]
    management_ports: Vec<u16>,
    /// Where the cluster's DNS is asked, beside the addresses of Service kube-system/kube-dns
    #[arg(long, value_name = "ADDR,..", value_delimiter = ',')]
    cluster_dns: Vec<std::net::IpAddr>,
    #[command(flatten)]
    dns_proxy: DnsProxyFlags,
    /// How source addresses that pods forge are told
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    spoof_guard: Guard,
}

/// `--spoof-guard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Guard {
    /// By the route back, which must leave by the interface of arrival
    #[default]
    ReversePath,
    /// Not at all: for kernels that cannot look up routes from rules
    Off,
}

/// `--pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Pending {
    /// While a selected pod of this node has no address yet, or the view of the cluster is stale
    #[default]
    Selected,
    /// Always
    All,
    /// Never
    Off,
}

impl PlanFlags {
    /// The options they stand for.
    pub fn options(&self) -> Options {
        let pending = match self.pending {
            Pending::Selected => PendingMode::Selected,
            Pending::All => PendingMode::All,
            Pending::Off => PendingMode::Off,
        };
        let spoof_guard = match self.spoof_guard {
            Guard::ReversePath => SpoofGuard::ReversePath,
            Guard::Off => SpoofGuard::Off,
        };
        let management = |port: &u16| (Protocol::TCP, PortRange::single(*port));
        Options {
            pending,
            pod_ranges: self.pod_cidrs.clone(),
            spoof_guard,
            never_banned: self.never_ban.clone(),
            management_ports: self.management_ports.iter().map(management).collect(),
            dns_proxy: Some(self.dns_proxy.proxy()),
            cluster_dns: self.cluster_dns.iter().copied().collect(),
            ..Options::default()
        }
    }
}

/// Where the DNS proxy of a node listens; the agent and the proxy must be told the same.
#[derive(Debug, Clone, Args)]
pub struct DnsProxyFlags {
    /// IPv4 address of the node's DNS proxy, put on the loopback interface; the same for agent and proxy
    #[arg(long, value_name = "ADDR", default_value_t = crate::dns::ADDRESS_V4)]
    dns_proxy_v4: Ipv4Addr,
    /// IPv6 address of the node's DNS proxy; likewise
    #[arg(long, value_name = "ADDR", default_value_t = crate::dns::ADDRESS_V6)]
    dns_proxy_v6: Ipv6Addr,
    /// Ports of the node's DNS proxy, one for each server that pods may ask; likewise
    #[arg(long, value_name = "FIRST-LAST", default_value = "15300-15555", value_parser = ports)]
    dns_proxy_ports: PortRange,
}

impl DnsProxyFlags {
    /// What they stand for.
    pub const fn proxy(&self) -> DnsProxy {
        DnsProxy { v4: self.dns_proxy_v4, v6: self.dns_proxy_v6, ports: self.dns_proxy_ports }
    }
}

fn ports(text: &str) -> Result<PortRange, String> {
    let range = text.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        PortRange::new(first, last).filter(|range| range.first() > 0)
    });
    range.ok_or_else(|| format!("{text:?} are no ports; write for example 15300-15555"))
}

fn network(text: &str) -> Result<IpNetwork, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is neither an address nor a CIDR"))
}

fn pod_ranges(text: &str) -> Result<PodRanges, String> {
    match text {
        "auto" => Ok(PodRanges::Auto),
        "off" => Ok(PodRanges::Off),
        list => {
            let range = |part: &str| {
                let read: Result<IpNetwork, _> = part.trim().parse();
                read.map_err(|_| format!("{part:?} is no CIDR; write for example 10.244.1.0/24,fd00:1::/64"))
            };
            list.split(',').map(range).collect::<Result<_, _>>().map(PodRanges::List)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_ranges_are_auto_off_or_a_list() {
        assert_eq!(pod_ranges("auto"), Ok(PodRanges::Auto));
        assert_eq!(pod_ranges("off"), Ok(PodRanges::Off));
        let list = ["10.0.0.0/24", "fd00::/64"].map(|range| range.parse().unwrap());
        assert_eq!(pod_ranges("10.0.0.0/24, fd00::/64"), Ok(PodRanges::List(list.into())));
        assert!(pod_ranges("10.0.0.0/24,nonsense").unwrap_err().contains("\"nonsense\" is no CIDR"));
    }
}

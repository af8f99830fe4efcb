//! What an operator chooses, and what it defaults to. Both the plan and the compiler look at it.
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use podwall_ruleset::{Family, PortRange, Protocol};

/// When an address of this node without a verdict is dropped (decision L7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PendingMode {
    /// While a selected pod of this node has no address yet, or our view of the cluster is stale.
    #[default]
    Selected,
    /// Always.
    All,
    /// Never.
    Off,
}

/// Which addresses are this node's pods'.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PodRanges {
    /// The node's podCIDRs, if all local pods live inside and no other pod does.
    #[default]
    Auto,
    /// These.
    List(Vec<IpNetwork>),
    /// None: `pending` protects nothing.
    Off,
}

/// How forged sources are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpoofGuard {
    /// The route back to the source must leave by the interface of arrival.
    #[default]
    ReversePath,
    /// The kernel cannot look up routes from rules.
    Off,
}

/// Whether bans that reject do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rejection {
    /// The sender is told.
    #[default]
    Told,
    /// The packet filter cannot tell: they drop.
    Silent,
}

/// Where this node's DNS proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsProxy {
    /// For IPv4.
    pub v4: Ipv4Addr,
    /// For IPv6.
    pub v6: Ipv6Addr,
    /// One port for each server that is asked.
    pub ports: PortRange,
}

impl DnsProxy {
    /// Its address of a family.
    pub const fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        }
    }
}

/// Whether addresses of names can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Learning {
    /// They can.
    #[default]
    Possible,
    /// The packet filter has no sets of pairs: rules with names allow nothing.
    Impossible,
}

/// SSH, the API server, the kubelet.
const MANAGEMENT_PORTS: [u16; 3] = [22, 6443, 10250];

/// What an operator chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// See [`PendingMode`].
    pub pending: PendingMode,
    /// See [`PodRanges`].
    pub pod_ranges: PodRanges,
    /// See [`SpoofGuard`].
    pub spoof_guard: SpoofGuard,
    /// Who is never banned, beside nodes and API servers (decision B1).
    pub never_banned: Vec<IpNetwork>,
    /// Whether bans that reject do.
    pub rejection: Rejection,
    /// What wide bans leave open on the node itself.
    pub management_ports: Vec<(Protocol, PortRange)>,
    /// Where the node's DNS proxy listens; `None`: there is none.
    pub dns_proxy: Option<DnsProxy>,
    /// Where the cluster's DNS is asked, beside the addresses of its Service.
    pub cluster_dns: BTreeSet<IpAddr>,
    /// Whether addresses of names can be held.
    pub learning: Learning,
    /// NFLOG group of drop records.
    pub log_group: u16,
    /// Bytes of a dropped packet in its record.
    pub log_snaplen: u32,
    /// Drop records a second and source.
    pub log_rate: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pending: PendingMode::default(),
            pod_ranges: PodRanges::default(),
            spoof_guard: SpoofGuard::default(),
            never_banned: Vec::new(),
            rejection: Rejection::default(),
            management_ports: MANAGEMENT_PORTS.map(|port| (Protocol::TCP, PortRange::single(port))).to_vec(),
            dns_proxy: None,
            cluster_dns: BTreeSet::new(),
            learning: Learning::default(),
            log_group: 64,
            log_snaplen: 96,
            log_rate: 10,
        }
    }
}

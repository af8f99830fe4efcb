//! What an operator chooses, and what it defaults to. Both the plan and the compiler look at it.
use ipnetwork::IpNetwork;
use podwall_ruleset::{PortRange, Protocol};

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
            log_group: 64,
            log_snaplen: 96,
            log_rate: 10,
        }
    }
}

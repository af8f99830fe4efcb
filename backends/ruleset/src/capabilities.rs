//! What one backend on one kernel can do, found out by trying.
use std::fmt;

/// Probed once, when a backend is opened; never guessed from a version number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// `nftables` or `iptables-nft` or `iptables-legacy`.
    pub backend: &'static str,
    /// Who may write into our table while we live, and whether it outlives us.
    pub guard: Guard,
    /// What one commit covers.
    pub atomicity: Atomicity,
    /// The strict reverse path check against forged sources works (`NFT_FIB_INET`, `xt_rpfilter`).
    pub reverse_path: bool,
    /// Drop records can be sent (`nfnetlink_log`).
    pub log: bool,
    /// Senders can be told that their packet was refused, where bans are judged.
    pub reject: bool,
    /// Pairs of addresses can be held, each with an end: what pods learn from DNS (`hash:net,net` of ipset).
    pub learned: bool,
    /// IPv6 rules can be loaded.
    pub ipv6: bool,
}

/// How our table is kept ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// `owner` + `persist` (Linux 6.9): the kernel refuses other writers, and the table outlives the agent.
    Owned,
    /// A monitor notices other writers and the agent repairs.
    Watched,
}

/// What is all-or-nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atomicity {
    /// Sets and rules of both families in one commit.
    Transaction,
    /// One table of one family; sets apart.
    PerTable,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owned => "owned",
            Self::Watched => "watched",
        })
    }
}

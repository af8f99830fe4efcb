//! The seam of DNS detours: how the queries of some pods come to a proxy on this node.
//!
//! Owns the contract. A query of a pod to port 53 of a server that it asks by the proxy, by UDP or TCP, in either family,
//! goes to the server's port of the proxy, before any other destination NAT; whatever else it asks, it asks itself. That
//! lasts [`LIFE`] and is renewed by whoever set it; without it, queries go to their servers as if nothing were there.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::{BackendError, Family};

/// How long a way is open without being renewed.
pub const LIFE: Duration = Duration::from_secs(3);

/// Where the proxy listens, one address a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxy {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Proxy {
    /// Its address of a family.
    pub const fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        }
    }
}

/// Pods, each with a server that it asks by the proxy.
pub type Askers = BTreeSet<(IpAddr, IpAddr)>;

/// The way of queries to the proxy, in one packet filter.
pub trait Detour: Send {
    /// Whose queries to which server go to the proxy, as pairs of one family, and to which port those for each server.
    /// Both are whole; after an error it is set again.
    fn set(&mut self, askers: &Askers, ways: &BTreeMap<IpAddr, u16>) -> Result<(), BackendError>;

    /// The proxy lives: its ways stay open for another [`LIFE`]. Answers what another program had done to them and is
    /// put right.
    fn renew(&mut self) -> Result<Option<String>, BackendError>;

    /// Takes everything away.
    fn close(&mut self) -> Result<(), BackendError>;
}

//! What arrives at a namespace, seen before any of its own filters.

use std::{
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use rustix::{
    event::{PollFd, PollFlags},
    net::sockopt,
};

use crate::{
    LabError, Netns, Protocol,
    sctp::Packet,
    socket::{self, Family, Kind},
};

/// A packet that came in on some interface of the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Source address in its header.
    pub source: IpAddr,
    /// Destination address in its header.
    pub destination: IpAddr,
    /// What it carries.
    pub protocol: Protocol,
    /// Source and destination port; zero for ICMP.
    pub ports: (u16, u16),
}

/// Hears every TCP, UDP, ICMP and SCTP packet that comes into a namespace from the moment it is opened.
///
/// In a pod that is what the node's filter let through. In a node it also hears what will be forwarded or dropped.
#[derive(Debug)]
pub struct Listener {
    taps: [OwnedFd; 2],
}

impl Listener {
    /// Starts to listen on all interfaces of `netns`, loopback too.
    pub fn open(netns: &Netns) -> Result<Self, LabError> {
        let tap = |family| -> Result<OwnedFd, rustix::io::Errno> {
            let tap = socket::open(Kind::Tap, family)?;
            sockopt::set_socket_recv_buffer_size(&tap, 1 << 20)?;
            Ok(tap)
        };
        let open = || Ok([tap(Family::V4)?, tap(Family::V6)?]);
        let taps = netns.run(open)?.map_err(LabError::io::<rustix::io::Errno>("listening to packets"))?;
        Ok(Self { taps })
    }

    /// Waits until something arrives that `wanted` recognises; `None` when the time is over. What arrived before it
    /// is forgotten.
    pub fn wait_for(
        &self,
        timeout: Duration,
        wanted: impl Fn(&Arrival) -> bool,
    ) -> Result<Option<Arrival>, LabError> {
        let until = Instant::now() + timeout;
        loop {
            if let Some(arrival) = self.drain()?.into_iter().find(&wanted) {
                return Ok(Some(arrival));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            let mut taps =
                self.taps.each_ref().map(|tap| PollFd::from_borrowed_fd(tap.as_fd(), PollFlags::IN));
            socket::wait(&mut taps, Some(until)).map_err(LabError::io("waiting for packets"))?;
        }
    }

    /// Everything that has arrived and was not taken yet, per family in order.
    pub fn drain(&self) -> Result<Vec<Arrival>, LabError> {
        let mut arrivals = Vec::new();
        let mut buffer = vec![0; 65_536];
        for tap in &self.taps {
            while let Some((length, _)) =
                socket::receive(tap, &mut buffer).map_err(LabError::io("reading packets"))?
            {
                arrivals.extend(buffer.get(..length).and_then(Arrival::decode));
            }
        }
        Ok(arrivals)
    }
}

impl Arrival {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ip(bytes).ok()?;
        let (source, destination, payload) = match packet.net? {
            NetSlice::Ipv4(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
                ip.payload().payload,
            ),
            NetSlice::Ipv6(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
                ip.payload().payload,
            ),
            NetSlice::Arp(_) => return None,
        };
        let (protocol, ports) = match packet.transport {
            Some(TransportSlice::Tcp(tcp)) => (Protocol::Tcp, (tcp.source_port(), tcp.destination_port())),
            Some(TransportSlice::Udp(udp)) => (Protocol::Udp, (udp.source_port(), udp.destination_port())),
            Some(TransportSlice::Icmpv4(_)) => (Protocol::Icmp, (0, 0)),
            // Neighbour discovery and the like are the link's own affair (RFC 4861: types 133 to 137).
            Some(TransportSlice::Icmpv6(icmp)) if !(130..=143).contains(&icmp.type_u8()) => {
                (Protocol::Icmp, (0, 0))
            }
            Some(TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) => return None,
            None => {
                let sctp = Packet::decode(payload)?;
                (Protocol::Sctp, (sctp.source_port, sctp.destination_port))
            }
        };
        Some(Self { source, destination, protocol, ports })
    }
}

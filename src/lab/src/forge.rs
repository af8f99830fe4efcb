//! Packets with any source address, as a pod with CAP_NET_RAW can send them.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use rustix::net::{SendFlags, sendto};

use crate::{
    LabError, Netns,
    sctp::{Chunk, Packet},
    socket::{self, Kind},
};

/// The first hop limit of what we forge: Linux's default.
const HOPS: u8 = 64;

/// What a forged packet carries above IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A datagram.
    Udp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
        /// The data.
        data: Vec<u8>,
    },
    /// A TCP segment that opens a connection.
    TcpSyn {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
    },
    /// A TCP segment in the middle of a connection nobody opened.
    TcpAck {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
    },
    /// An echo request.
    Echo {
        /// Identifier.
        id: u16,
    },
    /// An SCTP packet that opens an association.
    SctpInit {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
    },
    /// An SCTP packet of an association nobody opened, which conntrack takes for the first of a flow all the same.
    SctpHeartbeat {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
    },
}

/// A packet to send as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forged {
    /// The address it claims to come from.
    pub source: IpAddr,
    /// Where it goes; of the same family.
    pub destination: IpAddr,
    /// What it carries.
    pub payload: Payload,
}

impl Forged {
    /// Sends the packet once from inside `netns`.
    pub fn send(&self, netns: &Netns) -> Result<(), LabError> {
        let doing = || format!("sending a forged packet to {}", self.destination);
        let bytes = self.encode().map_err(LabError::io(doing()))?;
        netns.run(|| {
            let socket = socket::open(Kind::Forge, self.destination.into()).map_err(LabError::io(doing()))?;
            let to = SocketAddr::new(self.destination, 0);
            sendto(&socket, &bytes, SendFlags::empty(), &to).map_err(LabError::io(doing()))?;
            Ok(())
        })?
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, std::io::Error> {
        let ip = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                PacketBuilder::ipv4(source.octets(), destination.octets(), HOPS)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                PacketBuilder::ipv6(source.octets(), destination.octets(), HOPS)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                return Err(std::io::Error::other("source and destination are of different families"));
            }
        };
        let mut bytes = Vec::new();
        let written = match &self.payload {
            Payload::Udp { from, to, data } => ip.udp(*from, *to).write(&mut bytes, data),
            Payload::TcpSyn { from, to } => ip.tcp(*from, *to, 1, 1024).syn().write(&mut bytes, &[]),
            Payload::TcpAck { from, to } => ip.tcp(*from, *to, 1, 1024).ack(1).write(&mut bytes, b"stray"),
            Payload::Echo { id } if self.destination.is_ipv4() => {
                ip.icmpv4_echo_request(*id, 1).write(&mut bytes, b"forged")
            }
            Payload::Echo { id } => ip.icmpv6_echo_request(*id, 1).write(&mut bytes, b"forged"),
            Payload::SctpInit { from, to } => {
                let chunk = Chunk::Init { tag: 1 };
                let packet = Packet { source_port: *from, destination_port: *to, tag: 0, chunk };
                ip.write(&mut bytes, etherparse::IpNumber::SCTP, &packet.encode())
            }
            Payload::SctpHeartbeat { from, to } => {
                let chunk = Chunk::Heartbeat(b"beat".to_vec());
                let packet = Packet { source_port: *from, destination_port: *to, tag: 1, chunk };
                ip.write(&mut bytes, etherparse::IpNumber::SCTP, &packet.encode())
            }
        };
        written.map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(bytes)
    }
}

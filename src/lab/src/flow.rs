//! A flow that lives on: opened once, asked again and again whether it still carries data both ways.
//!
//! For TCP that is one connection, for UDP and ICMP one socket (one conntrack entry), for SCTP one association kept
//! alive with heartbeats.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{SendFlags, bind, connect, send, sendto},
};

use crate::{
    LabError, Netns, Probe, Protocol,
    probe::without_header,
    sctp::{Chunk, Packet},
    socket::{self, Kind},
};

/// What a server sends unasked, see [`crate::Server::push`].
pub(crate) const PUSHED: &[u8] = b"pushed\n";

/// Datagrams are repeated after this long.
const AGAIN: Duration = Duration::from_millis(90);

/// Source ports of SCTP flows, apart from those of probes (50,000 and up).
static SCTP_PORT: AtomicU32 = AtomicU32::new(0);

/// How one exchange over a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// What was sent came back.
    Echoed,
    /// Nothing came back in time; the flow may still recover.
    TimedOut,
    /// The flow is over: reset, refused or closed by the other side.
    Closed,
}

/// An open flow. Dropping it closes the socket.
#[derive(Debug)]
pub struct Flow {
    socket: OwnedFd,
    probe: Probe,
    port: u16,
    /// The tag the other side of an SCTP association wants to see.
    tag: u32,
    count: u32,
    heard: Vec<u8>,
}

impl Flow {
    /// Opens a flow from inside `netns` to where `probe` points, and proves with one exchange that it works.
    pub fn open(netns: &Netns, probe: Probe) -> Result<Self, LabError> {
        let doing = || format!("opening a {} flow to {} port {}", probe.protocol, probe.to, probe.port);
        let mut flow = netns.run(|| Self::start(probe))?.map_err(LabError::io::<Errno>(doing()))?;
        let until = Instant::now() + probe.timeout;
        let shaken = flow.shake_hands(until);
        let first = if shaken {
            flow.exchange(until.saturating_duration_since(Instant::now()))
        } else {
            Exchange::Closed
        };
        match first {
            Exchange::Echoed => Ok(flow),
            Exchange::TimedOut | Exchange::Closed => Err(LabError::io(doing())(Errno::TIMEDOUT)),
        }
    }

    /// What it speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.probe.protocol
    }

    /// Sends something new and waits for it to come back.
    pub fn exchange(&mut self, timeout: Duration) -> Exchange {
        self.count += 1;
        let until = Instant::now() + timeout;
        let (request, reply) = self.question();
        if self.probe.protocol == Protocol::Tcp {
            return match self.send(&request) {
                Ok(()) => self.hear(&reply, until),
                Err(_) => Exchange::Closed,
            };
        }
        loop {
            // A datagram that the own host refuses to send is a lost datagram.
            self.send(&request).ok();
            let heard = self.hear(&reply, until.min(Instant::now() + AGAIN));
            if heard != Exchange::TimedOut || Instant::now() >= until {
                return heard;
            }
        }
    }

    /// Waits for a line the server sends unasked ([`crate::Server::push`]). Pushes heard before are forgotten.
    pub fn hears_push(&mut self, timeout: Duration) -> bool {
        self.hear(PUSHED, Instant::now() + timeout) == Exchange::Echoed
    }

    fn start(probe: Probe) -> Result<Self, Errno> {
        let kind = match probe.protocol {
            Protocol::Tcp => Kind::Tcp,
            Protocol::Udp => Kind::Udp,
            Protocol::Icmp => Kind::Ping,
            Protocol::Sctp => Kind::Sctp,
        };
        let socket = socket::open(kind, probe.to.into())?;
        if let Some(source) = probe.source {
            bind(&socket, &SocketAddr::new(source, 0))?;
        }
        let port = 40_000 + SCTP_PORT.fetch_add(1, Ordering::Relaxed) % 10_000;
        let port = u16::try_from(port).unwrap_or(u16::MAX);
        match probe.protocol {
            Protocol::Sctp => {}
            Protocol::Tcp | Protocol::Udp | Protocol::Icmp => {
                match connect(&socket, &SocketAddr::new(probe.to, probe.port)) {
                    Ok(()) | Err(Errno::INPROGRESS) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        Ok(Self { socket, probe, port, tag: 0, count: 0, heard: Vec::new() })
    }

    /// What must happen before data can flow: TCP's greeting, SCTP's association.
    fn shake_hands(&mut self, until: Instant) -> bool {
        match self.probe.protocol {
            Protocol::Tcp => self.hear(b"\n", until) == Exchange::Echoed,
            Protocol::Udp | Protocol::Icmp => true,
            Protocol::Sctp => self.associate(until),
        }
    }

    fn associate(&mut self, until: Instant) -> bool {
        self.send_chunk(Chunk::Init { tag: u32::from(self.port) });
        while let Some(packet) = self.next_packet(until) {
            match packet.chunk {
                Chunk::InitAck { tag, cookie } => {
                    self.tag = tag;
                    self.send_chunk(Chunk::CookieEcho(cookie));
                }
                Chunk::CookieAck => return true,
                Chunk::Abort => return false,
                Chunk::Init { .. } | Chunk::Heartbeat(_) | Chunk::HeartbeatAck(_) | Chunk::CookieEcho(_) => {}
            }
        }
        false
    }

    /// What to send, and what must appear in the answer.
    fn question(&self) -> (Vec<u8>, Vec<u8>) {
        let line = format!("line {} ends\n", self.count).into_bytes();
        match self.probe.protocol {
            Protocol::Tcp | Protocol::Udp => (line.clone(), line),
            Protocol::Icmp => {
                let kind = if self.probe.to.is_ipv4() { 8 } else { 128 };
                let [.., high, low] = self.count.to_be_bytes();
                let mut request = vec![kind, 0, 0, 0, 0, 0, high, low];
                request.extend(&line);
                (request, line)
            }
            Protocol::Sctp => {
                let heartbeat = Packet {
                    source_port: self.port,
                    destination_port: self.probe.port,
                    tag: self.tag,
                    chunk: Chunk::Heartbeat(line.clone()),
                };
                (heartbeat.encode(), line)
            }
        }
    }

    /// Reads until `wanted` has appeared. Only TCP is a stream; of the others each packet stands alone.
    fn hear(&mut self, wanted: &[u8], until: Instant) -> Exchange {
        let mut buffer = [0; 4096];
        loop {
            match socket::receive(&self.socket, &mut buffer) {
                Ok(None) => match socket::readable(&self.socket, until) {
                    Ok(true) => {}
                    Ok(false) => return Exchange::TimedOut,
                    Err(_) => return Exchange::Closed,
                },
                Ok(Some((0, _))) if self.probe.protocol == Protocol::Tcp => return Exchange::Closed,
                Ok(Some((length, sender))) => {
                    let stranger = self.probe.protocol == Protocol::Sctp
                        && sender.is_some_and(|sender| sender.ip() != self.probe.to);
                    self.heard.extend(buffer.get(..length).filter(|_| !stranger).unwrap_or_default());
                    let found = self.heard.windows(wanted.len()).rposition(|window| window == wanted);
                    if found.is_some() || self.probe.protocol != Protocol::Tcp {
                        self.heard.drain(..found.map_or(self.heard.len(), |at| at + wanted.len()));
                    }
                    if found.is_some() {
                        return Exchange::Echoed;
                    }
                }
                // Before a connection stands there is nothing to read (ENOTCONN); poll tells when that changes.
                Err(Errno::NOTCONN) => return Exchange::TimedOut,
                Err(_) => return Exchange::Closed,
            }
        }
    }

    fn next_packet(&mut self, until: Instant) -> Option<Packet> {
        let mut buffer = [0; 4096];
        loop {
            let received = socket::receive(&self.socket, &mut buffer).ok()?;
            let Some((length, _)) = received else {
                if socket::readable(&self.socket, until).ok()? { continue } else { return None }
            };
            let packet = Packet::decode(without_header(buffer.get(..length)?, self.probe.to));
            let ours =
                |packet: &Packet| packet.destination_port == self.port && packet.tag == u32::from(self.port);
            if let Some(packet) = packet.filter(ours) {
                return Some(packet);
            }
        }
    }

    fn send_chunk(&mut self, chunk: Chunk) {
        let packet =
            Packet { source_port: self.port, destination_port: self.probe.port, tag: self.tag, chunk };
        // A packet that is not sent is answered by nobody, which the caller notices.
        self.send(&packet.encode()).ok();
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        let sent = match self.probe.protocol {
            Protocol::Tcp | Protocol::Udp | Protocol::Icmp => send(&self.socket, bytes, SendFlags::NOSIGNAL),
            Protocol::Sctp => {
                sendto(&self.socket, bytes, SendFlags::empty(), &SocketAddr::new(self.probe.to, 0))
            }
        };
        match sent {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

//! One question under way: a socket, what was sent, what came back so far.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    net::{SendFlags, bind, connect, send, sendto, sockopt},
};

use super::{Answer, Outcome, Probe, Protocol};
use crate::{
    sctp::{Chunk, Packet},
    socket::{self, Kind},
};

/// Datagrams are sent again after this long without an answer: the filter may have changed in between.
const AGAIN: Duration = Duration::from_millis(90);

/// Tells questions apart that come from the same namespace at the same time.
static NUMBER: AtomicU32 = AtomicU32::new(1);

pub(super) struct Attempt {
    socket: OwnedFd,
    probe: Probe,
    number: u32,
    heard: Vec<u8>,
    connected: bool,
    next: Instant,
    deadline: Instant,
}

impl Attempt {
    /// Opens the socket and sends. The inner error is an outcome that is known at once.
    pub(super) fn start(probe: Probe) -> Result<Result<Self, Outcome>, Errno> {
        let family = probe.to.into();
        let kind = match probe.protocol {
            Protocol::Tcp => Kind::Tcp,
            Protocol::Udp => Kind::Udp,
            Protocol::Icmp => Kind::Ping,
            Protocol::Sctp => Kind::Sctp,
        };
        let socket = socket::open(kind, family)?;
        if let Some(source) = probe.source {
            bind(&socket, &SocketAddr::new(source, 0))?;
        }
        let started = match probe.protocol {
            Protocol::Tcp => {
                // Closing must not leave a connection in TIME_WAIT per probe: a reset ends it on both sides.
                sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
                connect(&socket, &SocketAddr::new(probe.to, probe.port))
            }
            Protocol::Udp | Protocol::Icmp => {
                socket::want_errors(&socket, family)?;
                connect(&socket, &SocketAddr::new(probe.to, probe.port))
            }
            Protocol::Sctp => Ok(()),
        };
        let now = Instant::now();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let deadline = now + probe.timeout;
        let attempt =
            Self { socket, probe, number, heard: Vec::new(), connected: false, next: now, deadline };
        match started {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(attempt.first()),
            Err(errno) => verdict(errno).map(Err).ok_or(errno),
        }
    }

    /// Reads what is there; an answer ends the attempt.
    pub(super) fn read(&mut self) -> Option<Answer> {
        let mut buffer = [0; 2048];
        if self.probe.protocol == Protocol::Tcp && !self.connected {
            match sockopt::socket_error(&self.socket) {
                Ok(Ok(())) => self.connected = true,
                Ok(Err(errno)) | Err(errno) => return verdict(errno).map(Answer::silent),
            }
        }
        loop {
            let (length, sender) = match socket::receive(&self.socket, &mut buffer) {
                Ok(Some(received)) => received,
                Ok(None) => return None,
                Err(errno) => return verdict(errno).map(Answer::silent),
            };
            let answer = self.understand(buffer.get(..length)?, sender);
            if answer.is_some() {
                return answer;
            }
        }
    }

    /// Sends again when it is time to, and ends the attempt when there is no time left.
    pub(super) fn late(&mut self, now: Instant) -> Option<Answer> {
        if now >= self.deadline {
            // Connected but not greeted: a stranger's server, which is an answer too.
            let outcome = if self.connected { Outcome::Open } else { Outcome::TimedOut };
            return Some(Answer::silent(outcome));
        }
        if now >= self.next { self.send().err().map(Answer::silent) } else { None }
    }

    fn first(mut self) -> Result<Self, Outcome> {
        self.send()?;
        Ok(self)
    }

    fn send(&mut self) -> Result<(), Outcome> {
        self.next = Instant::now() + AGAIN;
        let sent = match self.probe.protocol {
            Protocol::Tcp => Ok(0),
            Protocol::Udp => send(&self.socket, b"?", SendFlags::empty()),
            Protocol::Icmp => send(&self.socket, &self.echo_request(), SendFlags::empty()),
            Protocol::Sctp => {
                let packet = Packet {
                    source_port: self.source_port(),
                    destination_port: self.probe.port,
                    tag: 0,
                    chunk: Chunk::Init { tag: self.number },
                };
                sendto(&self.socket, &packet.encode(), SendFlags::empty(), &SocketAddr::new(self.probe.to, 0))
            }
        };
        sent.map(|_| ()).or_else(|errno| verdict(errno).map_or(Ok(()), Err))
    }

    /// Type, code, checksum and identifier (both the kernel's to fill), sequence number.
    fn echo_request(&self) -> [u8; 8] {
        let kind = match self.probe.to {
            IpAddr::V4(_) => 8,
            IpAddr::V6(_) => 128,
        };
        [kind, 0, 0, 0, 0, 0, 0, 1]
    }

    /// Where it is ours to choose: above what servers use, different for the last ten thousand questions.
    fn source_port(&self) -> u16 {
        u16::try_from(50_000 + self.number % 10_000).unwrap_or(u16::MAX)
    }

    fn understand(&mut self, bytes: &[u8], sender: Option<SocketAddr>) -> Option<Answer> {
        match self.probe.protocol {
            Protocol::Tcp if bytes.is_empty() => Some(Answer::silent(Outcome::Open)),
            Protocol::Tcp => {
                self.heard.extend(bytes);
                self.heard.contains(&b'\n').then(|| greeted(&self.heard))
            }
            Protocol::Udp => Some(greeted(bytes)),
            Protocol::Icmp => {
                let reply = matches!(bytes.first(), Some(0 | 129));
                reply.then(|| Answer::silent(Outcome::Open))
            }
            Protocol::Sctp => {
                let from_target = sender.is_none_or(|sender| sender.ip() == self.probe.to);
                let packet = Packet::decode(without_header(bytes, self.probe.to)).filter(|_| from_target)?;
                let ours = packet.source_port == self.probe.port
                    && packet.destination_port == self.source_port()
                    && packet.tag == self.number;
                match packet.chunk {
                    Chunk::InitAck { cookie, .. } if ours => {
                        Some(greeted(cookie.get(4..).unwrap_or_default()))
                    }
                    Chunk::Abort if ours => Some(Answer::silent(Outcome::Refused)),
                    Chunk::InitAck { .. } | Chunk::Abort | Chunk::Init { .. } => None,
                    Chunk::Heartbeat(_) | Chunk::HeartbeatAck(_) => None,
                    Chunk::CookieEcho(_) | Chunk::CookieAck => None,
                }
            }
        }
    }
}

/// Waits until one of them has something to read, or one of them is due; says which have.
pub(super) fn wait<'a>(attempts: impl Iterator<Item = &'a Attempt> + Clone) -> Result<Vec<bool>, Errno> {
    let until = attempts.clone().map(Attempt::due).min();
    let mut sockets: Vec<_> = attempts
        .map(|attempt| {
            let flags = match attempt.probe.protocol {
                Protocol::Tcp if !attempt.connected => PollFlags::OUT,
                Protocol::Tcp | Protocol::Udp | Protocol::Icmp | Protocol::Sctp => PollFlags::IN,
            };
            PollFd::from_borrowed_fd(attempt.socket.as_fd(), flags)
        })
        .collect();
    socket::wait(&mut sockets, until)?;
    Ok(sockets.iter().map(|socket| !socket.revents().is_empty()).collect())
}

impl Attempt {
    fn due(&self) -> Instant {
        match self.probe.protocol {
            Protocol::Tcp => self.deadline,
            Protocol::Udp | Protocol::Icmp | Protocol::Sctp => self.next.min(self.deadline),
        }
    }
}

/// Raw IPv4 sockets deliver the IP header too, raw IPv6 sockets do not (raw(7), RFC 3542 section 3).
pub(crate) fn without_header(bytes: &[u8], family: IpAddr) -> &[u8] {
    match (family, bytes.first()) {
        (IpAddr::V4(_), Some(first)) => bytes.get(usize::from(first & 0x0f) * 4..).unwrap_or_default(),
        (IpAddr::V4(_), None) | (IpAddr::V6(_), _) => bytes,
    }
}

fn greeted(bytes: &[u8]) -> Answer {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Answer { outcome: Outcome::Open, greeting: Some(String::from_utf8_lossy(line).into_owned()) }
}

/// What an error says about the way there; `None`: nothing, go on waiting.
fn verdict(errno: Errno) -> Option<Outcome> {
    match errno {
        Errno::CONNREFUSED | Errno::CONNRESET | Errno::NOPROTOOPT | Errno::PROTO | Errno::PIPE => {
            Some(Outcome::Refused)
        }
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::ACCESS | Errno::NONET => {
            Some(Outcome::Unreachable)
        }
        Errno::TIMEDOUT => Some(Outcome::TimedOut),
        // EPERM is how the own output filter drops; to the one who asks that is silence.
        _ => None,
    }
}

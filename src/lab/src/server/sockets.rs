//! A server's sockets and what is said on each. Errors of one peer end that peer's connection, nobody else's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    net::{SendFlags, SocketFlags, accept_with, bind, listen, send, sendto, sockopt},
};

use super::Endpoint;
use crate::{
    Protocol,
    flow::PUSHED,
    probe::without_header,
    sctp::{Chunk, Packet},
    socket::{self, Family, Kind},
};

/// Peers of a UDP socket that are remembered for pushing; the oldest known address makes room.
const PEERS: usize = 64;

/// Added to a peer's SCTP tag to make ours: any value but the peer's own will do.
const OUR_TAG: u32 = 0x0100_0000;

pub(super) struct Sockets {
    name: String,
    bell: Arc<OwnedFd>,
    doors: Vec<OwnedFd>,
    talks: Vec<Talk>,
    datagrams: Vec<Datagrams>,
    associations: Vec<Associations>,
}

/// A TCP connection and what could not be written yet.
struct Talk {
    socket: OwnedFd,
    unsent: Vec<u8>,
}

struct Datagrams {
    socket: OwnedFd,
    peers: Vec<SocketAddr>,
}

/// All SCTP of one address; ports are told apart here, because raw sockets do not.
struct Associations {
    socket: OwnedFd,
    address: IpAddr,
    ports: BTreeSet<u16>,
    /// The tag each peer (address and port) asked for.
    tags: BTreeMap<(IpAddr, u16), u32>,
}

impl Sockets {
    pub(super) fn new(name: &str, bell: Arc<OwnedFd>) -> Self {
        Self {
            name: name.to_owned(),
            bell,
            doors: Vec::new(),
            talks: Vec::new(),
            datagrams: Vec::new(),
            associations: Vec::new(),
        }
    }

    pub(super) fn listen(&mut self, endpoint: Endpoint) -> Result<(), Errno> {
        let Endpoint { address, protocol, port } = endpoint;
        match protocol {
            Protocol::Tcp => {
                let socket = socket::open(Kind::Tcp, address.into())?;
                sockopt::set_socket_reuseaddr(&socket, true)?;
                bind(&socket, &SocketAddr::new(address, port))?;
                listen(&socket, 256)?;
                self.doors.push(socket);
            }
            Protocol::Udp => {
                let socket = socket::open(Kind::Udp, address.into())?;
                bind(&socket, &SocketAddr::new(address, port))?;
                self.datagrams.push(Datagrams { socket, peers: Vec::new() });
            }
            Protocol::Sctp => match self.associations.iter_mut().find(|all| all.address == address) {
                Some(all) => {
                    all.ports.insert(port);
                }
                None => self.associations.push(Associations::open(address, port)?),
            },
            Protocol::Icmp => {}
        }
        Ok(())
    }

    /// Waits until something happens and deals with all that has.
    pub(super) fn turn(&mut self) -> Result<(), Errno> {
        let ready = self.wait()?;
        let mut ready = ready.into_iter();
        let mut happened = || ready.next().unwrap_or(false);
        if happened() {
            rustix::io::read(&self.bell, &mut [0; 8]).ok();
        }
        let mut arrived = Vec::new();
        for door in &self.doors {
            if happened() {
                arrived.extend(accept_all(door));
            }
        }
        self.talks.retain_mut(|talk| !happened() || talk.echo().is_ok());
        for datagrams in &mut self.datagrams {
            if happened() {
                datagrams.echo(&self.name);
            }
        }
        for associations in &mut self.associations {
            if happened() {
                associations.answer(&self.name);
            }
        }
        let greeting = format!("{}\n", self.name).into_bytes();
        for socket in arrived {
            let mut talk = Talk { socket, unsent: greeting.clone() };
            if talk.write().is_ok() {
                self.talks.push(talk);
            }
        }
        Ok(())
    }

    pub(super) fn push(&mut self) {
        self.talks.retain_mut(|talk| {
            talk.unsent.extend(PUSHED);
            talk.write().is_ok()
        });
        for datagrams in &self.datagrams {
            for peer in &datagrams.peers {
                sendto(&datagrams.socket, PUSHED, SendFlags::empty(), peer).ok();
            }
        }
    }

    /// Which are ready, in the order of [`Sockets::turn`].
    fn wait(&self) -> Result<Vec<bool>, Errno> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN)];
        fds.extend(self.doors.iter().map(|door| PollFd::from_borrowed_fd(door.as_fd(), PollFlags::IN)));
        fds.extend(self.talks.iter().map(|talk| PollFd::from_borrowed_fd(talk.socket.as_fd(), talk.flags())));
        fds.extend(
            self.datagrams.iter().map(|all| PollFd::from_borrowed_fd(all.socket.as_fd(), PollFlags::IN)),
        );
        fds.extend(
            self.associations.iter().map(|all| PollFd::from_borrowed_fd(all.socket.as_fd(), PollFlags::IN)),
        );
        socket::wait(&mut fds, None)?;
        Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
    }
}

impl Talk {
    fn flags(&self) -> PollFlags {
        if self.unsent.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }

    /// Reads all there is and sends it back; an error or the end of the stream ends the talk.
    fn echo(&mut self) -> Result<(), Errno> {
        let mut buffer = [0; 4096];
        while let Some((length, _)) = socket::receive(&self.socket, &mut buffer)? {
            if length == 0 {
                return Err(Errno::PIPE);
            }
            self.unsent.extend(buffer.get(..length).unwrap_or_default());
        }
        self.write()
    }

    fn write(&mut self) -> Result<(), Errno> {
        while !self.unsent.is_empty() {
            match send(&self.socket, &self.unsent, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

impl Datagrams {
    fn echo(&mut self, name: &str) {
        let mut buffer = [0; 4096];
        // Errors here are ICMP errors about earlier answers; the socket itself stays good.
        while let Ok(Some((length, Some(peer)))) = socket::receive(&self.socket, &mut buffer) {
            let mut answer = format!("{name}\n").into_bytes();
            answer.extend(buffer.get(..length).unwrap_or_default());
            sendto(&self.socket, &answer, SendFlags::empty(), &peer).ok();
            if !self.peers.contains(&peer) {
                self.peers.push(peer);
                if self.peers.len() > PEERS {
                    self.peers.remove(0);
                }
            }
        }
    }
}

impl Associations {
    fn open(address: IpAddr, port: u16) -> Result<Self, Errno> {
        let socket = socket::open(Kind::Sctp, Family::from(address))?;
        bind(&socket, &SocketAddr::new(address, 0))?;
        Ok(Self { socket, address, ports: BTreeSet::from([port]), tags: BTreeMap::new() })
    }

    fn answer(&mut self, name: &str) {
        let mut buffer = [0; 4096];
        while let Ok(Some((length, Some(peer)))) = socket::receive(&self.socket, &mut buffer) {
            let bytes = without_header(buffer.get(..length).unwrap_or_default(), self.address);
            let Some(packet) = Packet::decode(bytes) else { continue };
            let Some(answer) = self.answer_to(&packet, peer.ip(), name) else { continue };
            sendto(&self.socket, &answer.encode(), SendFlags::empty(), &SocketAddr::new(peer.ip(), 0)).ok();
        }
    }

    fn answer_to(&mut self, packet: &Packet, peer: IpAddr, name: &str) -> Option<Packet> {
        let who = (peer, packet.source_port);
        let served = self.ports.contains(&packet.destination_port);
        let (tag, chunk) = match &packet.chunk {
            Chunk::Init { tag } if !served => (*tag, Chunk::Abort),
            Chunk::Init { tag } => {
                let mut cookie = tag.to_be_bytes().to_vec();
                cookie.extend(name.as_bytes());
                (*tag, Chunk::InitAck { tag: tag.wrapping_add(OUR_TAG), cookie })
            }
            Chunk::CookieEcho(cookie) if served => {
                let tag = u32::from_be_bytes(*cookie.first_chunk()?);
                self.tags.insert(who, tag);
                (tag, Chunk::CookieAck)
            }
            Chunk::Heartbeat(info) if served => (*self.tags.get(&who)?, Chunk::HeartbeatAck(info.clone())),
            Chunk::CookieEcho(_) | Chunk::Heartbeat(_) => return None,
            Chunk::InitAck { .. } | Chunk::HeartbeatAck(_) | Chunk::CookieAck | Chunk::Abort => return None,
        };
        Some(Packet {
            source_port: packet.destination_port,
            destination_port: packet.source_port,
            tag,
            chunk,
        })
    }
}

fn accept_all(door: &OwnedFd) -> Vec<OwnedFd> {
    let accept = || accept_with(door, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok();
    std::iter::from_fn(accept).collect()
}

//! Sockets as the lab uses them: never blocking, waited for with poll(2). Owns the choice of options.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto, recvfrom, socket_with, sockopt as options,
    },
};

/// IPPROTO_SCTP (in.h); rustix names it too, but only where the C library does.
const SCTP: u32 = 132;
/// IPPROTO_RAW: the caller writes the IP header (raw(7)), for IPv6 as well.
const RAW: u32 = 255;
/// ETH_P_IP and ETH_P_IPV6 (if_ether.h) in network order. Not ETH_P_ALL: that would show outgoing packets too.
const ETHERNET_V4: u32 = 0x0800_u16.to_be() as u32;
const ETHERNET_V6: u32 = 0x86dd_u16.to_be() as u32;

/// The kinds of sockets the lab opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    /// ICMP echo without privilege (icmp(7)); the kernel keeps identifiers apart.
    Ping,
    /// SCTP as bare packets, for kernels without SCTP sockets.
    Sctp,
    /// Sends whole IP packets, any source.
    Forge,
    /// Sees whole IP packets as they arrive, before any filter.
    Tap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

pub(crate) fn open(kind: Kind, family: Family) -> Result<OwnedFd, Errno> {
    let domain = match (kind, family) {
        (Kind::Tap, _) => AddressFamily::PACKET,
        (_, Family::V4) => AddressFamily::INET,
        (_, Family::V6) => AddressFamily::INET6,
    };
    let (socket_type, protocol) = match (kind, family) {
        (Kind::Tcp, _) => (SocketType::STREAM, Some(ipproto::TCP)),
        (Kind::Udp, _) => (SocketType::DGRAM, Some(ipproto::UDP)),
        (Kind::Ping, Family::V4) => (SocketType::DGRAM, Some(ipproto::ICMP)),
        (Kind::Ping, Family::V6) => (SocketType::DGRAM, Some(ipproto::ICMPV6)),
        (Kind::Sctp, _) => (SocketType::RAW, protocol(SCTP)),
        (Kind::Forge, _) => (SocketType::RAW, protocol(RAW)),
        (Kind::Tap, Family::V4) => (SocketType::DGRAM, protocol(ETHERNET_V4)),
        (Kind::Tap, Family::V6) => (SocketType::DGRAM, protocol(ETHERNET_V6)),
    };
    let socket = socket_with(domain, socket_type, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, protocol)?;
    match (kind, family) {
        (Kind::Tcp | Kind::Udp, Family::V6) => options::set_ipv6_v6only(&socket, true)?,
        (Kind::Tcp | Kind::Udp, Family::V4) | (Kind::Ping | Kind::Sctp | Kind::Forge | Kind::Tap, _) => {}
    }
    Ok(socket)
}

fn protocol(number: u32) -> Option<rustix::net::Protocol> {
    NonZeroU32::new(number).map(rustix::net::Protocol::from_raw)
}

/// Asks for ICMP errors on a connected datagram socket (IP_RECVERR, ip(7)); TCP reports them by itself.
pub(crate) fn want_errors(socket: &OwnedFd, family: Family) -> Result<(), Errno> {
    let set = match family {
        Family::V4 => setsockopt(socket, sockopt::Ipv4RecvErr, &true),
        Family::V6 => setsockopt(socket, sockopt::Ipv6RecvErr, &true),
    };
    set.map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// One packet or chunk of bytes, with its sender where there is one; `None` when nothing waits.
pub(crate) fn receive(
    socket: &OwnedFd,
    buffer: &mut [u8],
) -> Result<Option<(usize, Option<SocketAddr>)>, Errno> {
    match recvfrom(socket, buffer, RecvFlags::DONTWAIT) {
        Ok((length, _, sender)) => Ok(Some((length, sender.and_then(|sender| sender.try_into().ok())))),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Waits until a socket is ready or the time is over; which were ready is read from `sockets` afterwards.
pub(crate) fn wait(sockets: &mut [PollFd<'_>], until: Option<Instant>) -> Result<(), Errno> {
    let left = until.map(|until| timespec(until.saturating_duration_since(Instant::now())));
    match poll(sockets, left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Waits for one socket to become readable; false when the time is over.
pub(crate) fn readable(socket: &OwnedFd, until: Instant) -> Result<bool, Errno> {
    let mut sockets = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
    wait(&mut sockets, Some(until))?;
    let [socket] = sockets;
    Ok(!socket.revents().is_empty())
}

fn timespec(duration: Duration) -> Timespec {
    // A fraction of a millisecond more, so that a loop does not spin just before its deadline.
    let duration = duration + Duration::from_micros(200);
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

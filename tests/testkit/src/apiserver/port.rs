//! A port of 127.0.0.1 that stays ours, also while nobody listens on it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::ApiServerError;

/// A bound socket that never listens. With `SO_REUSEPORT` on both sides a program of the same user can
/// listen on the port beside it, while the kernel gives the port to nobody who asks for any free one: so
/// there is no gap in which another test can take it, neither before the program starts nor while it is
/// stopped. Until the program listens, a connection is refused as on any closed port.
#[derive(Debug)]
pub(super) struct ReservedPort {
    number: u16,
    _socket: OwnedFd,
}

impl ReservedPort {
    /// Takes any free port.
    pub(super) fn take() -> Result<Self, ApiServerError> {
        let (number, socket) = bind().map_err(ApiServerError::io("reserving a port of 127.0.0.1"))?;
        Ok(Self { number, _socket: socket })
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }
}

/// As in a URL: `127.0.0.1:<port>`.
impl fmt::Display for ReservedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Ipv4Addr::LOCALHOST, self.number)
    }
}

fn bind() -> rustix::io::Result<(u16, OwnedFd)> {
    // Close-on-exec: a program that inherited it would keep the port after this process.
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((address.port(), socket))
}

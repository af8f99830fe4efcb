//! Ports of this machine for programs under test that listen in its own network.
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what Linux gives to whoever asks for any port (`net.ipv4.ip_local_port_range`): no connection that another test
/// opens between our look and the program's start can take it.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A TCP port on which nobody listens; this process is told each only once.
///
/// # Errors
/// When all of them are taken.
pub fn unused() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two processes begin at places of their own.
    let begin = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or_default();
    for _ in 0..COUNT {
        let port = FIRST + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok()
        {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_told_once_and_can_be_had() -> io::Result<()> {
        let (one, two) = (unused()?, unused()?);
        assert_ne!(one, two);
        TcpListener::bind((Ipv4Addr::LOCALHOST, one)).map(drop)?;
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, two)).map(drop)
    }
}

//! Asking the server that the pod meant: each question from a socket of its own, so that whoever would forge an answer
//! has to guess a port beside the id (RFC 5452, 9.2), and the kernel passes on what comes from that server alone.
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout_at;

use super::message::{self, Question, Reply};

/// Plain DNS.
const PORT: u16 = 53;
/// As long as resolvers wait themselves (resolv.conf(5), `timeout`).
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest message there is.
pub const LARGEST: usize = 65_535;

/// How a question came, and is asked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A stream.
    Tcp,
}

/// Asks by an id of its own, which the answer bears.
pub async fn ask(
    server: IpAddr,
    question: &Question,
    query: &[u8],
    transport: Transport,
) -> io::Result<(Vec<u8>, Reply)> {
    let own = random_id();
    let mut sent = query.to_vec();
    message::set_id(&mut sent, own);
    let to = SocketAddr::new(server, PORT);
    match transport {
        Transport::Udp => by_datagram(to, &sent, question, own).await,
        Transport::Tcp => by_stream(to, &sent, question, own).await,
    }
}

async fn by_datagram(
    to: SocketAddr,
    query: &[u8],
    question: &Question,
    id: u16,
) -> io::Result<(Vec<u8>, Reply)> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    socket.send(query).await?;
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        timeout_at(until, socket.ready(Interest::READABLE | Interest::ERROR)).await??;
        // Room only for the moment, and not written to before: there may be hundreds of questions open.
        let mut buffer = Vec::with_capacity(LARGEST);
        let received = match socket.try_recv_buf(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => refusal(&socket),
            received => received.map(drop),
        };
        match received {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        // What fits neither id nor question is somebody's guess: the right one may still come.
        if let Some(reply) = Reply::read(&buffer, question, id) {
            return Ok((buffer.as_slice().to_vec(), reply));
        }
    }
}

/// That nobody is there is an error of the socket, and nothing that can be read (epoll(7), `EPOLLERR`).
fn refusal(socket: &UdpSocket) -> io::Result<()> {
    let error = || socket.take_error()?.map_or(Err(io::ErrorKind::WouldBlock.into()), Err);
    socket.try_io(Interest::ERROR, error)
}

async fn by_stream(
    to: SocketAddr,
    query: &[u8],
    question: &Question,
    id: u16,
) -> io::Result<(Vec<u8>, Reply)> {
    let until = tokio::time::Instant::now() + PATIENCE;
    let mut stream = timeout_at(until, TcpStream::connect(to)).await??;
    timeout_at(until, write(&mut stream, query)).await??;
    let answer = timeout_at(until, read(&mut stream)).await??;
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "not an answer to what was asked");
    let reply = Reply::read(&answer, question, id).ok_or_else(odd)?;
    Ok((answer, reply))
}

/// One message of a stream (RFC 1035, 4.2.2).
pub async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// The other way round.
pub async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let whole = [&length.to_be_bytes(), message].concat();
    stream.write_all(&whole).await
}

/// Nobody can tell it from the last one: the hasher's keys are random and made anew each time (`RandomState`).
fn random_id() -> u16 {
    let [a, b, ..] = RandomState::new().build_hasher().finish().to_be_bytes();
    u16::from_be_bytes([a, b])
}

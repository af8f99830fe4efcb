//! Streams of datagrams that nobody answers: each is new to conntrack and judged, so a single wrong verdict shows.
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use podwall_lab::Netns;

/// Ends of a stream.
#[derive(Clone, Debug)]
pub struct Stream {
    /// What it is, for people.
    pub name: String,
    /// Who sends.
    pub from: Netns,
    /// Who receives.
    pub to: Netns,
    /// Where; no other stream may use it.
    pub at: SocketAddr,
    /// Between two datagrams; nothing for as fast as it goes.
    pub pause: Option<Duration>,
}

/// What became of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// What it is, for people.
    pub name: String,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived.
    pub received: u64,
}

/// Lets all streams flow while `work` is done.
pub fn during<T>(streams: &[Stream], work: impl FnOnce() -> T) -> (T, Vec<Tally>) {
    let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let receivers: Vec<_> = streams
            .iter()
            .map(|stream| {
                let socket =
                    stream.to.run(|| listening(stream.at)).expect("a namespace").expect("a free port");
                let done = &done;
                scope.spawn(move || receive(&socket, done))
            })
            .collect();
        let senders: Vec<_> = streams
            .iter()
            .map(|stream| {
                let socket = stream.from.run(|| connected(stream.at)).expect("a namespace").expect("a way");
                let (pause, stop) = (stream.pause, &stop);
                scope.spawn(move || send(&socket, pause, stop))
            })
            .collect();
        let (stopping, ending) = (Raised(&stop), Raised(&done));
        let result = work();
        drop(stopping);
        let sent: Vec<u64> = senders.into_iter().map(|sender| sender.join().expect("it sends")).collect();
        drop(ending);
        let received = receivers.into_iter().map(|receiver| receiver.join().expect("it receives"));
        let tallies = streams.iter().zip(sent).zip(received);
        let tallies =
            tallies.map(|((stream, sent), received)| Tally { name: stream.name.clone(), sent, received });
        (result, tallies.collect())
    })
}

/// Finds the neighbours on the way before anything is counted: what waits for their answers waits in a short queue,
/// and a flood beside it pushes it out. For streams that are let through.
pub fn acquaint(stream: &Stream) {
    let receiver = stream.to.run(|| listening(stream.at)).expect("a namespace").expect("a free port");
    let sender = stream.from.run(|| connected(stream.at)).expect("a namespace").expect("a way");
    receiver.set_read_timeout(Some(Duration::from_millis(50))).expect("a good time");
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until && receiver.recv(&mut [0; 16]).is_err() {
        drop(sender.send(b"datagram"));
    }
}

/// Raises a flag when dropped: also when the work panics, or the threads would never end.
pub struct Raised<'a>(pub &'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A socket at a port nobody else means to use. A process that is being started holds all of our sockets until its
/// program begins (close-on-exec, not close-on-fork), those we have closed too, so a port may seem taken for a moment.
pub fn bound(at: impl ToSocketAddrs) -> std::io::Result<UdpSocket> {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match UdpSocket::bind(&at) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
}

/// Room for what comes while a busy machine lets the receiver wait.
fn listening(at: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = bound(at)?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20)?;
    Ok(socket)
}

fn connected(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket)
}

fn send(socket: &UdpSocket, pause: Option<Duration>, stop: &AtomicBool) -> u64 {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        sent += u64::from(socket.send(b"datagram").is_ok());
        pause.into_iter().for_each(thread::sleep);
    }
    sent
}

/// Counts until told that no more will be sent, and then as long as something still comes.
fn receive(socket: &UdpSocket, done: &AtomicBool) -> u64 {
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a good time");
    let mut received = 0;
    loop {
        match socket.recv(&mut [0; 16]) {
            Ok(_) => received += 1,
            Err(_) if done.load(Ordering::Relaxed) => return received,
            Err(_) => {}
        }
    }
}

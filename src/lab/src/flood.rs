//! More packets than anybody would send on purpose: forged ones, from several threads, over and over.
//!
//! Owns only the sending. What became of the packets is for the caller to count; [`unsent`] says how many never left an
//! interface, because the other end's queue was full (netif_rx in the kernel's net/core/dev.c drops them there).

use std::{
    fs,
    io::IoSlice,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, addr::SocketAddrArg as _, sendmmsg},
};

use crate::{
    Forged, LabError, Netns,
    socket::{self, Kind},
};

/// Packets handed to the kernel at once: few enough that a pace is kept evenly.
const BATCH: usize = 64;

/// Threads of one flood; more would only take turns on a small machine.
const THREADS: usize = 2;

/// A flood that goes on until it is ended, or dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<u64, LabError>>>,
    begun: Instant,
}

/// What a flood sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poured {
    /// Packets the kernel took.
    pub packets: u64,
    /// From the first to the last.
    pub time: Duration,
}

impl Flood {
    /// Sends these packets in turn from inside `netns`, no more than so many a second.
    pub fn start(netns: &Netns, packets: &[Forged], pace: u32) -> Result<Self, LabError> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut flood = Self { stop, threads: Vec::new(), begun: Instant::now() };
        let share = packets.len().div_ceil(THREADS).max(1);
        for part in packets.chunks(share) {
            let source = Source::of(part)?;
            let (stop, pace) = (Arc::clone(&flood.stop), f64::from(pace) / THREADS as f64);
            let work = move || source.pour(pace, &stop);
            flood.threads.push(netns.spawn_thread("flood", work)?);
        }
        Ok(flood)
    }

    /// Stops it; answers what was sent.
    pub fn end(mut self) -> Result<Poured, LabError> {
        self.stop.store(true, Ordering::Relaxed);
        let mut packets = 0;
        for thread in std::mem::take(&mut self.threads) {
            packets += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(Poured { packets, time: self.begun.elapsed() })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            drop(thread.join());
        }
    }
}

impl Poured {
    /// Packets a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.packets as f64 / self.time.as_secs_f64().max(f64::EPSILON)
    }
}

/// What one thread sends.
struct Source {
    packets: Vec<(IpAddr, Vec<u8>)>,
}

impl Source {
    fn of(packets: &[Forged]) -> Result<Self, LabError> {
        let encoded = packets.iter().map(|packet| Ok((packet.destination, packet.encode()?)));
        let packets = encoded.collect::<Result<_, std::io::Error>>();
        Ok(Self { packets: packets.map_err(LabError::io("building a flood"))? })
    }

    fn pour(&self, pace: f64, stop: &AtomicBool) -> Result<u64, LabError> {
        let (mut sent, begun) = (0, Instant::now());
        let families = self.packets.chunk_by(|(one, _), (next, _)| one.is_ipv4() == next.is_ipv4());
        let mut parts = families.map(Part::of).collect::<Result<Vec<_>, LabError>>()?;
        let mut messages: Vec<(&OwnedFd, Vec<MMsgHdr<'_>>)> = parts.iter_mut().map(Part::messages).collect();
        while !stop.load(Ordering::Relaxed) {
            for (socket, messages) in &mut messages {
                for batch in messages.chunks_mut(BATCH) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    sent += send(socket, batch)?;
                    rest(Duration::from_secs_f64(sent as f64 / pace).saturating_sub(begun.elapsed()));
                }
            }
        }
        Ok(sent)
    }
}

/// Sleeping for less would take longer than that.
fn rest(ahead: Duration) {
    if ahead > Duration::from_micros(200) {
        thread::sleep(ahead);
    }
}

fn send(socket: &OwnedFd, batch: &mut [MMsgHdr<'_>]) -> Result<u64, LabError> {
    match sendmmsg(socket, batch, SendFlags::empty()) {
        Ok(sent) => Ok(sent as u64),
        // The rest of the batch is left out, not tried again.
        Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => {
            thread::yield_now();
            Ok(0)
        }
        Err(error) => Err(LabError::io("sending a flood")(error)),
    }
}

/// Packets of one family, with all that a message points to.
struct Part<'a> {
    socket: OwnedFd,
    data: Vec<(SocketAddrAny, [IoSlice<'a>; 1])>,
    controls: Vec<SendAncillaryBuffer<'a, 'a, 'a>>,
}

impl<'a> Part<'a> {
    fn of(packets: &'a [(IpAddr, Vec<u8>)]) -> Result<Self, LabError> {
        let first = packets.first().map_or(IpAddr::from([0; 4]), |(destination, _)| *destination);
        let socket = socket::open(Kind::Forge, first.into()).map_err(LabError::io("opening a flood"))?;
        let data = packets
            .iter()
            .map(|(destination, bytes)| (SocketAddr::new(*destination, 0).as_any(), [IoSlice::new(bytes)]));
        let controls = packets.iter().map(|_| SendAncillaryBuffer::default()).collect();
        Ok(Self { socket, data: data.collect(), controls })
    }

    fn messages(&mut self) -> (&OwnedFd, Vec<MMsgHdr<'_>>) {
        let parts = self.data.iter().zip(&mut self.controls);
        let messages = parts.map(|((to, bytes), control)| MMsgHdr::new_with_addr(to, bytes, control));
        (&self.socket, messages.collect())
    }
}

/// Packets that interfaces of a namespace were to send and dropped, since they exist (proc_pid_net(5), `dev`).
pub fn unsent(netns: &Netns) -> Result<u64, LabError> {
    let text = netns.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
    let text = text.map_err(LabError::io("reading what interfaces count"))?;
    let dropped = |line: &str| line.split_once(':')?.1.split_whitespace().nth(11)?.parse::<u64>().ok();
    Ok(text.lines().filter_map(dropped).sum())
}

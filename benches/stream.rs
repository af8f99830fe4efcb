//! A stream of small numbered packets through a site, to see when it stops and when it flows again.
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use podwall_lab::{Netns, Pod};
use podwall_shapes::{Samples, readable};

use crate::site::Failure;

/// So long without a packet means: it is stopped. Many packets of each pace.
const SILENCE: Duration = Duration::from_millis(60);
/// When to give up on a change.
const PATIENCE: Duration = Duration::from_secs(10);

/// Times of one kind of change, from two starting points.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    pub(crate) from_request: Samples,
    pub(crate) from_answer: Samples,
}

impl Pair {
    pub(crate) fn note(&mut self, end: Instant, begun: Instant, answered: Instant) {
        self.from_request.push(end.saturating_duration_since(begun));
        self.from_answer.push(end.saturating_duration_since(answered));
    }
}

/// Median, 99th percentile and worst, as cells of a table.
pub(crate) fn cells(samples: &Samples) -> [String; 4] {
    let at = |percent| samples.quantile(percent).map_or_else(|| "-".to_owned(), readable);
    [at(50), at(99), at(100), samples.len().to_string()]
}

/// What the packets of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packets {
    /// All of one open flow.
    OneFlow,
    /// Each the first of a flow of its own.
    FirstOnes,
}

impl Packets {
    /// Between two of them. Flows are dearer than packets, and conntrack remembers each for a while.
    const fn pace(self) -> Duration {
        match self {
            Self::OneFlow => Duration::from_micros(100),
            Self::FirstOnes => Duration::from_millis(1),
        }
    }

    /// A gap in the numbers that only a silence makes.
    const fn gap(self) -> u64 {
        match self {
            Self::OneFlow => 50,
            Self::FirstOnes => 20,
        }
    }
}

/// Numbered packets on their way, and what of them arrived.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    ends: AtomicBool,
    /// When each packet was sent.
    sent: Mutex<Vec<Instant>>,
    /// Packets that arrived: one more than the highest number.
    arrived: AtomicU64,
    /// The first number after the last long silence.
    resumed: AtomicU64,
}

impl Stream {
    /// From whoever has this namespace to a port of a pod.
    pub(crate) fn start(from: &Netns, to: &Pod, (port, packets): (u16, Packets)) -> Result<Self, Failure> {
        let target = SocketAddr::new(to.ipv4().ok_or("a pod without IPv4")?, port);
        let socket = to.netns().run(|| UdpSocket::bind(target))??;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        let receiving = to.netns().spawn_thread("receiver", move || ours.receive(&socket, packets))?;
        let ours = Arc::clone(&shared);
        let sending = from.spawn_thread("sender", move || ours.send(target, packets))?;
        let stream = Self { shared, threads: vec![receiving, sending] };
        stream.until("packets flow", |shared| shared.arrived.load(Ordering::Acquire) > 100)?;
        Ok(stream)
    }

    fn until(&self, what: &str, done: impl Fn(&Shared) -> bool) -> Result<(), Failure> {
        let begun = Instant::now();
        while !done(&self.shared) {
            if begun.elapsed() > PATIENCE {
                return Err(format!("waited {} s in vain until {what}", PATIENCE.as_secs()).into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits for silence; answers when the first lost packet was sent.
    pub(crate) fn stopped(&self) -> Result<Instant, Failure> {
        self.until("packets stop", |shared| {
            shared.first_lost().is_some_and(|lost| lost.elapsed() > SILENCE)
        })?;
        self.shared.first_lost().ok_or_else(|| "nothing was lost".into())
    }

    /// What [`Stream::resumed`] compares with; to be asked before the change, whose answer may come after its effect.
    pub(crate) fn resumptions(&self) -> u64 {
        self.shared.resumed.load(Ordering::Acquire)
    }

    /// Waits for the first packet after a silence; answers when it was sent.
    pub(crate) fn resumed(&self, before: u64) -> Result<Instant, Failure> {
        self.until("packets flow again", |shared| shared.resumed.load(Ordering::Acquire) > before)?;
        let number = self.shared.resumed.load(Ordering::Acquire);
        self.shared.when_sent(number).ok_or_else(|| "a packet arrived that was not sent".into())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // What a thread could tell now no longer matters.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn send(&self, target: SocketAddr, packets: Packets) -> io::Result<()> {
        let socket = || {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            socket.connect(target).map(|()| socket)
        };
        let mut current = socket()?;
        for number in 0_u64.. {
            if self.ends.load(Ordering::Acquire) {
                break;
            }
            if packets == Packets::FirstOnes {
                current = socket()?;
            }
            self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            current.send(&number.to_be_bytes())?;
            thread::sleep(packets.pace());
        }
        Ok(())
    }

    fn receive(&self, socket: &UdpSocket, packets: Packets) -> io::Result<()> {
        let (mut buffer, mut next) = ([0; 8], 0);
        while !self.ends.load(Ordering::Acquire) {
            let Ok(8) = socket.recv(&mut buffer) else { continue };
            let number = u64::from_be_bytes(buffer);
            if number > next + packets.gap() {
                self.resumed.store(number, Ordering::Release);
            }
            next = number + 1;
            self.arrived.store(next, Ordering::Release);
        }
        Ok(())
    }

    /// When the packet after the last that arrived was sent.
    fn first_lost(&self) -> Option<Instant> {
        self.when_sent(self.arrived.load(Ordering::Acquire))
    }

    fn when_sent(&self, number: u64) -> Option<Instant> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        usize::try_from(number).ok().and_then(|number| sent.get(number)).copied()
    }
}

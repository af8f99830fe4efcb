//! Asking an address whether it answers: TCP, UDP, ICMP echo and SCTP, many at once.
//!
//! Owns what an answer means. How one question is put and read is [`attempt`]'s affair.

mod attempt;

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    panic,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use attempt::Attempt;
pub(crate) use attempt::without_header;

use crate::{LabError, Netns};

/// How long an unanswered probe waits unless told otherwise.
const PATIENCE: Duration = Duration::from_millis(250);

/// Questions on their way at the same time: each holds a descriptor, of which a process has 1,024 by default.
const AT_ONCE: usize = 480;

/// What a probe speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// A connection is opened, the greeting read, the connection reset.
    Tcp,
    /// A datagram is sent, repeatedly, until one comes back.
    Udp,
    /// An echo request, ICMP or ICMPv6 as the address asks; the port means nothing.
    Icmp,
    /// An INIT chunk is sent as a bare packet until INIT ACK comes back.
    Sctp,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The other side answered.
    Open,
    /// The packet got there, or to a filter that says so, and was turned away: reset, port unreachable, abort.
    Refused,
    /// Nothing came back.
    TimedOut,
    /// A router, or the own host, said that there is no way.
    Unreachable,
}

/// How a probe ended, and who answered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub outcome: Outcome,
    /// The name the server gave; pings have none, nor do strangers.
    pub greeting: Option<String>,
}

/// One question to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub(crate) to: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) timeout: Duration,
    pub(crate) source: Option<IpAddr>,
}

impl Probe {
    /// A question in any protocol; ICMP ignores the port.
    #[must_use]
    pub fn new(protocol: Protocol, to: IpAddr, port: u16) -> Self {
        Self { to, protocol, port, timeout: PATIENCE, source: None }
    }

    /// A TCP connection to a port.
    #[must_use]
    pub fn tcp(to: IpAddr, port: u16) -> Self {
        Self::new(Protocol::Tcp, to, port)
    }

    /// A datagram to a port.
    #[must_use]
    pub fn udp(to: IpAddr, port: u16) -> Self {
        Self::new(Protocol::Udp, to, port)
    }

    /// An echo request.
    #[must_use]
    pub fn ping(to: IpAddr) -> Self {
        Self::new(Protocol::Icmp, to, 0)
    }

    /// An SCTP association to a port.
    #[must_use]
    pub fn sctp(to: IpAddr, port: u16) -> Self {
        Self::new(Protocol::Sctp, to, port)
    }

    /// Waits so long for an answer, instead of 250 ms.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sends from this address of the namespace, instead of the one the kernel chooses.
    #[must_use]
    pub fn source(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Asks from inside `netns`.
    pub fn from(self, netns: &Netns) -> Result<Answer, LabError> {
        netns.run(|| ask(vec![(0, self)]))??.pop().map(|(_, answer)| answer).ok_or_else(lost)
    }
}

/// A question or answer with its place in the list.
type Numbered<T> = (usize, T);

/// Asks many questions at the same time; the answers come in the order of the questions.
///
/// Takes about as long as the longest timeout among each 480 questions.
pub fn probe_all(probes: &[(&Netns, Probe)]) -> Result<Vec<Answer>, LabError> {
    let mut answers = BTreeMap::new();
    let numbered: Vec<_> = probes.iter().enumerate().collect();
    for wave in numbered.chunks(AT_ONCE) {
        let mut by_netns: BTreeMap<u64, (&Netns, Vec<Numbered<Probe>>)> = BTreeMap::new();
        for (number, (netns, probe)) in wave {
            by_netns.entry(netns.id()?).or_insert_with(|| (netns, Vec::new())).1.push((*number, *probe));
        }
        thread::scope(|scope| -> Result<(), LabError> {
            let threads: Vec<_> = by_netns
                .into_values()
                .map(|(netns, asked)| scope.spawn(move || netns.run(|| ask(asked))))
                .collect();
            for thread in threads {
                answers.extend(join(thread)??);
            }
            Ok(())
        })?;
    }
    Ok(answers.into_values().collect())
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}

/// Runs inside the namespace: sends everything, then reads whatever is ready until all are answered or too late.
fn ask(probes: Vec<Numbered<Probe>>) -> Result<Vec<Numbered<Answer>>, LabError> {
    let mut answers = Vec::with_capacity(probes.len());
    let mut waiting = Vec::with_capacity(probes.len());
    for (number, probe) in probes {
        match Attempt::start(probe).map_err(LabError::io(format!("probing {}", probe.to)))? {
            Ok(attempt) => waiting.push((number, attempt)),
            Err(outcome) => answers.push((number, Answer::silent(outcome))),
        }
    }
    while !waiting.is_empty() {
        let ready = attempt::wait(waiting.iter().map(|(_, attempt)| attempt))
            .map_err(LabError::io("waiting for answers"))?;
        let now = Instant::now();
        let mut ready = ready.into_iter();
        waiting.retain_mut(|(number, attempt)| {
            let answer = match ready.next() {
                Some(true) => attempt.read(),
                Some(false) | None => None,
            };
            let answer = answer.or_else(|| attempt.late(now));
            let open = answer.is_none();
            answers.extend(answer.map(|answer| (*number, answer)));
            open
        });
    }
    Ok(answers)
}

fn lost() -> LabError {
    LabError::Io { doing: "probing".to_owned(), source: std::io::Error::other("no answer was recorded") }
}

impl Answer {
    pub(crate) fn silent(outcome: Outcome) -> Self {
        Self { outcome, greeting: None }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
            Self::Sctp => "SCTP",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Refused => "refused",
            Self::TimedOut => "timed out",
            Self::Unreachable => "unreachable",
        })
    }
}

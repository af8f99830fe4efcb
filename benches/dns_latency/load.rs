//! Queries at a pace that waits for nobody, and when they were answered.
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Failed;

/// Whoever is not answered so long after the last query is not answered.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Ids there are.
const IDS: usize = 1 << 16;

/// A query, ready to be sent.
#[derive(Debug)]
pub(crate) struct Question {
    socket: usize,
    bytes: Vec<u8>,
    /// Half a step after the one before, which is followed as if this one were not.
    between: bool,
}

impl Question {
    /// For the addresses of a name, by one of the sockets.
    pub(crate) fn new(socket: usize, name: &str) -> Result<Self, Failed> {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_str(name)?, RecordType::A));
        Ok(Self { socket, bytes: query.to_vec()?, between: false })
    }

    /// The same, beside the others.
    pub(crate) fn between(mut self) -> Self {
        self.between = true;
        self
    }

    /// Whose socket it is sent by.
    pub(crate) const fn pod(&self) -> usize {
        self.socket
    }
}

/// An answer: by which socket it came, its id, when.
type Heard = (usize, u16, Instant);

/// Asks all of it, and answers how long each took.
pub(crate) fn run(
    sockets: &[UdpSocket],
    questions: &[Question],
    pace: Duration,
) -> Result<Vec<Option<Duration>>, Failed> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let listening = scope.spawn(|| listen(sockets, questions.len(), &over));
        let sent = send(sockets, questions, pace);
        let until = Instant::now() + PATIENCE;
        while !listening.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        over.store(true, Ordering::Relaxed);
        let heard = listening.join().map_err(|_| "the listener died")??;
        Ok(matched(sockets.len(), &sent?, &heard))
    })
}

/// Socket and time of each, in order. The id of a query is its number on its socket.
fn send(
    sockets: &[UdpSocket],
    questions: &[Question],
    pace: Duration,
) -> Result<Vec<(usize, Instant)>, Failed> {
    let (mut sent, mut counts) = (Vec::with_capacity(questions.len()), vec![0_usize; sockets.len()]);
    let (begun, mut steps) = (Instant::now(), 0_u32);
    let mut bytes = Vec::new();
    for question in questions {
        let due = pace * steps - if question.between { pace / 2 } else { Duration::ZERO };
        steps += u32::from(!question.between);
        thread::sleep(due.saturating_sub(begun.elapsed()));
        let socket = sockets.get(question.socket).ok_or("no such socket")?;
        let count = counts.get_mut(question.socket).ok_or("no such socket")?;
        bytes.clone_from(&question.bytes);
        let id = u16::try_from(*count % IDS)?;
        bytes.splice(..2, id.to_be_bytes());
        *count += 1;
        sent.push((question.socket, Instant::now()));
        match socket.send(&bytes) {
            // What came back for an earlier one; this one counts as not answered.
            Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(sent)
}

fn listen(sockets: &[UdpSocket], count: usize, over: &AtomicBool) -> Result<Vec<Heard>, Failed> {
    /// `RCODE`, in the fourth byte (RFC 1035, 4.1.1).
    const CODE: u8 = 15;
    let tick = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let mut heard = Vec::with_capacity(count);
    let mut buffer = [0; 4096];
    let mut ready: Vec<PollFd<'_>> =
        sockets.iter().map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)).collect();
    while heard.len() < count && !over.load(Ordering::Relaxed) {
        if poll(&mut ready, Some(&tick))? == 0 {
            continue;
        }
        for (number, socket) in sockets.iter().enumerate() {
            if ready.get(number).is_none_or(|ready| ready.revents().is_empty()) {
                continue;
            }
            while let Ok(length) = socket.recv(&mut buffer) {
                let at = Instant::now();
                if let [high, low, _, flags, ..] = buffer
                    && length > 12
                    && flags & CODE == 0
                {
                    heard.push((number, u16::from_be_bytes([high, low]), at));
                }
            }
        }
    }
    Ok(heard)
}

/// What was asked last under an id before its answer came is what it answers.
fn matched(sockets: usize, sent: &[(usize, Instant)], heard: &[Heard]) -> Vec<Option<Duration>> {
    let mut own: Vec<Vec<usize>> = vec![Vec::new(); sockets];
    for (number, (socket, _)) in sent.iter().enumerate() {
        own.get_mut(*socket).into_iter().for_each(|own| own.push(number));
    }
    let mut times = vec![None; sent.len()];
    for (socket, id, at) in heard {
        let asked =
            own.get(*socket).into_iter().flat_map(|own| own.iter().skip(usize::from(*id)).step_by(IDS));
        let mut before =
            asked.filter_map(|number| Some((*number, at.checked_duration_since(sent.get(*number)?.1)?)));
        if let Some((number, time)) = before.next_back()
            && let Some(slot) = times.get_mut(number)
        {
            *slot = Some(time);
        }
    }
    times
}

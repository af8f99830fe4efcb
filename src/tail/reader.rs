//! The thread that reads: from a source, through the grammar, to whoever takes records. Everything that waits, waits
//! here; a taker that is slow makes it slow, and the log keeps what was not read.
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use super::file::Follower;
use super::journal::Journal;
use super::journal::export::Export;
use super::line::{Grammar, Unread};
use super::saved::Place;
use super::source::{Listener, Look, Loss, Position, SourceError, Told};
use super::stamp::Clock;
use super::telemetry::{Outcome, Telemetry};
use super::wake::Wake;
use crate::drops::record::Record;

/// A request to stop is noticed within this.
const SHORT: Duration = Duration::from_millis(200);
/// How often a failure that lasts is told again.
const REMIND: Duration = Duration::from_secs(60);

/// Where lines come from.
pub enum Source {
    /// A log file.
    File(Follower),
    /// Journal files.
    Journal(Journal),
    /// A stream in the journal's export format.
    Export(Box<dyn Read + Send>),
}

/// How records are made of lines, and when.
#[derive(Debug, Clone)]
pub struct Habits {
    /// What tells of a drop.
    pub grammar: Grammar,
    /// The zone of stamps without one.
    pub zone: TimeZone,
    /// What is older does not count.
    pub expiry: SignedDuration,
    /// How often it is looked where changes are not told.
    pub pause: Duration,
    /// Does it end where there is no more for now?
    pub until: Until,
}

/// When reading ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When the program does.
    Stopped,
    /// With what is there.
    Read,
}

/// Reads until it is stopped.
pub struct Reader {
    /// Where from.
    pub source: Source,
    /// How.
    pub habits: Habits,
    /// Where the position is kept; none where it is not.
    pub place: Option<Place>,
    /// Who takes records.
    pub taker: mpsc::Sender<Record>,
    /// What is counted.
    pub telemetry: Arc<Telemetry>,
    /// Says when to stop.
    pub stop: Arc<AtomicBool>,
}

impl Reader {
    /// Reads to the end.
    pub fn run(mut self) {
        if let Source::Export(stream) = &mut self.source {
            let mut hearing = Hearing::new(&self.habits, &self.taker, &self.telemetry, &self.stop);
            export(stream, &mut |told| hearing.hear(told), &self.stop);
            return;
        }
        let mut wake = Wake::new();
        let (mut looked, mut failing) = (Instant::now(), Failing::default());
        loop {
            self.telemetry.turn();
            let look = self.look(&mut failing);
            self.keep(&mut failing);
            if self.is_over() || (look == Look::Whole && self.habits.until == Until::Read) {
                return;
            }
            if look == Look::Part {
                continue;
            }
            wake.watch(self.folders());
            let mut news = false;
            while !news && !self.is_over() && looked.elapsed() < self.habits.pause {
                news = wake.wait(SHORT.min(self.habits.pause));
                self.telemetry.turn();
            }
            looked = Instant::now();
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.taker.is_closed()
    }

    fn look(&mut self, failing: &mut Failing) -> Look {
        let mut hearing = Hearing::new(&self.habits, &self.taker, &self.telemetry, &self.stop);
        let mut listener = |told: Told<'_>| hearing.hear(told);
        let looked = match &mut self.source {
            Source::File(file) => file.look(Instant::now(), &mut listener),
            Source::Journal(journal) => journal.look(&mut listener),
            Source::Export(_) => Ok(Look::Whole),
        };
        let (losses, stands) = match &mut self.source {
            Source::File(file) => (file.losses(), file.stands()),
            Source::Journal(journal) => (journal.losses(), journal.stands()),
            Source::Export(_) => (Vec::new(), true),
        };
        self.telemetry.lose(&losses);
        if losses.contains(&Loss::RotatedAway) {
            tracing::warn!("the log was rotated away before its end was read: some lines were not");
        }
        self.telemetry.stands(stands && looked.is_ok());
        looked.unwrap_or_else(|error| {
            failing.tell(&error);
            Look::Whole
        })
    }

    fn keep(&mut self, failing: &mut Failing) {
        let position = match &self.source {
            Source::File(file) => Position { files: file.marks(), ..Position::default() },
            Source::Journal(journal) => Position { journals: journal.position(), ..Position::default() },
            Source::Export(_) => return,
        };
        if let Some(place) = &mut self.place
            && let Err(source) = place.keep(position)
        {
            let path = place.folder().to_owned();
            failing.tell(&SourceError { doing: "keeping the position in", path, source });
        }
    }

    fn folders(&self) -> Vec<PathBuf> {
        let of = |path: &Path| path.parent().map(Path::to_owned);
        match &self.source {
            // The name may be a link to a file elsewhere.
            Source::File(file) => {
                let real = file.path().canonicalize().ok();
                of(file.path()).into_iter().chain(real.and_then(|real| of(&real))).collect()
            }
            Source::Journal(journal) => journal.folders(),
            Source::Export(_) => Vec::new(),
        }
    }
}

/// Tells a failure that lasts now and then.
#[derive(Debug, Default)]
struct Failing(Option<(String, Instant)>);

impl Failing {
    fn tell(&mut self, error: &SourceError) {
        let words = format!("{error}: {}", error.source);
        let known = |(told, at): &(String, Instant)| *told == words && at.elapsed() < REMIND;
        if !self.0.as_ref().is_some_and(known) {
            tracing::warn!("{words}; trying again");
            self.0 = Some((words, Instant::now()));
        }
    }
}

fn export(stream: &mut dyn Read, listener: &mut Listener<'_>, stop: &AtomicBool) {
    let (mut export, mut chunk) = (Export::default(), vec![0; 64 * 1024]);
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => export.take(chunk.get(..length).unwrap_or_default(), listener),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, "the stream ended");
                break;
            }
        }
    }
    export.finish(listener);
}

/// Turns what is said into records and hands them on.
struct Hearing<'a> {
    habits: &'a Habits,
    taker: &'a mpsc::Sender<Record>,
    telemetry: &'a Telemetry,
    stop: &'a AtomicBool,
    booted: Option<Timestamp>,
}

impl<'a> Hearing<'a> {
    fn new(
        habits: &'a Habits,
        taker: &'a mpsc::Sender<Record>,
        telemetry: &'a Telemetry,
        stop: &'a AtomicBool,
    ) -> Self {
        Self { habits, taker, telemetry, stop, booted: booted() }
    }

    fn hear(&mut self, told: Told<'_>) {
        let now = Timestamp::now();
        let grammar = &self.habits.grammar;
        let read = match told {
            Told::Message(message, at) => grammar.message(message, at),
            Told::Line(line) => {
                let clock = Clock { now, booted: self.booted, zone: self.habits.zone.clone() };
                grammar.line(line, &clock)
            }
        };
        match read {
            Ok(record) if now.duration_since(record.at) > self.habits.expiry => {
                self.telemetry.expire(&record, now);
            }
            Ok(record) => self.hand_on(record),
            Err(Unread::NoPacket) => {}
            Err(unread) => self.telemetry.read(unread.into()),
        }
    }

    /// Waits for the taker, but not for one who takes nothing while we are to stop.
    fn hand_on(&self, record: Record) {
        self.telemetry.read(Outcome::Drop);
        let mut waiting = record;
        loop {
            match self.taker.try_send(waiting) {
                Err(mpsc::error::TrySendError::Full(back)) if !self.stop.load(Ordering::Relaxed) => {
                    waiting = back;
                    self.telemetry.turn();
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(()) | Err(_) => return,
            }
        }
    }
}

/// When the node started, by the clock its kernel stamps lines with: it stands still while the node sleeps.
fn booted() -> Option<Timestamp> {
    let up = clock_gettime(ClockId::Monotonic);
    let up = SignedDuration::new(up.tv_sec, i32::try_from(up.tv_nsec).ok()?);
    Timestamp::now().checked_sub(up).ok()
}

//! When a log line says it was written, in whichever of the usual forms.
//!
//! Pure: what a line leaves out (the year, the zone, when the node started) comes from a [`Clock`]. Known are
//! RFC 3164 and RFC 3339 with their everyday variants, the kernel's uptime, `dmesg -T`, seconds since 1970, and what
//! `journalctl -o short*` prints. For everything else there is a layout as Go writes it.
mod calendar;
mod cursor;
pub mod layout;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use calendar::Date;
use cursor::Cursor;
use layout::Layout;

/// What lines leave unsaid.
#[derive(Debug, Clone)]
pub struct Clock {
    /// Now.
    pub now: Timestamp,
    /// When the node started, for stamps that count from there.
    pub booted: Option<Timestamp>,
    /// Where stamps without a zone were written.
    pub zone: TimeZone,
}

/// How a line was stamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// By a log daemon, which names the host next.
    Daemon(Timestamp),
    /// By the kernel, in brackets; what it said follows at once.
    Kernel(Timestamp),
}

impl Stamp {
    /// The moment.
    pub const fn at(self) -> Timestamp {
        match self {
            Self::Daemon(at) | Self::Kernel(at) => at,
        }
    }
}

/// Reads the stamp a line begins with; answers it with what follows.
pub fn read<'a>(line: &'a str, layout: Option<&Layout>, clock: &Clock) -> Option<(Stamp, &'a str)> {
    let line = line.trim_start();
    if let Some((at, rest)) = layout.and_then(|layout| layout.read(line, clock)) {
        return Some((Stamp::Daemon(at), rest));
    }
    let line = without_priority(line);
    let cursor = Cursor::new(line);
    if let Some((at, rest)) = bracketed(cursor, clock) {
        return Some((Stamp::Kernel(at), rest));
    }
    let (at, rest) = [numeric, seconds, named].into_iter().find_map(|form| form(cursor, clock))?;
    Some((Stamp::Daemon(at), rest))
}

/// An offset from UTC: +02:00, +0200, +02, Z.
pub fn offset(text: &str) -> Option<TimeZone> {
    let mut cursor = Cursor::new(text);
    cursor.zone().filter(|_| cursor.rest().is_empty())
}

/// `[12345.678901]` at the beginning, as the kernel and what copies it write; answers what follows.
pub fn skip_uptime(text: &str) -> &str {
    let mut cursor = Cursor::new(text.trim_start());
    match uptime(&mut cursor) {
        Some(_) => cursor.rest(),
        None => text,
    }
}

/// `<4>` of the syslog protocol, its version behind it (RFC 5424), `kern  :warn  : ` of `dmesg -x`.
fn without_priority(line: &str) -> &str {
    let mut cursor = Cursor::new(line);
    if cursor.eat('<') && cursor.number(1..=3).is_some() && cursor.eat('>') {
        let rest = cursor.rest();
        return rest.strip_prefix("1 ").unwrap_or(rest);
    }
    match line.split_once(": [") {
        Some((level, _)) if level.starts_with("kern") && level.len() <= 16 && level.contains(':') => {
            line.get(level.len() + 2..).unwrap_or(line)
        }
        _ => line,
    }
}

fn bracketed<'a>(mut cursor: Cursor<'a>, clock: &Clock) -> Option<(Timestamp, &'a str)> {
    let mut counted = cursor;
    if let Some(since) = uptime(&mut counted) {
        return Some((clock.booted?.checked_add(since).ok()?, counted.rest()));
    }
    // dmesg -T: [Thu Nov 20 12:00:00 2026]
    if !cursor.eat('[') {
        return None;
    }
    let (at, rest) = named(cursor, clock)?;
    Some((at, rest.strip_prefix(']')?))
}

fn uptime(cursor: &mut Cursor<'_>) -> Option<SignedDuration> {
    let mut ahead = *cursor;
    if !ahead.eat('[') {
        return None;
    }
    ahead.spaces();
    let seconds = ahead.number(1..=12)?;
    if !ahead.eat('.') {
        return None;
    }
    let nanoseconds = ahead.fraction()?;
    if !ahead.eat(']') {
        return None;
    }
    *cursor = ahead;
    Some(SignedDuration::new(i64::try_from(seconds).ok()?, nanoseconds))
}

/// 2026-11-20T12:00:00.123456+01:00 and its kin: a space for the T, a comma for the point, no fraction, no zone.
fn numeric<'a>(mut cursor: Cursor<'a>, clock: &Clock) -> Option<(Timestamp, &'a str)> {
    let year = cursor.number(4..=4)?;
    let separator = cursor.any(&['-', '/'])?;
    let month = cursor.number(2..=2)?;
    cursor.expect(separator)?;
    let day = cursor.number(2..=2)?;
    cursor.any(&['T', 't', ' '])?;
    let mut date = Date { year: i16::try_from(year).ok(), ..Date::of(month, day)? };
    cursor.time_of_day(&mut date)?;
    let mut spaced = cursor;
    spaced.spaces();
    let zone = match cursor.zone() {
        Some(zone) => Some(zone),
        // 12:00:00 +0100 and 12:00:00 CET; a host's name is not in capitals only.
        None => spaced.zone().or_else(|| spaced.abbreviation()).inspect(|_| cursor = spaced),
    };
    cursor.boundary()?;
    Some((date.at(zone, clock)?, cursor.rest()))
}

/// 1700000000.123456, as `journalctl -o short-unix` has it.
fn seconds<'a>(mut cursor: Cursor<'a>, _: &Clock) -> Option<(Timestamp, &'a str)> {
    let seconds = cursor.number(9..=11)?;
    let nanoseconds = if cursor.eat('.') { cursor.fraction()? } else { 0 };
    cursor.boundary()?;
    Some((Timestamp::new(i64::try_from(seconds).ok()?, nanoseconds).ok()?, cursor.rest()))
}

/// `Sep  3 11:38:30`, with a weekday before it, a year before or behind the time, a fraction; and the weekday before
/// a numeric date, as `journalctl -o short-full` has it.
fn named<'a>(mut cursor: Cursor<'a>, clock: &Clock) -> Option<(Timestamp, &'a str)> {
    if cursor.weekday() {
        cursor.eat(',');
        cursor.expect(' ')?;
        if let Some(found) = numeric(cursor, clock) {
            return Some(found);
        }
    }
    let month = cursor.month()?;
    cursor.expect(' ')?;
    cursor.spaces();
    let day = cursor.number(1..=2)?;
    cursor.expect(' ')?;
    let mut date = Date::of(month, day)?;
    let mut ahead = cursor;
    if let (Some(year), true) = (ahead.number(4..=4), ahead.eat(' ')) {
        date.year = i16::try_from(year).ok();
        cursor = ahead;
    }
    cursor.time_of_day(&mut date)?;
    let zone = cursor.zone();
    let mut ahead = cursor;
    if date.year.is_none() && ahead.eat(' ') {
        // A host may be called 2026, so a year must be near.
        let year = ahead.number(4..=4).and_then(|year| i16::try_from(year).ok());
        let near = year.filter(|year| calendar::is_near(*year, clock) && ahead.boundary().is_some());
        if near.is_some() {
            date.year = near;
            cursor = ahead;
        }
    }
    cursor.boundary()?;
    Some((date.at(zone, clock)?, cursor.rest()))
}

#[cfg(test)]
mod tests;

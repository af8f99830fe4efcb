//! Layouts of time as Go writes them: an example of the moment 2006-01-02 15:04:05 -0700.
//!
//! kube-iptables-tailer takes one (`PACKET_DROP_LOG_TIME_LAYOUT`), so they are understood here, from the package
//! `time` of Go: parts it knows stand for a number or a name, all else stands for itself. Here a layout may have
//! spaces.
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Clock;
use super::calendar::Date;
use super::cursor::Cursor;

/// A layout, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    parts: Vec<Part>,
}

/// Why a text is no layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no time of day: a layout is written as the moment 2006-01-02T15:04:05-07:00, as in Go")]
pub struct NoLayout(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Year,
    ShortYear,
    Month,
    MonthName,
    Day,
    Hour,
    HalfDayHour,
    HalfDay,
    Minute,
    Second,
    Fraction,
    Weekday,
    Zone,
    ZoneName,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Piece(Piece),
    /// Itself.
    Text(char),
}

/// Longer ones before those they begin with.
const PIECES: [(&str, Piece); 30] = [
    ("January", Piece::MonthName),
    ("Jan", Piece::MonthName),
    ("Monday", Piece::Weekday),
    ("Mon", Piece::Weekday),
    ("MST", Piece::ZoneName),
    ("2006", Piece::Year),
    ("-07:00:00", Piece::Zone),
    ("-07:00", Piece::Zone),
    ("-070000", Piece::Zone),
    ("-0700", Piece::Zone),
    ("-07", Piece::Zone),
    ("Z07:00", Piece::Zone),
    ("Z0700", Piece::Zone),
    ("Z07", Piece::Zone),
    ("01", Piece::Month),
    ("02", Piece::Day),
    ("03", Piece::HalfDayHour),
    ("04", Piece::Minute),
    ("05", Piece::Second),
    ("06", Piece::ShortYear),
    ("15", Piece::Hour),
    ("PM", Piece::HalfDay),
    ("pm", Piece::HalfDay),
    ("_2", Piece::Day),
    ("1", Piece::Month),
    ("2", Piece::Day),
    ("3", Piece::HalfDayHour),
    ("4", Piece::Minute),
    ("5", Piece::Second),
    ("__2", Piece::Day),
];

impl std::str::FromStr for Layout {
    type Err = NoLayout;

    fn from_str(text: &str) -> Result<Self, NoLayout> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (part, length) = part(rest, parts.last()).unwrap_or((Part::Text(first), first.len_utf8()));
            parts.push(part);
            rest = rest.get(length..).unwrap_or_default();
        }
        let has = |piece| parts.contains(&Part::Piece(piece));
        if has(Piece::Minute) && (has(Piece::Hour) || has(Piece::HalfDayHour)) && has(Piece::Day) {
            Ok(Self { parts })
        } else {
            Err(NoLayout(text.to_owned()))
        }
    }
}

fn part(rest: &str, before: Option<&Part>) -> Option<(Part, usize)> {
    let digits = rest.get(1..).map_or(0, |rest| rest.len() - rest.trim_start_matches(['0', '9']).len());
    if before == Some(&Part::Piece(Piece::Second)) && rest.starts_with(['.', ',']) && digits > 0 {
        return Some((Part::Piece(Piece::Fraction), 1 + digits));
    }
    let found = PIECES.iter().find(|(text, _)| rest.starts_with(text));
    found.map(|(text, piece)| (Part::Piece(*piece), text.len()))
}

/// What was read so far.
struct Moment {
    date: Date,
    zone: Option<TimeZone>,
    afternoon: Option<bool>,
}

impl Layout {
    /// Reads a text that begins like this; answers what follows.
    pub fn read<'a>(&self, text: &'a str, clock: &Clock) -> Option<(Timestamp, &'a str)> {
        let mut cursor = Cursor::new(text);
        let mut moment = Moment { date: Date::of(1, 1)?, zone: None, afternoon: None };
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                // Go reads any run of spaces where the layout has one.
                Part::Text(' ') => cursor.spaces(),
                Part::Text(text) => cursor.expect(*text)?,
                Part::Piece(piece) => moment.read(*piece, &mut cursor)?,
            }
            // Go takes a fraction behind the seconds although the layout has none.
            if part == &Part::Piece(Piece::Second) && parts.peek() != Some(&&Part::Piece(Piece::Fraction)) {
                moment.fraction(&mut cursor);
            }
        }
        cursor.boundary()?;
        if let Some(afternoon) = moment.afternoon {
            moment.date.hour = moment.date.hour % 12 + if afternoon { 12 } else { 0 };
        }
        Some((moment.date.at(moment.zone, clock)?, cursor.rest()))
    }
}

impl Moment {
    fn read(&mut self, piece: Piece, cursor: &mut Cursor<'_>) -> Option<()> {
        let date = &mut self.date;
        match piece {
            Piece::Year => date.year = Some(i16::try_from(cursor.digits(4)?).ok()?),
            Piece::ShortYear => {
                let year = i16::try_from(cursor.digits(2)?).ok()?;
                date.year = Some(if year >= 69 { 1900 + year } else { 2000 + year });
            }
            Piece::MonthName => {
                date.month = i8::try_from(cursor.month()?).ok()?;
                // The rest of a name that is written out.
                cursor.letters();
            }
            Piece::Month => date.month = small(cursor)?,
            Piece::Day => {
                cursor.spaces();
                date.day = small(cursor)?;
            }
            Piece::Hour | Piece::HalfDayHour => date.hour = small(cursor)?,
            Piece::Minute => date.minute = small(cursor)?,
            Piece::Second => date.second = small(cursor)?,
            Piece::Fraction => self.fraction(cursor),
            Piece::HalfDay => {
                let word = cursor.letters()?;
                let afternoon = word.eq_ignore_ascii_case("pm");
                self.afternoon = (afternoon || word.eq_ignore_ascii_case("am")).then_some(afternoon);
                self.afternoon?;
            }
            Piece::Weekday => drop(cursor.letters()?),
            Piece::Zone => self.zone = Some(cursor.zone()?),
            Piece::ZoneName => {
                self.zone = cursor.abbreviation();
                if self.zone.is_none() {
                    cursor.letters()?;
                }
            }
        }
        Some(())
    }

    fn fraction(&mut self, cursor: &mut Cursor<'_>) {
        let mut ahead = *cursor;
        if ahead.any(&['.', ',']).is_some()
            && let Some(nanosecond) = ahead.fraction()
        {
            self.date.nanosecond = nanosecond;
            *cursor = ahead;
        }
    }
}

/// One or two digits.
fn small(cursor: &mut Cursor<'_>) -> Option<i8> {
    let number = cursor.digits(2).or_else(|| cursor.digits(1))?;
    i8::try_from(number).ok()
}

//! Reading the pieces of a stamp from left to right. Owns the place in the text; a piece that is not there leaves it
//! where it was, unless it says so.
use std::ops::RangeInclusive;

use jiff::tz::{Offset, TimeZone};

use super::calendar::Date;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A place in a text. Copies are how to look ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    pub(super) const fn rest(self) -> &'a str {
        self.rest
    }

    pub(super) fn eat(&mut self, wanted: char) -> bool {
        let found = self.rest.strip_prefix(wanted);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    pub(super) fn expect(&mut self, wanted: char) -> Option<()> {
        self.eat(wanted).then_some(())
    }

    pub(super) fn text(&mut self, wanted: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }

    pub(super) fn any(&mut self, wanted: &[char]) -> Option<char> {
        wanted.iter().copied().find(|wanted| self.eat(*wanted))
    }

    pub(super) fn spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    /// As many digits as there are, if that many are allowed; never part of a longer number.
    pub(super) fn number(&mut self, length: RangeInclusive<usize>) -> Option<u64> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        if !length.contains(&end) {
            return None;
        }
        self.take(end)?.parse().ok()
    }

    /// That many digits and not one more, whatever follows.
    pub(super) fn digits(&mut self, length: usize) -> Option<u64> {
        let digits = self.rest.get(..length)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        self.take(length)?.parse().ok()
    }

    /// The digits behind a decimal point, as nanoseconds.
    pub(super) fn fraction(&mut self) -> Option<i32> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        if end == 0 {
            return None;
        }
        let digits = self.take(end)?;
        let digits = digits.get(..9).unwrap_or(digits);
        format!("{digits:0<9}").parse().ok()
    }

    /// 12:00:00, perhaps with a fraction behind a point or a comma.
    pub(super) fn time_of_day(&mut self, date: &mut Date) -> Option<()> {
        let mut part = || self.number(1..=2).and_then(|part| i8::try_from(part).ok());
        date.hour = part()?;
        self.expect(':')?;
        let mut part = || self.number(1..=2).and_then(|part| i8::try_from(part).ok());
        date.minute = part()?;
        self.expect(':')?;
        date.second = self.number(1..=2).and_then(|part| i8::try_from(part).ok())?;
        let mut ahead = *self;
        if ahead.any(&['.', ',']).is_some()
            && let Some(nanosecond) = ahead.fraction()
        {
            date.nanosecond = nanosecond;
            *self = ahead;
        }
        Some(())
    }

    /// Z, +01:00, +0100 or +01.
    pub(super) fn zone(&mut self) -> Option<TimeZone> {
        if self.eat('Z') || self.eat('z') {
            return Some(TimeZone::UTC);
        }
        let mut ahead = *self;
        let sign = match ahead.any(&['+', '-'])? {
            '-' => -1,
            _ => 1,
        };
        let hours = ahead.digits(2)?;
        let colon = ahead.eat(':');
        let minutes = match ahead.digits(2) {
            Some(minutes) => minutes,
            None if colon => return None,
            None => 0,
        };
        let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
        let zone = Offset::from_seconds(sign * seconds).ok()?.to_time_zone();
        *self = ahead;
        Some(zone)
    }

    /// UTC or GMT. Other abbreviations mean several zones, and are left to the zone of the node.
    pub(super) fn abbreviation(&mut self) -> Option<TimeZone> {
        let mut ahead = *self;
        let zone = ["UTC", "GMT"].iter().find_map(|name| ahead.text(name));
        (zone.is_some() && ahead.boundary().is_some()).then(|| *self = ahead)?;
        Some(TimeZone::UTC)
    }

    /// Does a word end here?
    pub(super) fn boundary(&self) -> Option<()> {
        let next = self.rest.chars().next();
        next.is_none_or(|next| next.is_whitespace() || matches!(next, ']' | ':' | ',')).then_some(())
    }

    /// The abbreviation of a month, by its number.
    pub(super) fn month(&mut self) -> Option<u64> {
        let found = self.name(&MONTHS)?;
        u64::try_from(found + 1).ok()
    }

    /// The abbreviation of a day of the week.
    pub(super) fn weekday(&mut self) -> bool {
        self.name(&DAYS).is_some()
    }

    /// Letters to the end of the word.
    pub(super) fn letters(&mut self) -> Option<&'a str> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(self.rest.len());
        if end == 0 { None } else { self.take(end) }
    }

    fn name(&mut self, names: &[&str]) -> Option<usize> {
        let word = self.rest.get(..3)?;
        let found = names.iter().position(|name| name.eq_ignore_ascii_case(word))?;
        self.take(3)?;
        Some(found)
    }

    fn take(&mut self, length: usize) -> Option<&'a str> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

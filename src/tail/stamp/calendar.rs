//! From the parts of a date to a moment: the year that was left out, the zone that was left out, leap seconds.
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Clock;

/// A year-less date lies in the past, but for clocks that run differently.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);
/// The 29th of February comes again after eight years at the latest.
const LOOK_BACK: i16 = 8;

/// A date on a wall, with what may be missing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Date {
    pub(super) year: Option<i16>,
    pub(super) month: i8,
    pub(super) day: i8,
    pub(super) hour: i8,
    pub(super) minute: i8,
    pub(super) second: i8,
    pub(super) nanosecond: i32,
}

impl Date {
    pub(super) fn of(month: u64, day: u64) -> Option<Self> {
        let (month, day) = (i8::try_from(month).ok()?, i8::try_from(day).ok()?);
        Some(Self { year: None, month, day, hour: 0, minute: 0, second: 0, nanosecond: 0 })
    }

    /// The moment it names.
    pub(super) fn at(self, zone: Option<TimeZone>, clock: &Clock) -> Option<Timestamp> {
        let zone = zone.unwrap_or_else(|| clock.zone.clone());
        if let Some(year) = self.year {
            return self.in_year(year, &zone);
        }
        let latest = clock.now.checked_add(AHEAD).ok()?;
        let this = latest.to_zoned(zone.clone()).year();
        let mut years = (0..=LOOK_BACK).map(|back| this - back);
        years.find_map(|year| self.in_year(year, &zone).filter(|at| *at <= latest))
    }

    fn in_year(self, year: i16, zone: &TimeZone) -> Option<Timestamp> {
        // A leap second is read as the one before it, as clocks do.
        let second = self.second.min(if self.second == 60 { 59 } else { i8::MAX });
        let wall = DateTime::new(year, self.month, self.day, self.hour, self.minute, second, self.nanosecond)
            .ok()?;
        zone.to_ambiguous_timestamp(wall).compatible().ok()
    }
}

/// Could somebody mean this year just now?
pub(super) fn is_near(year: i16, clock: &Clock) -> bool {
    let this = clock.now.to_zoned(TimeZone::UTC).year();
    (this - LOOK_BACK..=this + 1).contains(&year)
}

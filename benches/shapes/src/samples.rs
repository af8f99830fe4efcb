//! Times of one thing done many times. Medians, because a scheduler's rare long pause says nothing of the code.
use std::time::{Duration, Instant};

/// Measured times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Takes one in.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Half are faster; `None` without any.
    pub fn median(&self) -> Option<Duration> {
        self.quantile(50)
    }

    /// So many percent are faster, or as fast.
    pub fn quantile(&self, percent: usize) -> Option<Duration> {
        self.per_mille(percent * 10)
    }

    /// So many of a thousand are faster, or as fast.
    pub fn per_mille(&self, part: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get((sorted.len() * part / 1000).min(sorted.len().saturating_sub(1))).copied()
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        Self(times.into_iter().collect())
    }
}

/// How long to repeat something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Stop after this time,
    pub time: Duration,
    /// but not before so many,
    pub least: usize,
    /// and not after more.
    pub most: usize,
}

impl Budget {
    /// Is one more due?
    pub fn goes_on(&self, done: usize, since: Instant) -> bool {
        done < self.least || (done < self.most && since.elapsed() < self.time)
    }
}

/// A time as people read it: three digits, in the unit that suits.
pub fn readable(time: Duration) -> String {
    let nanoseconds = time.as_nanos();
    let (value, unit) = match nanoseconds {
        0..1_000 => (nanoseconds as f64, "ns"),
        1_000..1_000_000 => (nanoseconds as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanoseconds as f64 / 1e6, "ms"),
        _ => (nanoseconds as f64 / 1e9, "s"),
    };
    match value {
        0.0..10.0 => format!("{value:.2} {unit}"),
        10.0..100.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let samples: Samples = [3, 1, 2].map(Duration::from_millis).into_iter().collect();
        assert_eq!(samples.median(), Some(Duration::from_millis(2)));
        assert_eq!(Samples::default().median(), None);
    }

    #[test]
    fn times_are_written_with_three_digits() {
        let written = [850, 12_345, 3_210_000, 1_500_000_000].map(|ns| readable(Duration::from_nanos(ns)));
        assert_eq!(written, ["850 ns", "12.3 µs", "3.21 ms", "1.50 s"]);
    }
}

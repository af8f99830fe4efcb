//! When the next report is due. Pure.
//!
//! The bounds of what a fleet costs its API server (decision B4): a node writes at most every five seconds, and the
//! more nodes there are the slower each gets, so that all together stay below `PER_SECOND` writes, or a tenth of
//! that for news nobody waits for. Within its time each node picks a moment of its own: thousands that hear of one ban
//! at once do not answer at once.
use std::time::Duration;

use tokio::time::Instant;

/// No node writes more often.
const LEAST_GAP: Duration = Duration::from_secs(5);
/// Nor more often than this when nobody waits.
const IDLE_GAP: Duration = Duration::from_secs(60);
/// Writes a second of the whole fleet. The kubelets' leases alone are half a write a second for every five nodes.
const PER_SECOND: f64 = 200.0;

/// How a report differs from the one that was written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// In nothing.
    None,
    /// In what nobody waits for: hits, words, versions of statuses.
    Idle,
    /// In what is in force.
    Pressing,
}

/// What is remembered between two reports.
#[derive(Debug, Clone, Copy, Default)]
pub struct Due {
    last: Option<Instant>,
    /// Since when there is something to tell, and when it is to be told.
    chosen: Option<(Difference, Instant)>,
}

impl Due {
    /// When a report is to be written that differs like this; `chance` is between 0 and 1.
    pub fn at(&mut self, difference: Difference, nodes: usize, now: Instant, chance: f64) -> Option<Instant> {
        if self.chosen.is_some_and(|(before, _)| before >= difference) && difference != Difference::None {
            return self.chosen.map(|(_, at)| at);
        }
        let spread = Duration::from_secs_f64(nodes as f64 / PER_SECOND);
        let (gap, spread) = match difference {
            Difference::None => {
                self.chosen = None;
                return None;
            }
            Difference::Pressing => (LEAST_GAP.max(spread), spread),
            Difference::Idle => (IDLE_GAP.max(spread * 10), IDLE_GAP.max(spread * 10)),
        };
        let free = self.last.map_or(now, |last| (last + gap).max(now));
        let at = free + spread.mul_f64(chance);
        self.chosen = Some((difference, at));
        Some(at)
    }

    /// A report was written, or tried to be.
    pub fn written(&mut self, now: Instant) {
        *self = Self { last: Some(now), chosen: None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn after_silence_a_small_cluster_hears_at_once_and_a_large_one_spread_out() {
        let now = Instant::now();
        let at = |nodes, chance| Due::default().at(Difference::Pressing, nodes, now, chance);
        assert_eq!(at(3, 0.0), Some(now));
        assert_eq!(at(3, 1.0), Some(now + Duration::from_millis(15)));
        assert_eq!(at(5_000, 1.0), Some(now + SECOND * 25));
    }

    #[test]
    fn two_reports_are_five_seconds_apart_and_idle_ones_a_minute() {
        let now = Instant::now();
        let mut due = Due::default();
        due.written(now);
        assert_eq!(due.at(Difference::Idle, 0, now + SECOND, 0.0), Some(now + SECOND * 60));
        // Somebody waits now: it goes out earlier, and no later news puts it off.
        assert_eq!(due.at(Difference::Pressing, 0, now + SECOND * 2, 0.0), Some(now + SECOND * 5));
        assert_eq!(due.at(Difference::Idle, 0, now + SECOND * 3, 1.0), Some(now + SECOND * 5));
        assert_eq!(due.at(Difference::None, 0, now + SECOND * 3, 0.0), None);
        let mut large = Due::default();
        large.written(now);
        assert_eq!(large.at(Difference::Pressing, 5_000, now, 0.0), Some(now + SECOND * 25));
    }

    #[test]
    fn a_fleet_that_hears_of_one_ban_after_another_stays_below_its_rate() {
        const NODES: usize = 1_000;
        let start = Instant::now();
        let mut fleet = vec![Due::default(); NODES];
        let mut writes = 0;
        for second in 0..60_u32 {
            let now = start + SECOND * second;
            for (number, due) in fleet.iter_mut().enumerate() {
                let chance = (number * 7919 % NODES) as f64 / NODES as f64;
                if due.at(Difference::Pressing, NODES, now, chance).is_some_and(|at| at <= now) {
                    due.written(now);
                    writes += 1;
                }
            }
        }
        assert!((3_000..=60 * 200).contains(&writes), "{writes}");
    }
}

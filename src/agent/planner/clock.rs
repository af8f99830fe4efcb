//! The time of day, by which bans end.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use podwall_ruleset::Deadline;

/// The longest wait at once: the time of day may be set while one waits.
const LONGEST: Duration = Duration::from_secs(60);

/// The host's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock;

impl Clock {
    /// Now.
    pub(super) fn now(self) -> Deadline {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Deadline(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// How long to wait until then, or until the clock is worth another look.
    pub(super) fn until(self, end: Deadline) -> Duration {
        Duration::from_millis(end.0.saturating_sub(self.now().0)).min(LONGEST)
    }
}

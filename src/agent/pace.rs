//! At most ten commits a second in the long run, and none late when there was silence before (decision S2).
use std::time::Duration;

use tokio::time::Instant;

/// One commit every so often. Each commit of any program makes the kernel walk every other listener of nf_tables.
const INTERVAL: Duration = Duration::from_millis(100);

/// A token bucket that holds one token.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    next: Option<Instant>,
}

impl Pace {
    /// May a commit go out now?
    pub fn allows(self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// A commit goes out now.
    pub fn spend(&mut self, now: Instant) {
        self.next = Some(now + INTERVAL);
    }

    /// When the next may.
    pub const fn next(self) -> Option<Instant> {
        self.next
    }
}

//! Pods that wait for what they are about to learn: who is told, and how many commits there are for them.
//!
//! Each commit of any program ends what others are just reading of nf_tables, and they begin anew. So these commits have
//! a budget of their own beside the ten a second of everything else (decision Q3): a few at once, as a pod that starts
//! resolves its names, and one a millisecond in the long run, which then serves all who came meanwhile.
use std::net::IpAddr;
use std::time::{Duration, Instant};

use podwall_engine::model::ListId;
use podwall_ruleset::{Deadline, Key, Ruleset, Value};
use tokio::sync::oneshot;

/// Between two of them in the long run.
const STEP: Duration = Duration::from_millis(1);
/// How many may come at once after a silence.
const AT_ONCE: u32 = 100;

/// The budget.
#[derive(Debug)]
pub(super) struct Quota {
    /// When all that was spent is earned again.
    even: Instant,
}

impl Quota {
    /// Nothing was spent yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self { even: now }
    }

    /// One was made; answers how long the next has to wait.
    pub(super) fn spend(&mut self, now: Instant) -> Duration {
        self.even = self.even.max(now) + STEP;
        self.even.saturating_duration_since(now + STEP * AT_ONCE)
    }
}

/// The kernel holds what they are about to learn; some may have given up.
pub(super) fn tell_all(pupils: Vec<oneshot::Sender<()>>) {
    for pupil in pupils {
        let _ = pupil.send(());
    }
}

/// By which names, which pod, what, and until when.
pub(super) type Learned = (ListId, IpAddr, IpAddr, Deadline);

/// What pods learned, as the kernel holds it: it is the only one who remembers it for us.
pub(super) fn learned(ruleset: &Ruleset) -> Vec<Learned> {
    let sets = ruleset.sets.iter().filter_map(|(name, set)| Some((ListId::of_set(name)?, set)));
    let elements = sets.flat_map(|(list, set)| set.iter().map(move |element| (list.clone(), element)));
    elements
        .filter_map(|(list, (key, value))| match (key, value) {
            (Key::Pair(pod, address), Value::Until(ends)) => Some((list, *pod, *address, ends)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_may_come_at_once_and_then_one_a_step() {
        let begun = Instant::now();
        let mut quota = Quota::new(begun);
        let first: Vec<Duration> = (0..AT_ONCE).map(|_| quota.spend(begun)).collect();
        assert_eq!(first, vec![Duration::ZERO; 100]);
        assert_eq!([quota.spend(begun), quota.spend(begun)], [STEP, 2 * STEP]);
        // After a silence as before, and no more than that.
        let later = begun + Duration::from_secs(60);
        let then: Vec<Duration> = (0..=AT_ONCE).map(|_| quota.spend(later)).collect();
        assert_eq!(then.iter().sum::<Duration>(), STEP);
    }
}

//! The thread that hears what other programs write into our rules.
use std::time::Duration;

use podwall_ruleset::BackendError;

use super::apply::StartListening;
use super::backend::{Alarm, Ears};
use super::threads::thread;
use super::work::{Work, Works};

/// What starts a thread that hears of other writers. It is asked when a table turns out not to be owned, which may be
/// long after the start: somebody else may have made one of our name before we did.
pub(super) fn start_listening(ears: Ears, works: &Works) -> StartListening {
    let works = works.clone();
    Box::new(move || {
        let (alarm, works) = (ears.open()?, works.clone());
        let failed = |source| BackendError::Io { doing: "starting a thread".to_owned(), source };
        thread("podwall-alarm", move || listen(alarm, &works)).map(drop).map_err(failed)
    })
}

/// Passes on what other programs write, until the apply thread is gone.
fn listen(mut alarm: Alarm, works: &Works) {
    /// How soon the thread notices that it is no longer needed.
    const PATIENCE: Duration = Duration::from_secs(60);
    loop {
        let heard = match alarm.next(PATIENCE) {
            Ok(None) => continue,
            Ok(Some(heard)) => heard,
            Err(error) => {
                // Deaf for a moment: what was written meanwhile is found by looking.
                tracing::warn!(error = &error as &dyn std::error::Error, "listening for other writers");
                std::thread::sleep(Duration::from_secs(1));
                None
            }
        };
        if works.send(Work::Foreign(heard)).is_err() {
            return;
        }
    }
}

//! Connections that carry data while policies change: one thread each, one exchange after another.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use podwall_lab::{Exchange, Flow};
use serde::Serialize;

use crate::cli::CliError;

/// A connection under way; it closes when dropped.
pub struct Live {
    name: String,
    stop: Arc<AtomicBool>,
    pulse: Arc<Mutex<Pulse>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy)]
struct Pulse {
    answers: u64,
    last: Instant,
}

/// How a connection fared after an edit.
#[derive(Debug, Clone, Serialize)]
pub struct Fate {
    /// `shop/worker -> shop/db`.
    pub connection: String,
    /// Exchanges carried in all.
    pub exchanges: u64,
    /// Milliseconds from the edit to the last answer; absent when answers still come.
    pub cut_after_ms: Option<u128>,
}

/// Between exchanges; far finer than what is measured with it.
const BEAT: Duration = Duration::from_millis(2);
/// How long one exchange may take; TCP repeats what is lost after 200 ms at the earliest.
const PATIENCE: Duration = Duration::from_millis(300);
/// Silence of this length counts as cut: more than two repeats of TCP.
const SILENCE: Duration = Duration::from_millis(900);

impl Live {
    /// Keeps the flow busy until dropped.
    pub fn start(name: String, mut flow: Flow) -> Result<Self, CliError> {
        let stop = Arc::new(AtomicBool::new(false));
        let pulse = Arc::new(Mutex::new(Pulse { answers: 0, last: Instant::now() }));
        let (asked, beats) = (Arc::clone(&stop), Arc::clone(&pulse));
        let beat = move || {
            while !asked.load(Ordering::Relaxed) {
                match flow.exchange(PATIENCE) {
                    Exchange::Echoed => {
                        let mut pulse = beats.lock().unwrap_or_else(PoisonError::into_inner);
                        *pulse = Pulse { answers: pulse.answers + 1, last: Instant::now() };
                    }
                    Exchange::TimedOut | Exchange::Closed => {}
                }
                std::thread::sleep(BEAT);
            }
        };
        let thread = std::thread::Builder::new().name("live".to_owned()).spawn(beat);
        let thread = thread.map_err(|error| CliError::io("starting a connection", error))?;
        Ok(Self { name, stop, pulse, thread: Some(thread) })
    }

    /// Has it fallen silent for good, as far as can be told by now?
    pub fn silent(&self) -> bool {
        self.pulse().last.elapsed() > SILENCE
    }

    /// How it fared after an edit at the given moment.
    pub fn fate(&self, edit: Instant) -> Fate {
        let pulse = self.pulse();
        let cut_after_ms = self.silent().then(|| pulse.last.saturating_duration_since(edit).as_millis());
        Fate { connection: self.name.clone(), exchanges: pulse.answers, cut_after_ms }
    }

    fn pulse(&self) -> Pulse {
        *self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there would only mean that the connection is gone, which is what is wanted here.
            drop(thread.join());
        }
    }
}

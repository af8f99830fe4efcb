//! Ctrl-C and SIGTERM become an error that unwinds, so that everything is cleaned up on the way out.
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::CliError;
use crate::cli::error::Stop;

/// Signals seen so far.
pub struct Interrupts(Arc<AtomicU8>);

const NONE: u8 = 0;
const INTERRUPT: u8 = 1;
const TERMINATE: u8 = 2;

impl Interrupts {
    /// From here on signals no longer end the process; whoever calls this checks often.
    pub fn watch() -> Result<Self, CliError> {
        let failed = |error| CliError::io("watching for signals", error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let seen = Arc::new(AtomicU8::new(NONE));
        let note = Arc::clone(&seen);
        let (mut interrupt, mut terminate) = {
            let _context = runtime.enter();
            let on = |kind| signal(kind).map_err(failed);
            (on(SignalKind::interrupt())?, on(SignalKind::terminate())?)
        };
        let wait = move || {
            runtime.block_on(async {
                loop {
                    let which = tokio::select! {
                        _ = interrupt.recv() => INTERRUPT,
                        _ = terminate.recv() => TERMINATE,
                    };
                    note.store(which, Ordering::Relaxed);
                }
            });
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(failed)?;
        Ok(Self(seen))
    }

    /// Stops here if a signal came.
    pub fn check(&self) -> Result<(), CliError> {
        match self.0.load(Ordering::Relaxed) {
            INTERRUPT => Err(CliError::Stopped(Stop::Interrupt)),
            TERMINATE => Err(CliError::Stopped(Stop::Terminate)),
            _ => Ok(()),
        }
    }
}

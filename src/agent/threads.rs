//! The threads beside the runtime: netlink sockets block.
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use podwall_ruleset::BackendError;
use tokio::sync::mpsc::UnboundedReceiver;

use super::adoption::Adoption;
use super::apply::StartListening;
use super::backend::{Alarm, Ears, Opened};
use super::host::OwnAddresses;
use super::work::{Outcome, Work, Works};
use super::{AgentError, Settings, apply, flows};
use crate::telemetry::server::Telemetry;

/// What they are reached by.
pub(super) struct KernelThreads {
    pub(super) works: Works,
    pub(super) outcomes: UnboundedReceiver<Outcome>,
    pub(super) apply: JoinHandle<()>,
}

impl KernelThreads {
    pub(super) fn start(
        opened: Opened,
        settings: &Settings,
        own: &OwnAddresses,
        telemetry: &Telemetry,
    ) -> Result<Self, AgentError> {
        let failed = |source| AgentError::Io { doing: "starting a thread".to_owned(), source };
        let (works, received) = mpsc::channel();
        let (sender, outcomes) = tokio::sync::mpsc::unbounded_channel();
        let bench = flows::Bench { own: own.clone(), works: works.clone(), telemetry: telemetry.clone() };
        let setup = apply::Setup {
            backend: opened.backend,
            place: opened.chosen.filter.place(),
            elsewhere: opened.elsewhere,
            start_listening: start_listening(opened.ears, &works),
            established: settings.established,
            outcomes: sender,
            jobs: flows::start(bench).map_err(failed)?,
            adoption: Adoption::open(&settings.state_dir),
            telemetry: telemetry.clone(),
        };
        let apply = thread("podwall-apply", move || apply::run(setup, &received)).map_err(failed)?;
        Ok(Self { works, outcomes, apply })
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// What starts a thread that hears of other writers. It is asked when a table turns out not to be owned, which may be
/// long after the start: somebody else may have made one of our name before we did.
fn start_listening(ears: Ears, works: &Works) -> StartListening {
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

//! The threads beside the runtime: netlink sockets block.
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedReceiver;

use super::adoption::Adoption;
use super::alarm::start_listening;
use super::backend::Opened;
use super::host::OwnAddresses;
use super::work::{Outcome, Works};
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

pub(super) fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

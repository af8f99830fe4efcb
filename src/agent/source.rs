//! `--source DIR`: a folder of manifests instead of an API server.
//!
//! Owns when to look (inotify, with a look every half second for file systems that cannot notify) and the hand-over
//! to the planner. What the folder means is [`folder`]'s. A folder that cannot be read keeps everything it said
//! before: losing a mount must not open a node.
pub mod folder;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::input::{Feed, Input, Inputs, Stopping};
use crate::telemetry::health::Concern;
use crate::telemetry::server::Telemetry;
use folder::{Folder, Look};

/// Between two looks when nothing notifies.
const POLL: Duration = Duration::from_millis(500);

/// Why a folder cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not there, or not a folder.
    #[error("--source {}: not a folder that can be read", folder.display())]
    Folder {
        /// As given.
        folder: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Checks that the folder can be read at all: a mistyped path is an error, not an empty cluster.
pub fn check(folder: &std::path::Path) -> Result<(), SourceError> {
    std::fs::read_dir(folder)
        .map(drop)
        .map_err(|source| SourceError::Folder { folder: folder.to_owned(), source })
}

/// Feeds the planner from the folder until the agent stops.
pub async fn run(path: PathBuf, inputs: Inputs, telemetry: Telemetry) -> Result<(), Stopping> {
    let mut bell = Bell::of(&path);
    let mut folder = Folder::new(path);
    loop {
        let (back, look) = look(folder).await;
        folder = back;
        tell(&look, &telemetry);
        let again = if look.unsettled { folder::SETTLE } else { POLL };
        for input in look.inputs {
            inputs.send(input).await?;
        }
        if look.complete {
            inputs.send(Input::Complete(Feed::Folder)).await?;
        }
        bell.wait(again).await;
    }
}

/// Reading may take a second for a large folder; it must not hold up the runtime.
async fn look(mut folder: Folder) -> (Folder, Look) {
    let path = folder.path().to_owned();
    let looking = tokio::task::spawn_blocking(move || {
        let look = folder.look(std::time::SystemTime::now());
        (folder, look)
    });
    match looking.await {
        Ok(looked) => looked,
        // Only a panic while reading ends up here; what was enforced stays, since nothing is sent.
        Err(error) => {
            tracing::error!(%error, "reading the manifests");
            (Folder::new(path), Look::default())
        }
    }
}

fn tell(look: &Look, telemetry: &Telemetry) {
    let problems = &look.problems;
    telemetry.metrics.broken_manifests.set(i64::try_from(problems.len()).unwrap_or(i64::MAX));
    let words = problems.first().map(|first| match problems.len() {
        1 => first.clone(),
        more => format!("{first}; and {} more", more - 1),
    });
    telemetry.health.set(Concern::Manifests, words);
}

/// Rings when something in the folder changed.
struct Bell(Option<AsyncFd<Arc<OwnedFd>>>);

impl Bell {
    /// A bell that never rings is good enough: the folder is looked at anyway.
    fn of(path: &std::path::Path) -> Self {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB;
        let made = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .and_then(|fd| inotify::add_watch(&fd, path, flags).map(|_| fd))
            .map_err(std::io::Error::from)
            .and_then(|fd| AsyncFd::new(Arc::new(fd)));
        Self(made.inspect_err(|error| tracing::debug!(%error, "no inotify; polling")).ok())
    }

    async fn wait(&mut self, at_most: Duration) {
        let Some(bell) = &self.0 else { return tokio::time::sleep(at_most).await };
        if let Ok(Ok(mut ready)) = tokio::time::timeout(at_most, bell.readable()).await {
            let mut buffer = [0_u8; 4096];
            while rustix::io::read(bell.get_ref(), &mut buffer).is_ok_and(|read| read > 0) {}
            ready.clear_ready();
        }
    }
}

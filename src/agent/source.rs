//! `--source DIR`: a folder of manifests instead of an API server.
//!
//! Owns when to look (inotify, with a look every half second for file systems that cannot notify) and the hand-over
//! to the planner. What the folder means is [`folder`]'s. A folder that cannot be read keeps everything it said
//! before: losing a mount must not open a node.
pub mod folder;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::input::{Feed, Input, Inputs, Stopping};
use crate::telemetry::health::Concern;
use crate::telemetry::server::Telemetry;
use folder::Folder;
pub use folder::Look;

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
pub fn check(folder: &Path) -> Result<(), SourceError> {
    std::fs::read_dir(folder)
        .map(drop)
        .map_err(|source| SourceError::Folder { folder: folder.to_owned(), source })
}

/// Feeds the planner from the folder until the agent stops. Blocks: it has a thread of its own, because reading a
/// large folder takes a second and must not hold up the runtime.
pub fn run(path: PathBuf, inputs: &Inputs, telemetry: &Telemetry) -> Stopping {
    let Err(stopping) = follow(path, inputs, telemetry);
    stopping
}

fn follow(path: PathBuf, inputs: &Inputs, telemetry: &Telemetry) -> Result<Infallible, Stopping> {
    let bell = Bell::of(&path);
    let mut folder = Folder::new(path);
    while !inputs.is_closed() {
        let look = folder.look(std::time::SystemTime::now());
        tell(&look, telemetry);
        let again = if look.unsettled { folder::SETTLE } else { POLL };
        for input in look.inputs {
            inputs.send_blocking(input)?;
        }
        if look.complete {
            inputs.send_blocking(Input::Complete(Feed::Folder))?;
        }
        bell.wait(again);
    }
    Err(Stopping)
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
struct Bell(Option<OwnedFd>);

impl Bell {
    /// A bell that never rings is good enough: the folder is looked at anyway.
    fn of(path: &Path) -> Self {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB;
        let made = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .and_then(|fd| inotify::add_watch(&fd, path, flags).map(|_| fd));
        Self(made.inspect_err(|error| tracing::debug!(%error, "no inotify; polling")).ok())
    }

    fn wait(&self, at_most: Duration) {
        let Some(bell) = &self.0 else { return std::thread::sleep(at_most) };
        let limit = Timespec::try_from(at_most).ok();
        let mut ready = [PollFd::new(bell, PollFlags::IN)];
        match poll(&mut ready, limit.as_ref()) {
            Ok(0) => {}
            Ok(_) => {
                let mut buffer = [0_u8; 4096];
                while rustix::io::read(bell, &mut buffer).is_ok_and(|read| read > 0) {}
            }
            Err(_) => std::thread::sleep(at_most),
        }
    }
}

//! Waits until something changes in a folder (inotify(7)), or long enough.
//!
//! Not every file system tells of changes, so being woken only ever makes a look earlier.
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

/// Ears on some folders.
#[derive(Debug)]
pub(super) struct Wake {
    inotify: Option<OwnedFd>,
    watched: Vec<PathBuf>,
}

/// Several writes close together are one piece of news.
const REST: Duration = Duration::from_millis(20);

impl Wake {
    pub(super) fn new() -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        let inotify =
            inotify.inspect_err(|error| tracing::info!(%error, "no inotify: changes are looked for")).ok();
        Self { inotify, watched: Vec::new() }
    }

    /// Listens to these folders, as far as they are there.
    pub(super) fn watch(&mut self, folders: Vec<PathBuf>) {
        let Some(inotify) = &self.inotify else { return };
        for folder in folders {
            if self.watched.contains(&folder) {
                continue;
            }
            let news = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
            if inotify::add_watch(inotify, &folder, news).is_ok() {
                self.watched.push(folder);
            }
        }
    }

    /// True: there is news. False: it has been long enough.
    pub(super) fn wait(&mut self, long: Duration) -> bool {
        let Some(inotify) = &self.inotify else {
            std::thread::sleep(long);
            return false;
        };
        let timeout = Timespec::try_from(long).ok();
        let mut ears = [PollFd::new(inotify, PollFlags::IN)];
        let heard = poll(&mut ears, timeout.as_ref()).is_ok_and(|ready| ready > 0);
        if heard {
            std::thread::sleep(REST);
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(inotify, &mut buffer);
            // What it was does not matter; an ear that went deaf (its folder was removed) is put up again.
            while let Ok(event) = reader.next() {
                if event.events().contains(inotify::ReadFlags::IGNORED) {
                    self.watched.clear();
                }
            }
        }
        heard
    }
}

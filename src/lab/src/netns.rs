//! One network namespace, held by an open file descriptor and by nothing else.
//!
//! Entering is per thread (setns(2)), so every entry happens on a thread of its own that ends afterwards: no thread
//! of the caller ever changes namespace. Refuses names and bind mounts: they would outlive a killed process.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic,
    process::{Child, Command},
    sync::Arc,
    thread::{self, JoinHandle},
};

use nix::sched::{CloneFlags, unshare};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{LabError, link, sysctl};

/// A network namespace. Clones share it; it goes when the last clone, thread, process and link in it are gone.
#[derive(Clone, Debug)]
pub struct Netns(Arc<OwnedFd>);

impl Netns {
    /// A new, empty namespace with its loopback up. Needs root (CAP_SYS_ADMIN).
    pub fn new() -> Result<Self, LabError> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(LabError::io("creating a network namespace (needs root)"))?;
            sysctl::calm()?;
            link::raise_loopback()?;
            Self::current()
        })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, LabError> {
        let file =
            File::open("/proc/thread-self/ns/net").map_err(LabError::io("opening the network namespace"))?;
        Ok(Self(Arc::new(file.into())))
    }

    /// Runs `work` on a thread inside the namespace and waits for it. A panic in `work` goes on in the caller.
    ///
    /// Processes and threads that `work` starts are in the namespace too and stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        on_own_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }

    /// Starts a thread inside the namespace that outlives this call. A new thread is in the namespace of the thread
    /// that starts it, so no entry can go wrong in it.
    pub fn spawn_thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, LabError> {
        let thread = thread::Builder::new().name(name.to_owned());
        self.run(|| thread.spawn(work))?.map_err(LabError::io(format!("starting thread {name}")))
    }

    /// Starts a process inside the namespace; children inherit the namespace of the thread that spawns them.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        self.run(|| command.spawn())?.map_err(LabError::io(format!("starting {program}")))
    }

    /// Writes a kernel setting of this namespace; `name` is a path below /proc/sys, such as `net/ipv4/ip_forward`.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<(), LabError> {
        self.run(|| sysctl::write(name, value))?
    }

    /// Reads a kernel setting of this namespace, without the line end.
    pub fn sysctl(&self, name: &str) -> Result<String, LabError> {
        self.run(|| sysctl::read(name))?
    }

    /// Tells namespaces apart: the inode number, as `readlink /proc/self/ns/net` shows it.
    pub fn id(&self) -> Result<u64, LabError> {
        Ok(rustix::fs::fstat(&self.0).map_err(LabError::io("reading a namespace's number"))?.st_ino)
    }

    fn enter(&self) -> Result<(), LabError> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(LabError::io("entering a network namespace (needs root)"))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Changing namespace changes the thread for good, so the thread is thrown away afterwards.
fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T, LabError> + Send) -> Result<T, LabError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work);
        let thread = thread.map_err(LabError::io("starting a thread"))?;
        thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    })
}

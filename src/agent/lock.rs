//! One agent on a node: an advisory lock on `<state-dir>/lock` (flock(2)).
//!
//! The kernel lets go of it when the holder dies, however it dies, so there is no stale lock to clean up. The file
//! says who holds it; its content is only for people.
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How long somebody else may still hold it. A program that a killed agent was just starting has a copy of all its open
/// files from fork(2) until execve(2) closes them, and so the lock.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// The lock, held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("{holder} holds {}: stop it first, podwall runs once on a node", file.display())]
    Held {
        /// What the file says of the holder.
        holder: String,
        /// The lock file.
        file: PathBuf,
    },
    /// The state folder or the file cannot be used.
    #[error("{doing}")]
    Io {
        /// The step.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Lock {
    /// Makes the state folder if need be and takes the lock in it; waits no longer than a dead holder may take to let go.
    pub fn take(state_dir: &Path, node: &str) -> Result<Self, LockError> {
        let failed = |doing: String| move |source| LockError::Io { doing, source };
        std::fs::create_dir_all(state_dir)
            .map_err(failed(format!("making the state folder {}", state_dir.display())))?;
        let path = state_dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .map_err(failed(format!("opening {}", path.display())))?;
        match lock(&file) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LockError::Held { holder: holder(&mut file), file: path }),
            Err(error) => return Err(failed(format!("locking {}", path.display()))(error.into())),
        }
        // Only for people: a full disk must not keep a node without its agent.
        if let Err(error) = sign(&mut file, node) {
            tracing::warn!(%error, "writing {}", path.display());
        }
        Ok(Self { _file: file })
    }
}

fn lock(file: &File) -> Result<(), Errno> {
    let until = Instant::now() + PATIENCE;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
}

fn sign(file: &mut File, node: &str) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "podwall agent of node {node} (pid {})", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(256).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        Ok(_) | Err(_) => "another podwall agent".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_told_who_holds_the_lock() {
        let state = tempfile::tempdir().unwrap();
        let first = Lock::take(state.path(), "worker-1").unwrap();
        let refused = Lock::take(state.path(), "worker-1").unwrap_err().to_string();
        let pid = std::process::id();
        let file = state.path().join("lock");
        let file = file.display();
        assert_eq!(
            refused,
            format!(
                "podwall agent of node worker-1 (pid {pid}) holds {file}: stop it first, podwall runs once on a node"
            )
        );
        drop(first);
        assert!(Lock::take(state.path(), "worker-1").is_ok());
    }

    #[test]
    fn what_a_killed_agent_was_starting_may_hold_its_lock_for_a_moment() {
        let state = tempfile::tempdir().unwrap();
        let killed = Lock::take(state.path(), "worker-1").unwrap();
        let copy = killed._file.try_clone().unwrap();
        drop(killed);
        let program = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(copy);
        });
        assert!(Lock::take(state.path(), "worker-1").is_ok());
        program.join().unwrap();
    }
}

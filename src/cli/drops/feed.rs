//! Where drops come from: a thread that reads, and a queue.
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::cli::CliError;
use crate::drops::line::Line;

/// Lines that may wait for whoever prints.
const QUEUE: usize = 1024;

/// What came.
#[derive(Debug)]
pub(super) enum News {
    /// A drop.
    Drop(Box<Line>),
    /// So many were too fast for us.
    Missed(u64),
    /// Nothing in time.
    Quiet,
    /// Nothing will come any more.
    End,
}

/// The reading end.
#[derive(Debug)]
pub(super) struct Feed(Receiver<Result<News, CliError>>);

/// The other end; it is told when nobody reads any more.
pub(super) type Into = SyncSender<Result<News, CliError>>;

impl Feed {
    /// Starts the thread.
    pub(super) fn start(read: impl FnOnce(&Into) + Send + 'static) -> Result<Self, CliError> {
        let (sender, receiver) = sync_channel(QUEUE);
        let reader = move || {
            read(&sender);
            // Whoever left first.
            drop(sender.send(Ok(News::End)));
        };
        let started = thread::Builder::new().name("podwall-feed".to_owned()).spawn(reader);
        started.map_err(|source| CliError::io("starting a thread", source))?;
        Ok(Self(receiver))
    }

    /// The next; without patience it is waited for.
    pub(super) fn next(&self, patience: Option<Duration>) -> Result<News, CliError> {
        let Some(patience) = patience else { return self.0.recv().unwrap_or(Ok(News::End)) };
        match self.0.recv_timeout(patience) {
            Ok(news) => news,
            Err(RecvTimeoutError::Timeout) => Ok(News::Quiet),
            Err(RecvTimeoutError::Disconnected) => Ok(News::End),
        }
    }
}

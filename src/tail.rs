//! `podwall tail`: drops of other firewalls, read from the logs they leave, and told as our own are.
//!
//! ```text
//! log file --+
//! journal  --+--> lines --> Record --> names of both ends --> events on both pods, metrics
//! stream   --+   (a thread)        (from here on as the agent does it: crate::drops)
//! ```
//!
//! A drop-in for kube-iptables-tailer: it understands that program's environment (see [`crate::cli::tail`]), needs
//! neither journald's library nor its programs, and writes no rule: what logs the packets stays whose it is.
pub mod dry_run;
pub mod file;
pub mod journal;
pub mod line;
pub mod reader;
pub mod saved;
pub mod source;
pub mod stamp;
pub mod telemetry;
mod wake;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::drops::record::Record;
use file::Follower;
use journal::Journal;
use reader::{Habits, Reader, Source};
use saved::Place;
use source::Position;
use telemetry::Telemetry;

/// What the reader still has in hand when it is stopped may take this long.
const FAREWELL: Duration = Duration::from_secs(3);

/// What was asked for.
#[derive(Debug)]
pub struct Settings {
    /// What is read.
    pub log: Log,
    /// How.
    pub habits: Habits,
    /// Records that may wait to be told.
    pub buffer: usize,
    /// Where the position is kept.
    pub state_dir: Option<PathBuf>,
    /// Where metrics are served.
    pub listen: Option<SocketAddr>,
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Log {
    /// A log file.
    File(PathBuf),
    /// A folder of journal files.
    Journal(PathBuf),
    /// A file in the journal's export format.
    Export(PathBuf),
    /// The same from standard input.
    StandardInput,
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// An address, a file, a thread or a signal cannot be had.
    #[error("{doing}")]
    Io {
        /// The step.
        doing: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl TailError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| Self::Io { doing, source }
    }
}

/// Reads, and hands every record to `tell`, until SIGTERM or SIGINT, or the end of what is read.
pub async fn read(
    settings: Settings,
    telemetry: Arc<Telemetry>,
    mut tell: impl AsyncFnMut(Record),
) -> Result<(), TailError> {
    let (taker, mut records) = mpsc::channel(settings.buffer);
    let stop = Arc::new(AtomicBool::new(false));
    if let Some(address) = settings.listen {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(TailError::io(format!("listening on {address}")))?;
        tokio::spawn(telemetry::serve(listener, Arc::clone(&telemetry)));
    }
    let reader = reader(settings, taker, telemetry, &stop)?;
    std::thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || reader.run())
        .map_err(TailError::io("starting the reader"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(TailError::io("listening for signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(TailError::io("listening for signals"))?;
    loop {
        tokio::select! {
            record = records.recv() => match record {
                Some(record) => tell(record).await,
                None => return Ok(()),
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    stop.store(true, Ordering::Relaxed);
    // Its position is kept as it ends; what it had read by then is told.
    let rest = async {
        while let Some(record) = records.recv().await {
            tell(record).await;
        }
    };
    if tokio::time::timeout(FAREWELL, rest).await.is_err() {
        tracing::debug!("the reader waits for its stream");
    }
    Ok(())
}

fn reader(
    settings: Settings,
    taker: mpsc::Sender<Record>,
    telemetry: Arc<Telemetry>,
    stop: &Arc<AtomicBool>,
) -> Result<Reader, TailError> {
    let path = match &settings.log {
        Log::File(path) | Log::Journal(path) | Log::Export(path) => path.clone(),
        Log::StandardInput => PathBuf::new(),
    };
    let place = settings.state_dir.map(|folder| Place::new(folder, path.clone()));
    let Position { files, journals } = place.as_ref().map(Place::load).unwrap_or_default();
    let source = match settings.log {
        Log::File(_) => Source::File(Follower::new(path, files)),
        Log::Journal(_) => {
            let since = Timestamp::now().checked_sub(settings.habits.expiry).unwrap_or(Timestamp::MIN);
            Source::Journal(Journal::new(path, since, journals))
        }
        Log::Export(_) => {
            let file =
                std::fs::File::open(&path).map_err(TailError::io(format!("opening {}", path.display())))?;
            Source::Export(Box::new(file))
        }
        Log::StandardInput => Source::Export(Box::new(io::stdin())),
    };
    Ok(Reader { source, habits: settings.habits, place, taker, telemetry, stop: Arc::clone(stop) })
}

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
mod desk;
mod dry_run;
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

use jiff::{SignedDuration, Timestamp};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::agent::input::Stamped;
use crate::agent::{self, AgentError, ReverseDns};
use crate::cli::OutputFormat;
use crate::drops::events::Form;
use crate::drops::hub;
use crate::drops::memo::Told;
use crate::drops::record::Record;
use desk::Desk;
use file::Follower;
use journal::Journal;
use reader::{Habits, Reader, Source};
use saved::Place;
use source::Position;
use telemetry::Telemetry;

/// What is on its way when it is stopped may take this long.
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
    /// How it is told.
    pub telling: Telling,
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

/// How drops are told.
#[derive(Debug, Clone)]
pub struct Telling {
    /// The node the log is from.
    pub node: String,
    /// The API server that knows names; none: the cluster this pod runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Its address, if it is another one.
    pub api_server: Option<String>,
    /// What events look like.
    pub form: Form,
    /// Whether strangers are called as DNS calls them.
    pub reverse_dns: ReverseDns,
    /// Whom it is told.
    pub to: To,
}

/// Whom drops are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// The pods, by events.
    Pods,
    /// Whoever reads standard output.
    Output(OutputFormat),
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
    /// There is no API server.
    #[error(transparent)]
    Client(AgentError),
}

impl TailError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| Self::Io { doing, source }
    }
}

/// Reads and tells until SIGTERM or SIGINT, or the end of what is read.
pub async fn run(settings: Settings, telemetry: Arc<Telemetry>) -> Result<(), TailError> {
    let telling = settings.telling.clone();
    let client = client(&telling).await?;
    if let Some(address) = settings.listen {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(TailError::io(format!("listening on {address}")))?;
        tokio::spawn(telemetry::serve(listener, Arc::clone(&telemetry)));
    }
    let mut tasks = JoinSet::new();
    let (onward, told) = mpsc::channel(hub::QUEUE);
    let mut desk = Desk::new(&telling.node, onward);
    let news = client.as_ref().map(|client| desk.follow(client, &telemetry.shared, &mut tasks));
    let teller = tell(telling, client, told, (&telemetry, settings.habits.expiry));
    let (taker, records) = mpsc::channel(settings.buffer);
    let stop = Arc::new(AtomicBool::new(false));
    let reader = reader(settings, taker, Arc::clone(&telemetry), &stop)?;
    std::thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || reader.run())
        .map_err(TailError::io("starting the reader"))?;
    turn(desk, (news, records), &stop, &telemetry).await?;
    // Whoever tells ends when there is nothing more to tell.
    if tokio::time::timeout(FAREWELL, teller).await.is_err() {
        tracing::debug!("some drops were not told yet");
    }
    Ok(())
}

/// Starts whoever tells of drops.
fn tell(
    telling: Telling,
    client: Option<kube::Client>,
    told: mpsc::Receiver<Told>,
    (telemetry, expiry): (&Telemetry, SignedDuration),
) -> tokio::task::JoinHandle<()> {
    let To::Output(output) = telling.to else {
        let setup = hub::Setup {
            node: telling.node,
            form: telling.form,
            client,
            resolver: agent::drops::resolver(telling.reverse_dns),
            live: hub::Live::default(),
            metrics: Arc::clone(&telemetry.shared.metrics),
            rate: 0,
            expiry: Duration::try_from(expiry).unwrap_or(Duration::MAX),
        };
        return tokio::spawn(hub::run(setup, told));
    };
    tokio::spawn(async move { dry_run::print(told, &telling.node, &telling.form, output).await })
}

/// Without a cluster drops can still be printed.
async fn client(telling: &Telling) -> Result<Option<kube::Client>, TailError> {
    let found = match &telling.api_server {
        Some(address) => agent::client::client_at(telling.kubeconfig.as_deref(), address).await,
        None => agent::client::client(telling.kubeconfig.as_deref()).await.map(|(client, _)| client),
    };
    match (found, telling.to) {
        (Ok(client), _) => Ok(Some(client)),
        (Err(AgentError::NotInCluster(_)), To::Output(_)) => Ok(None),
        (Err(error), _) => Err(TailError::Client(error)),
    }
}

/// Names records as they come.
async fn turn(
    mut desk: Desk,
    (mut news, mut records): (Option<mpsc::Receiver<Stamped>>, mpsc::Receiver<Record>),
    stop: &AtomicBool,
    telemetry: &Telemetry,
) -> Result<(), TailError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(TailError::io("listening for signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(TailError::io("listening for signals"))?;
    loop {
        if desk.knows_names() {
            telemetry.names_are_known();
        }
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            heard = heard(&mut news) => desk.hear(heard.input),
            () = until(desk.deadline()) => desk.settle().await,
            record = records.recv(), if desk.knows_names() => match record {
                Some(record) => desk.take(record).await,
                None => break,
            },
        }
    }
    stop.store(true, Ordering::Relaxed);
    // The reader keeps its position as it ends; what it had read by then is told.
    let rest = async {
        while let Some(record) = records.recv().await {
            desk.take(record).await;
        }
        desk.finish().await;
    };
    if tokio::time::timeout(FAREWELL, rest).await.is_err() {
        tracing::debug!("the reader waits for its stream");
    }
    Ok(())
}

async fn heard(news: &mut Option<mpsc::Receiver<Stamped>>) -> Stamped {
    match news {
        Some(news) => match news.recv().await {
            Some(stamped) => stamped,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
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

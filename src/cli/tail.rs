//! `podwall tail`: events for drops of other firewalls. Flags and help; the work is [`crate::tail`]'s.
//!
//! The environment is kube-iptables-tailer's: same names, defaults and units. Empty means unset, as there.
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::agent::{self, drops};
use super::cluster::block_on;
use super::{CliError, CliResult, Exit, OutputFormat};
use crate::agent::ReverseDns;
use crate::drops::events::Form;
use crate::drops::events::form::Text;
use crate::drops::words::PodName;
use crate::tail::line::{Grammar, Prefix, Prefixes};
use crate::tail::reader::{Habits, Until};
use crate::tail::stamp;
use crate::tail::stamp::layout::Layout;
use crate::tail::telemetry::Telemetry;
use crate::tail::{self, Log, Settings, TailError, Telling, To};
use crate::telemetry::log::{self, LogFormat};

/// Where the agent keeps its state, too.
const STATE: &str = "/run/podwall";

/// Tell pods which packets other firewalls dropped, from the logs these leave
#[derive(Debug, Args)]
#[command(
    long_about = "Tell pods which packets other firewalls dropped, from the logs these leave.\n\n\
        Reads LOG lines of the kernel (iptables, nftables, ufw, firewalld, Calico) from a log file or from the \
        journal's files, and writes a Warning event on the pod that sent the packet and on the pod it was for. Follows \
        rotation by rename and by copy and truncation, and goes on after a restart where it stopped. Needs no journald \
        library and no journalctl, writes no rule, and touches no packet: the rule that logs stays yours.\n\n\
        Takes the environment of kube-iptables-tailer as it is. Logs go to standard error.",
    after_long_help = "Endpoints on the metrics port:\n  \
        /metrics   counters; packet_drops_count{src,dst} as before\n  \
        /healthz   200 while the reader works; restart it otherwise\n  \
        /readyz    200 while there is a log and the pods are known\n\n\
        Examples:\n  \
        podwall tail --file /var/log/kern.log --prefix calico-drop: --dry-run\n  \
        podwall tail --journal /var/log/journal --prefix '[UFW BLOCK]'\n  \
        journalctl -k -o export | podwall tail --export - --any-prefix --dry-run --output json"
)]
pub struct Tail {
    #[command(flatten)]
    log: LogFlags,
    #[command(flatten)]
    lines: LineFlags,
    #[command(flatten)]
    events: EventFlags,
    /// Where /metrics, /healthz and /readyz are served, on every address
    #[arg(long, value_name = "PORT", env = "METRICS_SERVER_PORT", default_value = "9090")]
    metrics_port: Unset<u16>,
    /// Where it is kept how far was read; default: /run/podwall, and nowhere with --dry-run
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// What is logged: debug, info, warn or error; RUST_LOG wins
    #[arg(long, value_name = "LEVEL", env = "LOG_LEVEL", default_value = "INFO")]
    log_level: Unset<Level>,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
    /// Print what would be told instead of telling it
    #[arg(long)]
    dry_run: bool,
    /// How that is printed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", requires = "dry_run")]
    output: OutputFormat,
    /// End when everything that is there was read
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Which log")]
struct LogFlags {
    /// Read this log file; it may be rotated, and need not exist yet
    #[arg(long, value_name = "FILE", env = "IPTABLES_LOG_PATH")]
    file: Option<Unset<PathBuf>>,
    /// Read the journal's files in this folder; wins over a file
    #[arg(long, value_name = "DIR", env = "JOURNAL_DIRECTORY")]
    journal: Option<Unset<PathBuf>>,
    /// Read what `journalctl -o export` printed to this file (-: standard input), and end
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// How often the log is looked at where the file system does not tell of changes
    #[arg(long, value_name = "SECONDS", env = "WATCH_LOGS_INTERVAL_SECONDS", default_value = "5")]
    look_every: Unset<u64>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Which lines")]
struct LineFlags {
    /// The log prefix of drops, as the logging rule has it; may be given several times
    #[arg(long, value_name = "TEXT", env = "IPTABLES_LOG_PREFIX", conflicts_with = "any_prefix")]
    prefix: Vec<String>,
    /// Take every logged packet as a drop
    #[arg(long)]
    any_prefix: bool,
    /// A form of time to try before all usual ones, as Go writes it
    #[arg(
        long,
        value_name = "LAYOUT",
        env = "PACKET_DROP_LOG_TIME_LAYOUT",
        default_value = "2006-01-02T15:04:05.000000-07:00"
    )]
    time_layout: Unset<Layout>,
    /// The zone of times without one: a name, or +02:00; default: this machine's
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<Zone>,
    /// Drops older than this are passed over
    #[arg(long, value_name = "MINUTES", env = "PACKET_DROP_EXPIRATION_MINUTES", default_value = "10")]
    expire_after: Unset<u32>,
    /// Drops that may wait to be told; then the log waits
    #[arg(long, value_name = "NUMBER", env = "PACKET_DROP_CHANNEL_BUFFER_SIZE", default_value = "100")]
    buffer: Unset<u32>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Events")]
struct EventFlags {
    /// The same drop is told again after this long, with how often it happened
    #[arg(long, value_name = "MINUTES", env = "REPEATED_EVENTS_INTERVAL_MINUTES", default_value = "2")]
    repeat_after: Unset<u32>,
    /// What a pod is called: namespace, name, label or name_with_namespace
    #[arg(long, value_name = "HOW", env = "POD_IDENTIFIER", default_value = "namespace")]
    pod_identifier: Unset<Identifier>,
    /// Which label, where a pod is called by one
    #[arg(long, value_name = "KEY", env = "POD_IDENTIFIER_LABEL")]
    pod_identifier_label: Option<String>,
    /// The events' reason
    #[arg(long, value_name = "REASON", env = "KUBE_EVENT_DISPLAY_REASON", default_value = REASON)]
    reason: String,
    /// The component events are from
    #[arg(long, value_name = "NAME", env = "KUBE_EVENT_SOURCE_COMPONENT_NAME", default_value = COMPONENT)]
    component: String,
    /// Call addresses outside the cluster as DNS calls them
    #[arg(long, value_enum, default_value_t, value_name = "WHETHER")]
    reverse_dns: ReverseDns,
    /// The node the log is from, as events name it; default: this host's name
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: Option<String>,
    /// Talk to the API server this file names; default: the cluster this pod runs in
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Its address, if it is another one than the cluster says
    #[arg(long, value_name = "URL", env = "KUBE_API_SERVER")]
    api_server: Option<String>,
}

const REASON: &str = "PacketDrop";
const COMPONENT: &str = "kube-iptables-tailer";

/// What a pod is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identifier {
    Namespace,
    Name,
    Label,
    NamespacedName,
}

impl FromStr for Identifier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "namespace" => Self::Namespace,
            "name" => Self::Name,
            "label" => Self::Label,
            "name_with_namespace" => Self::NamespacedName,
            _ => return Err("one of namespace, name, label, name_with_namespace".to_owned()),
        })
    }
}

/// A value that may be empty in the environment, as the old tool had it: then it is the default.
#[derive(Debug, Clone)]
struct Unset<T>(Option<T>);

impl<T: FromStr> FromStr for Unset<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(Some).map(Self) }
    }
}

impl<T> Unset<T> {
    fn or(self, default: T) -> T {
        self.0.unwrap_or(default)
    }
}

/// Levels of the old tool (`zap`); those beyond error are errors here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Level(&'static str);

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text.to_ascii_lowercase().as_str() {
            "debug" => "debug",
            "info" => "info",
            "warn" | "warning" => "warn",
            "error" | "dpanic" | "panic" | "fatal" => "error",
            _ => return Err("one of debug, info, warn, error".to_owned()),
        }))
    }
}

#[derive(Debug, Clone)]
struct Zone(TimeZone);

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = stamp::offset(text).or_else(|| TimeZone::get(text).ok());
        known
            .map(Self)
            .ok_or_else(|| "neither a zone this machine knows nor an offset like +02:00".to_owned())
    }
}

impl Tail {
    /// Runs it.
    pub fn run(self) -> CliResult {
        log::init_at(self.log_format, self.log_level.clone().or(Level("info")).0);
        let settings = self.settings()?;
        block_on(async {
            tail::run(settings, Arc::new(Telemetry::default())).await.map_err(told)?;
            Ok(Exit::Done)
        })
    }

    fn settings(self) -> Result<Settings, CliError> {
        let log = self.log.log()?;
        let to = if self.dry_run { To::Output(self.output) } else { To::Pods };
        let telling = self.events.telling(to)?;
        let minutes = |minutes: u32| SignedDuration::from_mins(i64::from(minutes));
        let look_every = self.log.look_every.or(5).max(1);
        let habits = Habits {
            grammar: Grammar {
                prefixes: prefixes(&self.lines.prefix, self.lines.any_prefix)?,
                layout: self.lines.time_layout.0,
            },
            zone: self.lines.time_zone.map_or_else(TimeZone::system, |zone| zone.0),
            expiry: minutes(self.lines.expire_after.or(10)),
            pause: Duration::from_secs(look_every),
            until: if self.once { Until::Read } else { Until::Stopped },
        };
        if self.once {
            is_there(&log)?;
        }
        let listen = SocketAddr::from((Ipv6Addr::UNSPECIFIED, self.metrics_port.or(9090)));
        Ok(Settings {
            log,
            habits,
            buffer: usize::try_from(self.lines.buffer.or(100)).unwrap_or(usize::MAX).clamp(1, 1 << 20),
            // A look at what would be told leaves nothing behind, unless asked to.
            state_dir: self.state_dir.or_else(|| (!self.dry_run).then(|| PathBuf::from(STATE))),
            listen: (!self.dry_run).then_some(listen),
            telling,
        })
    }
}

impl EventFlags {
    fn telling(self, to: To) -> Result<Telling, CliError> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let usage = |words: String| CliError::Usage(words);
        let reason = given(Some(self.reason)).unwrap_or_else(|| REASON.to_owned());
        let component = given(Some(self.component)).unwrap_or_else(|| COMPONENT.to_owned());
        let interval = Duration::from_secs(60 * u64::from(self.repeat_after.or(2).max(1)));
        let names = match self.pod_identifier.0.unwrap_or(Identifier::Namespace) {
            Identifier::Namespace => PodName::Namespace,
            Identifier::Name => PodName::Name,
            Identifier::NamespacedName => PodName::NamespacedName,
            Identifier::Label => PodName::Label(given(self.pod_identifier_label).ok_or_else(|| {
                usage("which label names pods? --pod-identifier-label or POD_IDENTIFIER_LABEL".to_owned())
            })?),
        };
        let form = Form {
            reason: drops::reason(&reason).map_err(usage)?,
            component: drops::component(&component).map_err(usage)?,
            text: Text::Short,
            names,
            interval,
        };
        Ok(Telling {
            node: given(self.node_name).unwrap_or_else(super::operator::hostname),
            kubeconfig: self.kubeconfig,
            api_server: given(self.api_server),
            form,
            reverse_dns: self.reverse_dns,
            to,
        })
    }
}

impl LogFlags {
    fn log(&self) -> Result<Log, CliError> {
        let given = |path: &Option<Unset<PathBuf>>| path.clone().and_then(|path| path.0);
        match (&self.export, given(&self.journal), given(&self.file)) {
            (Some(path), _, _) if path.as_os_str() == "-" => Ok(Log::StandardInput),
            (Some(path), _, _) => Ok(Log::Export(path.clone())),
            (None, Some(folder), _) => Ok(Log::Journal(folder)),
            (None, None, Some(file)) => Ok(Log::File(file)),
            (None, None, None) => Err(CliError::Usage(
                "which log? name it with --file FILE or --journal DIR, or IPTABLES_LOG_PATH or JOURNAL_DIRECTORY"
                    .to_owned(),
            )),
        }
    }
}

/// A log that comes later may be waited for, but not by who reads it once.
fn is_there(log: &Log) -> Result<(), CliError> {
    match log {
        Log::File(path) | Log::Journal(path) | Log::Export(path) => {
            std::fs::metadata(path).map(drop).map_err(|error| CliError::Input {
                doing: format!("reading {}", path.display()),
                source: Box::new(error),
            })
        }
        Log::StandardInput => Ok(()),
    }
}

fn prefixes(given: &[String], any: bool) -> Result<Prefixes, CliError> {
    let given: Vec<Prefix> = given.iter().map(|text| Prefix::from(text.as_str())).collect();
    let given: Vec<Prefix> = given.into_iter().filter(|prefix| !prefix.is_empty()).collect();
    if any {
        return Ok(Prefixes::Any);
    }
    if given.is_empty() {
        let words = "which lines are drops? name their prefix with --prefix TEXT or IPTABLES_LOG_PREFIX, or take all \
                     with --any-prefix";
        return Err(CliError::Usage(words.to_owned()));
    }
    Ok(Prefixes::These(given))
}

fn told(error: TailError) -> CliError {
    match error {
        TailError::Io { doing, source } => CliError::io(doing, source),
        TailError::Client(error) => agent::told(error),
    }
}

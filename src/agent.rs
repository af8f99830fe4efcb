//! The agent of one node: objects in, packet filter out.
//!
//! ```text
//! watch (or source) --+
//! host ---------------+--> planner --work--> apply --> kernel
//!                          (engine)  <-outcome-  |
//! control, telemetry                             +--> flows --> conntrack
//! ```
//!
//! Owns how the parts are put together, in which order they start, and how they stop. Each arrow is a channel; only
//! `apply` talks to the packet filter, only `planner` holds the engine.
pub mod adoption;
mod alarm;
pub mod api_servers;
pub mod apply;
pub mod backend;
pub(crate) mod client;
pub mod control;
pub mod domains;
pub mod drops;
pub mod flows;
pub mod host;
pub mod input;
pub mod lock;
pub mod node_report;
pub mod pace;
pub mod planner;
pub mod reports;
pub mod source;
mod threads;
pub mod watch;
pub mod work;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::config::KubeconfigError;
use podwall_engine::options::{Learning, Rejection, SpoofGuard};
use podwall_engine::{Engine, NodeName, Options};
use podwall_ruleset::{BackendError, Capabilities};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use crate::drops::hub::Live;
use crate::drops::memo::Onward;
use crate::telemetry::events::Events;
use crate::telemetry::health::Concern;
use crate::telemetry::server::{self, Telemetry};
use api_servers::Server;
use apply::Established;
use backend::{Choice, Filter, GuardChoice, Opened};
use control::Desk;
use domains::Classroom;
pub use drops::{DropSettings, ReverseDns};
use host::OwnAddresses;
use input::{Feed, Inputs, Stopping};
use lock::{Lock, LockError};
use node_report::Sheet;
use planner::Planner;
use reports::Reports;
use source::SourceError;
use threads::KernelThreads;
use watch::kinds::{
    Bans, DomainPolicies, Exposures, Ktbans, Mirrored, Namespaces, Nodes, Pods, Policies, Services,
};
use work::{Outcome, Work, Works};

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objects {
    /// An API server; without a file, the one of the cluster this process runs in.
    Cluster(Option<PathBuf>),
    /// A folder of manifests.
    Folder(PathBuf),
}

/// Everything an operator chooses.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node's name, as the API server knows it.
    pub node: NodeName,
    /// Where objects come from.
    pub objects: Objects,
    /// What decides the ruleset besides the objects.
    pub options: Options,
    /// Which packet filter.
    pub backend: Choice,
    /// How its table is kept ours.
    pub guard: GuardChoice,
    /// What happens to established flows when a policy gets tighter.
    pub established: Established,
    /// How long mid-stream packets of unknown flows pass after the first adoption.
    pub grace: Duration,
    /// How dropped packets are told of.
    pub drops: DropSettings,
    /// Where metrics and health are served.
    pub listen: SocketAddr,
    /// Where the lock, the control socket and the record of the first start are.
    pub state_dir: PathBuf,
}

/// Why the agent could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent runs here, or the state folder cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The packet filter cannot be used.
    #[error("opening the packet filter")]
    Backend(#[from] BackendError),
    /// The folder of manifests cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The kubeconfig cannot be read.
    #[error("reading the kubeconfig {}", file.display())]
    Kubeconfig {
        /// As given.
        file: PathBuf,
        /// The cause.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// No kubeconfig was given, and this is not a pod.
    #[error("not in a cluster: name an API server with --kubeconfig FILE, or manifests with --source DIR")]
    NotInCluster(#[source] Box<kube::config::InClusterError>),
    /// The address of the API server is none.
    #[error("{address:?} is no address of an API server")]
    Address {
        /// As given.
        address: String,
        /// The cause.
        #[source]
        source: axum::http::uri::InvalidUri,
    },
    /// The client cannot be made from the configuration.
    #[error("making the API client")]
    Client(#[source] Box<kube::Error>),
    /// An address, socket, thread or signal cannot be had.
    #[error("{doing}")]
    Io {
        /// The step.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A part of the agent stopped by itself.
    #[error("the {0} stopped unexpectedly; the rules stand")]
    Died(&'static str),
}

/// Runs until SIGTERM or SIGINT. The rules stand afterwards.
pub fn run(settings: Settings) -> Result<(), AgentError> {
    let _lock = Lock::take(&settings.state_dir, &settings.node.0)?;
    // One thread: all its work is short, and each further thread that allocates holds ten megabytes of its own once
    // a large cluster was read (measured at 10k pods with glibc's arenas).
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AgentError::Io { doing: "starting the runtime".to_owned(), source })?;
    let result = start(&runtime, settings);
    // Requests to a slow API server are not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Everything that can be wrong with what was asked for is found before anything is changed.
fn start(runtime: &Runtime, settings: Settings) -> Result<(), AgentError> {
    let (client, server) = match &settings.objects {
        Objects::Cluster(file) => {
            let (client, server) = runtime.block_on(client::client(file.as_deref()))?;
            (Some(client), server)
        }
        Objects::Folder(folder) => source::check(folder).map(|()| (None, Server::default()))?,
    };
    let doors = runtime.block_on(Doors::open(&settings))?;
    let opened = backend::open(settings.backend, settings.guard)?;
    let (own, telemetry) = (OwnAddresses::default(), Telemetry::default());
    let options = fitting(&settings, (opened.backend.capabilities(), opened.chosen.filter), &telemetry);
    tell(&opened, &telemetry);
    tracing::info!(
        node = %settings.node,
        backend = opened.backend.capabilities().backend,
        why = opened.chosen.why,
        guard = %opened.backend.capabilities().guard,
        listen = %settings.listen,
        "podwall agent {} starts", env!("CARGO_PKG_VERSION")
    );
    let backend = opened.backend.capabilities().backend;
    let kernel = KernelThreads::start(opened, &settings, &own, &telemetry)?;
    let works = kernel.works.clone();
    let agent = Agent { settings, options, client, server, own, telemetry, works, backend };
    let result = runtime.block_on(agent.turn(doors, kernel.outcomes));
    drop(kernel.works.send(Work::Stop));
    drop(kernel.apply.join());
    result
}

/// The options this kernel can carry out.
fn fitting(settings: &Settings, (can, filter): (&Capabilities, Filter), telemetry: &Telemetry) -> Options {
    let mut options = settings.options.clone();
    if !can.reverse_path && options.spoof_guard == SpoofGuard::ReversePath {
        let needs = filter.reverse_path_needs();
        let words = format!(
            "this kernel cannot check reverse paths from rules, so forged sources pass: {needs}, or accept it with \
             --spoof-guard off"
        );
        telemetry.health.raise(Concern::SpoofGuard, words);
        options.spoof_guard = SpoofGuard::Off;
    }
    if !can.reject {
        tracing::info!("this packet filter cannot reject where bans are judged: bans that reject drop");
        options.rejection = Rejection::Silent;
    }
    if !can.learned {
        let words = "this kernel's ipset has no pairs of addresses, so rules of DomainPolicies that name domains allow \
                     nothing: modprobe ip_set_hash_netnet";
        tracing::warn!("{words}");
        options.learning = Learning::Impossible;
    }
    options
}

/// Which packet filter was chosen, for those who look at metrics and readiness.
fn tell(opened: &Opened, telemetry: &Telemetry) {
    let Opened { chosen, elsewhere, .. } = opened;
    telemetry.metrics.backend.get_or_create(&chosen.labels()).set(1);
    let told = (!chosen.told.is_empty()).then(|| chosen.told.join("; "));
    telemetry.health.set(Concern::Backend, told);
    let unjudged =
        |lacking: &String| format!("policies are enforced for IPv4 only, IPv6 passes unjudged: {lacking}");
    telemetry.health.set(Concern::Ipv6, chosen.unjudged.as_ref().map(unjudged));
    for former in &elsewhere.found.formers {
        tracing::info!(place = former.place(), "rules of an earlier podwall stand there until ours do");
    }
}

/// The sockets others come to; taken before anything is changed, so that an address in use changes nothing.
struct Doors {
    http: TcpListener,
    control: UnixListener,
    dns: UnixListener,
}

impl Doors {
    async fn open(settings: &Settings) -> Result<Self, AgentError> {
        let http = server::bind(settings.listen).await.map_err(|source| AgentError::Io {
            doing: format!("listening on {} (choose another with --listen)", settings.listen),
            source,
        })?;
        let control = control::bind(&settings.state_dir).map_err(|source| AgentError::Io {
            doing: format!("opening the control socket in {}", settings.state_dir.display()),
            source,
        })?;
        let dns = domains::bind(&settings.state_dir).map_err(|source| AgentError::Io {
            doing: format!("opening the DNS proxy's socket in {}", settings.state_dir.display()),
            source,
        })?;
        Ok(Self { http, control, dns })
    }
}

/// Everything the tasks of the runtime need.
struct Agent {
    settings: Settings,
    options: Options,
    client: Option<kube::Client>,
    server: Server,
    own: OwnAddresses,
    telemetry: Telemetry,
    works: Works,
    /// The packet filter's name.
    backend: &'static str,
}

impl Agent {
    /// Runs all tasks until a signal comes or one of them ends.
    async fn turn(self, doors: Doors, outcomes: UnboundedReceiver<Outcome>) -> Result<(), AgentError> {
        let failed = |source| AgentError::Io { doing: "listening for signals".to_owned(), source };
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let (inputs, received) = Inputs::channel();
        let mut tasks = JoinSet::new();
        let (events, writer) = self.events();
        if let Some(writer) = writer {
            tasks.spawn(async move {
                writer.await;
                "writer of events"
            });
        }
        let feeds = self.sources(&inputs, &mut tasks)?;
        let told = events.clone();
        let (classroom, lectern) = domains::classroom(&self.settings.state_dir);
        let drops::Ends { onward, taken, live } = self.drops(&mut tasks)?;
        let sheet = self.reporter(&mut tasks);
        let people = domains::People { events: told, sheet: sheet.clone() };
        let planner = self.planner(feeds, events, sheet, (classroom, onward));
        tasks.spawn(async move {
            planner.run(received, outcomes, taken).await;
            "planner"
        });
        let dns = domains::serve(doors.dns, lectern, (inputs, people), self.options.dns_proxy);
        tasks.spawn(async move {
            dns.await;
            "socket of the DNS proxy"
        });
        self.doors((doors.http, doors.control), live, &mut tasks);
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping; the rules stand"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping; the rules stand"),
            ended = tasks.join_next() => {
                return Err(AgentError::Died(ended.and_then(Result::ok).unwrap_or("a task")));
            }
        }
        Ok(())
    }

    /// Starts the writer of this node's report, where there is anybody to read it.
    fn reporter(&self, tasks: &mut JoinSet<&'static str>) -> Sheet {
        let sheet = Sheet::default();
        sheet.backend(self.backend);
        if let Some(client) = self.client.clone() {
            let writer = node_report::Writer {
                client,
                node: self.settings.node.clone(),
                sheet: sheet.clone(),
                health: Arc::clone(&self.telemetry.health),
            };
            tasks.spawn(async move {
                writer.run().await;
                "writer of the node report"
            });
        }
        sheet
    }

    fn events(&self) -> (Events, Option<impl Future<Output = ()> + Send + use<>>) {
        let metrics = Arc::clone(&self.telemetry.metrics);
        match &self.client {
            None => (Events::nowhere(metrics), None),
            Some(client) => {
                let (events, writer) =
                    Events::to_cluster(client.clone(), self.settings.node.clone(), metrics);
                (events, Some(writer))
            }
        }
    }

    /// Starts whatever feeds the planner; answers what must be complete before the first write.
    fn sources(
        &self,
        inputs: &Inputs,
        tasks: &mut JoinSet<&'static str>,
    ) -> Result<BTreeSet<Feed>, AgentError> {
        let mut feeds = BTreeSet::from([Feed::Host]);
        let (own, telemetry) = (self.own.clone(), self.telemetry.clone());
        let host = host::run(inputs.clone(), own, telemetry);
        tasks.spawn(async move {
            let Stopping = host.await;
            "reader of links and routes"
        });
        match (&self.settings.objects, &self.client) {
            (Objects::Folder(folder), _) => {
                feeds.insert(Feed::Folder);
                let (folder, inputs, telemetry) = (folder.clone(), inputs.clone(), self.telemetry.clone());
                // A task like the others, so that it is missed when it ends.
                tasks.spawn_blocking(move || {
                    let Stopping = source::run(folder, &inputs, &telemetry);
                    "reader of manifests"
                });
            }
            (Objects::Cluster(_), Some(client)) => {
                feeds.insert(self.mirror::<Pods>(client, inputs, tasks));
                feeds.insert(self.mirror::<Namespaces>(client, inputs, tasks));
                feeds.insert(self.mirror::<Nodes>(client, inputs, tasks));
                feeds.insert(self.mirror::<Policies>(client, inputs, tasks));
                feeds.insert(self.mirror::<DomainPolicies>(client, inputs, tasks));
                feeds.insert(self.mirror::<Services>(client, inputs, tasks));
                feeds.insert(self.mirror::<Bans>(client, inputs, tasks));
                feeds.insert(self.mirror::<Ktbans>(client, inputs, tasks));
                feeds.insert(self.mirror::<Exposures>(client, inputs, tasks));
                feeds.insert(Feed::ApiServers);
                let (server, telemetry) = (self.server.clone(), self.telemetry.clone());
                let servers = api_servers::run(client.clone(), server, inputs.clone(), telemetry);
                tasks.spawn(async move {
                    let Stopping = servers.await;
                    "reader of API servers' addresses"
                });
            }
            (Objects::Cluster(_), None) => {}
        }
        Ok(feeds)
    }

    fn mirror<M: Mirrored>(
        &self,
        client: &kube::Client,
        inputs: &Inputs,
        tasks: &mut JoinSet<&'static str>,
    ) -> Feed {
        let watch = watch::run::<M>(client.clone(), inputs.clone(), self.telemetry.clone());
        tasks.spawn(async move {
            let Stopping = watch.await;
            "watch"
        });
        M::FEED
    }

    /// Starts whoever hears and tells of dropped packets.
    fn drops(&self, tasks: &mut JoinSet<&'static str>) -> Result<drops::Ends, AgentError> {
        let site = drops::Site {
            node: self.settings.node.to_string(),
            settings: self.settings.drops.clone(),
            client: self.client.clone(),
            options: &self.options,
            works: self.works.clone(),
            telemetry: self.telemetry.clone(),
        };
        let failed = |source| AgentError::Io { doing: "starting a thread".to_owned(), source };
        drops::start(site, tasks).map_err(failed)
    }

    fn planner(
        &self,
        feeds: BTreeSet<Feed>,
        events: Events,
        sheet: Sheet,
        (classroom, drops): (Classroom, Onward),
    ) -> Planner {
        let engine = Engine::new(self.settings.node.clone(), self.options.clone());
        Planner::new(planner::Setup {
            engine,
            feeds,
            grace: self.settings.grace,
            reports: Reports::new(events, self.telemetry.clone()),
            works: self.works.clone(),
            sheet,
            classroom,
            drops,
            telemetry: self.telemetry.clone(),
        })
    }

    fn doors(
        &self,
        (http, control): (TcpListener, UnixListener),
        live: Live,
        tasks: &mut JoinSet<&'static str>,
    ) {
        let telemetry = self.telemetry.clone();
        tasks.spawn(async move {
            if let Err(error) = server::serve(http, telemetry).await {
                tracing::error!(%error, "serving metrics and health");
            }
            "HTTP server"
        });
        let (node, works) = (self.settings.node.clone(), self.works.clone());
        let desk = Desk { node, works, health: Arc::clone(&self.telemetry.health), live };
        tasks.spawn(async move {
            control::serve(control, desk).await;
            "control socket"
        });
    }
}

#[cfg(test)]
mod tests;

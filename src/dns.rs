//! `podwall dns`: answers the DNS queries of pods that may use names, and has the addresses opened before it answers.
//!
//! ```text
//! pod --query--> detour (kernel) ----> proxy --query--> the server that was asked
//!                                        |  <-answer--
//!                                        +--lessons--> agent --commit--> kernel
//! pod <--answer------------------------- + <-confirmed--
//! ```
//!
//! A process of its own, so that replacing the agent does not touch DNS (decision Q2). Owns the order of things: an
//! answer for a name that a policy lists leaves only after the agent confirmed that the kernel holds its addresses for
//! the pod that asked. What names match is the engine's; what is written is the agent's.
pub mod asking;
pub mod book;
pub mod detour;
pub mod exchange;
pub mod farewell;
pub mod flows;
pub mod house;
pub mod ledger;
pub mod link;
pub mod lo;
pub mod memory;
pub mod message;
pub mod metrics;
pub mod pace;
pub mod teaching;
pub mod troubles;
pub mod turns;
pub mod upstream;
pub mod words;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use podwall_engine::options::DnsProxy;
use podwall_ruleset::{BackendError, Proxy};
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::backend::Choice;
use house::House;
use metrics::Metrics;

/// IPv4 address of the proxy: link-local, so that it is no router's business.
pub const ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 1);
/// IPv6 address of the proxy.
pub const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x706f, 0x6477, 0x616c, 0, 0, 0, 1);
/// What an operator chooses.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which packet filter takes queries to it.
    pub backend: Choice,
    /// Where it listens.
    pub proxy: DnsProxy,
    /// How long an address is held at least, however short it may be cached.
    pub floor: Duration,
    /// How long an answer may be cached at most.
    pub cap: Duration,
    /// Names within it may have private addresses.
    pub cluster_domain: String,
    /// Where the agent's socket is.
    pub state_dir: PathBuf,
    /// Where metrics are served.
    pub listen: SocketAddr,
}

/// Why it could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The packet filter cannot take queries to it.
    #[error("making the way of DNS queries to the proxy")]
    Detour(#[from] BackendError),
    /// An address, socket or signal cannot be had.
    #[error("{doing}")]
    Io {
        /// The step.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Runs until SIGTERM or SIGINT. Queries then go to their servers directly.
pub fn run(settings: Settings) -> Result<(), DnsError> {
    let failed = |doing: &str| {
        let doing = doing.to_owned();
        move |source| DnsError::Io { doing, source }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("starting the runtime"))?;
    raise_file_limit();
    runtime.block_on(async {
        let http = tokio::net::TcpListener::bind(settings.listen)
            .await
            .map_err(failed(&format!("listening on {} (choose another with --listen)", settings.listen)))?;
        let addresses = [settings.proxy.v4.into(), settings.proxy.v6.into()];
        lo::add(&addresses).await;
        let proxy = Proxy { v4: settings.proxy.v4, v6: settings.proxy.v6 };
        let (lane, keeper) = detour::start(detour::open(settings.backend, proxy)?)
            .map_err(failed("starting the thread that keeps the way of queries"))?;
        // Of a proxy before, whose ports meant other servers; what was left of its way is gone by now.
        flows::forget(move |flow| flows::by_proxy(flow, &addresses));
        let metrics = Arc::new(Metrics::default());
        tracing::info!(v4 = %settings.proxy.v4, v6 = %settings.proxy.v6, "podwall dns {} starts", env!("CARGO_PKG_VERSION"));
        let view = ledger::bind(&settings.state_dir).map_err(failed("opening the socket of podwall domains"))?;
        let house = House::new(settings, lane, Arc::clone(&metrics));
        let exchange = house.exchange();
        let mut terminate = signal(SignalKind::terminate()).map_err(failed("listening for signals"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("listening for signals"))?;
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping; queries go to their servers directly"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping; queries go to their servers directly"),
            served = metrics::serve(http, metrics) => served.map_err(failed("serving metrics"))?,
            () = ledger::serve(view, exchange) => {}
            () = house.run() => {}
        }
        // The lane went with the house: its keeper takes the way to them away, and ends.
        if keeper.join().is_err() {
            tracing::error!("what took queries may stay, and does nothing");
        }
        lo::remove(&addresses).await;
        Ok(())
    })
}

/// Each open question and each connection is a file, and the limit that programs begin with is for programs that wait
/// for files by `select` (`systemd.exec(5)`, `LimitNOFILE=`).
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "raising the limit of open files: many questions at once may fail");
    }
}

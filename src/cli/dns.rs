//! `podwall dns`: the DNS proxy of one node. Flags and help; the work is [`crate::dns`]'s.
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::planning::DnsProxyFlags;
use super::{CliError, CliResult, Exit};
use crate::agent::backend::Choice;
use crate::dns::{self, DnsError, Settings};
use crate::telemetry::log::{self, LogFormat};

/// Answer the DNS queries of pods that may use names, once their addresses are open
#[derive(Debug, Args)]
#[command(
    long_about = "Answer the DNS queries of pods that may use names, once their addresses are open.\n\n\
        Runs beside `podwall agent` on each node, as a process of its own. Queries of pods that a DomainPolicy selects \
        are taken here (by table `inet podwall_dns`, or by a chain of iptables' nat table), asked of the very server \
        they were sent to, and answered once the kernel holds the addresses for the pod that asked. Names that no \
        policy lists are answered too, and open nothing. When this process dies, queries go to their servers directly \
        at once, with iptables or when it hangs within three seconds; nothing new is opened then. An address stays \
        open twice as long as its answer may be cached; for new connections only, those that are open stay.\n\n\
        The flags --dns-proxy-* and --state-dir must be those of the agent.\n\n\
        Needs CAP_NET_ADMIN in the host's network namespace. Logs go to standard error; RUST_LOG chooses what is \
        told (podwall=debug).",
    after_long_help = "Endpoints at --listen:\n  \
        /metrics   counters and gauges, named podwall_dns_*\n  \
        /healthz   200 while it lives\n\n\
        Examples:\n  \
        sudo podwall dns                       (beside an agent on this node)\n  \
        sudo podwall dns --shortest 300        (for pods that keep addresses longer than they may)\n  \
        sudo podwall domains                   (what came of it)"
)]
pub struct Dns {
    #[command(flatten)]
    proxy: DnsProxyFlags,
    /// Which packet filter takes queries here: auto is nftables where the kernel has it, otherwise iptables
    #[arg(long, value_enum, default_value_t, value_name = "FILTER")]
    backend: Choice,
    /// Hold an address for at least this long, however short it may be cached
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    shortest: u64,
    /// Let pods cache an answer for at most this long
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    longest: u64,
    /// Names within this domain may have private addresses
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Where the agent's sockets are
    #[arg(long, value_name = "DIR", default_value = "/run/podwall")]
    state_dir: PathBuf,
    /// Where /metrics and /healthz are served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9475")]
    listen: SocketAddr,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

impl Dns {
    /// Runs it.
    pub fn run(self) -> CliResult {
        log::init(self.log_format);
        let settings = Settings {
            backend: self.backend,
            proxy: self.proxy.proxy(),
            floor: Duration::from_secs(self.shortest),
            cap: Duration::from_secs(self.longest),
            cluster_domain: self.cluster_domain,
            state_dir: self.state_dir,
            listen: self.listen,
        };
        dns::run(settings).map_err(|error| match error {
            DnsError::Detour(error) => CliError::backend("making the way of DNS queries to the proxy", error),
            DnsError::Io { doing, source } => CliError::io(doing, source),
        })?;
        Ok(Exit::Done)
    }
}

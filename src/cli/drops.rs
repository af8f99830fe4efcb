//! `podwall drops`: what is dropped, while it is dropped.
mod capture;
mod cluster;
mod feed;
mod node;
mod stream;
mod summary;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnetwork::IpNetwork;

use super::{CliError, CliResult, Exit, OutputFormat, output};
use crate::agent::control::Watch;
use crate::drops::filter::Filter;
use crate::drops::line::Packets;
use capture::CaptureFile;
use feed::{Feed, News};
use stream::Stream;
use summary::Summary;

/// Watch packets being dropped: who, to whom, by which policy, and what would have let them pass
#[derive(Debug, Args)]
#[command(
    long_about = "Watch packets being dropped: who, to whom, by which policy, and what would have let them pass.\n\n\
        On a node, the running agent is asked over its control socket (root may). With --cluster, the events that \
        agents write are watched through the API server, for all nodes at once and with fewer details. Records are \
        sampled where one source sends many; counts in events and metrics are the kernel's and whole.",
    after_help = "Examples:\n  \
        sudo podwall drops\n  \
        sudo podwall drops -n shop --port 8443 --output json\n  \
        sudo podwall drops --summary\n  \
        sudo podwall drops --pcap drops.pcap --count 100\n  \
        podwall drops --cluster --kubeconfig ~/.kube/config --policy shop/web-in"
)]
pub struct Drops {
    /// Only what a pod or Service of this namespace sent or was to get
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Only what this pod sent or was to get
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pod: Option<String>,
    /// Only what this policy or ban refused
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    policy: Option<String>,
    /// Only what was for this port
    #[arg(long, value_name = "NUMBER")]
    port: Option<u16>,
    /// Only what came from or was for an address of this block
    #[arg(long, value_name = "CIDR")]
    cidr: Option<IpNetwork>,
    /// Only for this reason: policy, ban, exposure, pending, forged, nameless, refused
    #[arg(long, value_name = "WORD")]
    reason: Option<String>,
    /// A row of a table for people, or a JSON object for programs, for each
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: OutputFormat,
    /// Instead of each drop: who is refused most, drawn anew
    #[arg(long, conflicts_with = "output")]
    summary: bool,
    /// How often the summary is drawn
    #[arg(long, value_name = "SECONDS", default_value_t = 1, requires = "summary", value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Write the packets, as far as their bytes were copied, to this file for Wireshark
    #[arg(long, value_name = "FILE", conflicts_with = "cluster")]
    pcap: Option<PathBuf>,
    /// Stop after so many
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// Watch the whole cluster through the API server
    #[arg(long)]
    cluster: bool,
    /// The API server this file names; default: $KUBECONFIG, ~/.kube/config, then in-cluster
    #[arg(long, value_name = "FILE", requires = "cluster")]
    kubeconfig: Option<PathBuf>,
    /// Use this context of the kubeconfig
    #[arg(long, value_name = "NAME", requires = "cluster")]
    context: Option<String>,
    /// `reason` of the events that agents write
    #[arg(long, value_name = "WORD", default_value = "PacketDrop", requires = "cluster")]
    event_reason: String,
    /// Where the agent keeps its control socket
    #[arg(long, value_name = "DIR", default_value = "/run/podwall")]
    state_dir: PathBuf,
}

impl Drops {
    /// Runs it, until whoever looks has enough.
    pub fn run(self) -> CliResult {
        let mut capture = self.pcap.as_deref().map(CaptureFile::create).transpose()?;
        let feed = self.feed(capture.is_some())?;
        let mut summary = self.summary.then(|| Summary::new(Duration::from_secs(self.every)));
        let (mut stream, mut seen) = (Stream::default(), 0);
        while self.count.is_none_or(|count| seen < count) {
            match feed.next(summary.as_ref().map(Summary::patience))? {
                News::Drop(line) => {
                    seen += 1;
                    if let Some(capture) = &mut capture {
                        capture.add(&line)?;
                    }
                    match &mut summary {
                        Some(summary) => summary.add(&line),
                        None => stream.print(*line, self.output)?,
                    }
                }
                News::Missed(number) => stream::missed(number),
                News::Quiet => {}
                News::End => {
                    return Err(CliError::io("watching drops", std::io::ErrorKind::UnexpectedEof.into()));
                }
            }
            if let Some(summary) = &mut summary {
                summary.draw_if_due()?;
            }
        }
        match &mut summary {
            Some(summary) => summary.draw()?,
            None => output::answer("")?,
        }
        Ok(Exit::Done)
    }

    fn feed(&self, captures: bool) -> Result<Feed, CliError> {
        let packets = if captures { Packets::With } else { Packets::Without };
        let watch = Watch { filter: self.filter(), packets };
        if self.cluster {
            return cluster::feed(
                (self.kubeconfig.clone(), self.context.clone()),
                self.event_reason.clone(),
                watch.filter,
            );
        }
        node::feed(&self.state_dir.join("agent.sock"), &watch)
    }

    fn filter(&self) -> Filter {
        Filter {
            namespace: self.namespace.clone(),
            pod: self.pod.clone(),
            policy: self.policy.clone(),
            port: self.port,
            cidr: self.cidr.map(|cidr| cidr.to_string()),
            reason: self.reason.clone(),
        }
    }
}

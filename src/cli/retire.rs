//! `podwall retire`: leave no rule behind on any node before podwall itself goes.
//!
//! What `helm uninstall` runs first (decision B5). Two halves: [`nodes`] asks and waits, [`here`] is what each node
//! runs in the agent's place. A standing deny, or a range kept shut for pods to come, must not outlive what would
//! open it again.
pub mod here;
pub mod nodes;

use clap::{Args, Subcommand};

use super::CliResult;

/// Take the rules away on every node, before an uninstall
#[derive(Debug, Args)]
#[command(
    long_about = "Take the rules away on every node, before an uninstall.\n\n\
        The chart's pre-delete hook runs `retire nodes`. It makes the agents' DaemonSet run `retire here` instead, and \
        waits until the pod of every node is ready, which it becomes once nothing of podwall stands in that node's \
        kernel. Nothing is deleted in the cluster. To go back: `helm rollback podwall --force-conflicts`.",
    after_help = "Example:\n  podwall retire nodes --daemonset podwall/podwall --timeout 120"
)]
pub struct Retire {
    #[command(subcommand)]
    half: Half,
}

#[derive(Debug, Subcommand)]
enum Half {
    Nodes(nodes::Nodes),
    Here(here::Here),
}

impl Retire {
    /// Runs it.
    pub fn run(self) -> CliResult {
        match self.half {
            Half::Nodes(nodes) => nodes.run(),
            Half::Here(here) => here.run(),
        }
    }
}

//! `podwall import`: what other tools were told, as objects of podwall.
pub mod dynamic_iptables;

use clap::{Args, Subcommand};

use super::CliResult;

/// Turn what another tool was told into objects of podwall, and print them
#[derive(Debug, Args)]
#[command(
    long_about = "Turn what another tool was told into objects of podwall, and print them.\n\nNothing is applied: read \
        what comes out, then give it to kubectl.",
    after_help = "Examples:\n  podwall import dynamic-iptables deployment.yaml | kubectl apply -f -"
)]
pub struct Import {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    DynamicIptables(dynamic_iptables::DynamicIptables),
}

impl Import {
    /// Runs it.
    pub fn run(self) -> CliResult {
        match self.from {
            From::DynamicIptables(import) => import.run(),
        }
    }
}

//! `podwall ban`: bans for people and scripts. It writes `Ban` objects and nothing else; agents enforce them.
//!
//! Owns the words of the command line and what an address may look like. Banning again renews: names are made from
//! the addresses, and objects are applied, never created twice.
pub mod add;
pub mod address;
pub mod import;
pub mod list;
pub mod objects;
pub mod remove;
pub mod terms;

use clap::{Args, Subcommand};

use super::CliResult;
use super::cluster::ClusterFlags;

/// Ban addresses on every node; list and lift bans
#[derive(Debug, Args)]
#[command(
    long_about = "Ban addresses on every node; list and lift bans.\n\n\
        A ban is an object of the cluster (`kubectl get bans`): every node's agent enforces it towards the node and its \
        pods within a second, until it expires or is removed. Banning an address again renews its ban. Addresses of \
        nodes and API servers are never banned, whatever is asked.",
    after_help = "Examples:\n  \
        podwall ban add 203.0.113.66 2001:db8::/48 --for 1h --reason \"port scan\"\n  \
        podwall ban add 198.51.100.7 --port tcp/22 --name ssh --for 7d\n  \
        podwall ban list\n  \
        podwall ban list 203.0.113.66 || echo not banned\n  \
        podwall ban remove 203.0.113.66\n  \
        curl -s https://lists.example/drop.txt | podwall ban import - --name droplist --for 2d"
)]
pub struct Ban {
    #[command(subcommand)]
    deed: Deed,
    #[command(flatten)]
    cluster: ClusterFlags,
}

#[derive(Debug, Subcommand)]
enum Deed {
    Add(add::Add),
    List(list::List),
    Remove(remove::Remove),
    Import(import::Import),
}

impl Ban {
    /// Runs it.
    pub fn run(self) -> CliResult {
        match self.deed {
            Deed::Add(add) => add.run(&self.cluster),
            Deed::List(list) => list.run(&self.cluster),
            Deed::Remove(remove) => remove.run(&self.cluster),
            Deed::Import(import) => import.run(&self.cluster),
        }
    }
}

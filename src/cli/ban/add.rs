//! `podwall ban add`: one object for each address, named by it, so that one address can be lifted without the others.
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;

use super::address::Banned;
use super::objects::Bans;
use super::terms::Terms;
use crate::cli::cluster::{ClusterFlags, block_on};
use crate::cli::output::{self, BAD, FAINT, NAME, paint};
use crate::cli::{CliResult, Exit};

/// Writes under way at once; more would only queue at the API server.
pub const AT_ONCE: usize = 8;

/// Ban addresses or CIDRs; banning again renews
#[derive(Debug, Args)]
pub struct Add {
    /// Addresses and CIDRs, IPv4 or IPv6
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<Banned>,
    /// Start of the objects' names; bans of different names do not touch each other
    #[arg(long, value_name = "NAME", default_value = "ban", value_parser = name)]
    name: String,
    #[command(flatten)]
    terms: Terms,
}

impl Add {
    /// Runs it.
    pub fn run(self, cluster: &ClusterFlags) -> CliResult {
        self.terms.check()?;
        block_on(self.ban(cluster))
    }

    async fn ban(self, cluster: &ClusterFlags) -> CliResult {
        let bans = Bans::at(cluster).await?;
        let now = if self.terms.is_relative() { bans.now().await? } else { Timestamp::UNIX_EPOCH };
        let end = self.terms.end(now);
        let jobs = self.addresses.iter().map(|address| {
            let (bans, name, set) =
                (bans.clone(), object_name(&self.name, *address, &self.terms), &self.name);
            let spec = self.terms.spec(&[*address], end);
            async move { bans.apply(&name, set, &spec).await.map(|()| (address, name, spec.expires_at)) }
        });
        let mut done = stream::iter(jobs).buffered(AT_ONCE);
        while let Some((address, name, end)) = done.try_next().await? {
            let end = end.map_or("until it is removed".to_owned(), |end| format!("until {end}"));
            let (word, name) = (paint(BAD, "banned"), paint(FAINT, format!("({name})")));
            output::answer(&format!("{word} {} {end} {name}\n", paint(NAME, address)))?;
        }
        Ok(Exit::Done)
    }
}

/// The name of the object that bans an address.
pub fn object_name(set: &str, address: Banned, terms: &Terms) -> String {
    format!("{set}-{}{}", address.in_name(), terms.in_name())
}

/// A start of names, which is a label too: RFC 1123, and short enough for an address behind it.
pub fn name(text: &str) -> Result<String, String> {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let fits = text.len() <= 40
        && text.chars().all(inside)
        && edge(text.chars().next())
        && edge(text.chars().last());
    let wrong = || format!("{text:?} is no name: 1 to 40 of a-z, 0-9 and -, not at the ends");
    if fits { Ok(text.to_owned()) } else { Err(wrong()) }
}

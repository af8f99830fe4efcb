//! `podwall ban import`: a plain list of addresses as a set of bans, written in chunks.
//!
//! Reading a list again changes only what changed: an address always goes to the same object of a set of the same
//! size, and objects that are no longer needed go last, so that no address is open meanwhile.
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::add::{self, AT_ONCE};
use super::address::Banned;
use super::objects::Bans;
use super::terms::Terms;
use crate::cli::cluster::{ClusterFlags, block_on};
use crate::cli::output::{self, BAD, NAME, NOTE, paint};
use crate::cli::{CliError, CliResult, Exit};

/// What one object may hold (decision B2).
const MOST: usize = 1000;
/// What an object holds on average at most, which leaves room for chance.
const USUAL: usize = 700;
/// Lines told one by one before only their number is.
const TOLD: usize = 5;

/// Ban every address of a list; read it again to bring the bans up to date
#[derive(Debug, Args)]
#[command(long_about = "Ban every address of a list; read it again to bring the bans up to date.\n\n\
        One address or CIDR a line; what follows it, and what follows # or ; anywhere, is left out. The addresses go \
        into Ban objects of at most 1,000, named NAME-0 and so on. Addresses that left the list are lifted when it is \
        read again under the same --name. When it was interrupted, repeat it.")]
pub struct Import {
    /// The list; `-` for standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Name of the set
    #[arg(long, value_name = "NAME", default_value = "import", value_parser = add::name)]
    name: String,
    /// Leave out lines that cannot be read, instead of doing nothing
    #[arg(long)]
    skip_bad: bool,
    #[command(flatten)]
    terms: Terms,
}

impl Import {
    /// Runs it.
    pub fn run(self, cluster: &ClusterFlags) -> CliResult {
        self.terms.check()?;
        let (addresses, bad) = read(&text(&self.file)?);
        self.complain(&bad)?;
        if addresses.is_empty() {
            // An empty download must not lift a whole set.
            return Err(CliError::Usage(format!(
                "{} lists no address; to lift the set: podwall ban remove --all --name {}",
                self.file.display(),
                self.name
            )));
        }
        block_on(self.write(cluster, &addresses))
    }

    fn complain(&self, bad: &[String]) -> Result<(), CliError> {
        if bad.is_empty() {
            return Ok(());
        }
        let told = bad.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
        let more = bad.len().saturating_sub(TOLD);
        let words = if more == 0 { told } else { format!("{told}; and {more} more") };
        if self.skip_bad {
            anstream::eprintln!("{} left out: {words}", paint(NOTE, "warning:"));
            return Ok(());
        }
        let doing = format!("reading {} (--skip-bad leaves such lines out)", self.file.display());
        Err(CliError::Input { doing, source: words.into() })
    }

    async fn write(self, cluster: &ClusterFlags, addresses: &BTreeSet<Banned>) -> CliResult {
        let bans = Bans::at(cluster).await?;
        let now = if self.terms.is_relative() { bans.now().await? } else { Timestamp::UNIX_EPOCH };
        let end = self.terms.end(now);
        let before = bans.list(Some(&self.name)).await?;
        let chunks = self.objects(addresses);
        let bar = bar(addresses.len());
        let jobs = chunks.iter().map(|(name, chunk)| {
            let (bans, set, spec) = (bans.clone(), &self.name, self.terms.spec(chunk, end));
            async move { bans.apply(name, set, &spec).await.map(|()| chunk.len()) }
        });
        let mut done = stream::iter(jobs).buffer_unordered(AT_ONCE);
        while let Some(written) = done.try_next().await? {
            bar.inc(written as u64);
        }
        drop(done);
        let mut gone = 0;
        for name in before.iter().map(|ban| ban.name_any()).filter(|name| !chunks.contains_key(name)) {
            gone += usize::from(bans.delete(&name).await?);
        }
        bar.finish_and_clear();
        let (word, name, objects) = (paint(BAD, "banned"), paint(NAME, &self.name), chunks.len());
        let lifted = if gone == 0 { String::new() } else { format!("; {gone} objects of before are gone") };
        output::answer(&format!(
            "{word} {} addresses in {objects} objects of {name}{lifted}\n",
            addresses.len()
        ))?;
        Ok(Exit::Done)
    }

    /// What each object holds, by its name.
    fn objects(&self, addresses: &BTreeSet<Banned>) -> BTreeMap<String, Vec<Banned>> {
        let numbered = chunks(addresses).into_iter().enumerate().filter(|(_, chunk)| !chunk.is_empty());
        numbered.map(|(number, chunk)| (format!("{}-{number}", self.name), chunk)).collect()
    }
}

fn text(file: &Path) -> Result<String, CliError> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| CliError::io("reading standard input", error))?;
        return Ok(text);
    }
    let doing = || format!("reading {}", file.display());
    std::fs::read_to_string(file).map_err(|error| CliError::Input { doing: doing(), source: Box::new(error) })
}

/// The addresses of a list, each once, and what is wrong with the other lines.
fn read(text: &str) -> (BTreeSet<Banned>, Vec<String>) {
    let (mut addresses, mut bad) = (BTreeSet::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let listed = line.split(['#', ';']).next().unwrap_or_default();
        let Some(word) = listed.split_whitespace().next() else { continue };
        match word.trim_end_matches(',').parse() {
            Ok(address) => drop(addresses.insert(address)),
            Err(error) => bad.push(format!("line {}: {error}", index + 1)),
        }
    }
    (addresses, bad)
}

/// A power of two of chunks, so that a list that grows past a limit splits chunks instead of dealing all anew.
fn chunks(addresses: &BTreeSet<Banned>) -> Vec<Vec<Banned>> {
    let mut count = addresses.len().div_ceil(USUAL).next_power_of_two();
    loop {
        let mut chunks = vec![Vec::new(); count];
        for address in addresses {
            let index = digest(*address) as usize & (count - 1);
            if let Some(chunk) = chunks.get_mut(index) {
                chunk.push(*address);
            }
        }
        if chunks.iter().all(|chunk| chunk.len() <= MOST) {
            return chunks;
        }
        count *= 2;
    }
}

/// FNV-1a, folded: the same on every machine and in every version, which the standard hasher does not promise.
fn digest(address: Banned) -> u32 {
    let hash = address.to_string().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as u32
}

/// On standard error, and only where somebody looks.
fn bar(addresses: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} addresses, {eta} left");
    ProgressBar::new(addresses as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(count: u32) -> BTreeSet<Banned> {
        (0..count)
            .map(|number| std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string().parse().unwrap())
            .collect()
    }

    #[test]
    fn lists_of_all_sorts_are_read() {
        let text = "# a list\n203.0.113.66\n 1.10.16.0/20 ; SBL256894\n\n2001:db8::1 # why\n203.0.113.66,\n";
        let (addresses, bad) = read(text);
        let read: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!((read.join(" "), bad), ("1.10.16.0/20 203.0.113.66 2001:db8::1".to_owned(), Vec::new()));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let (_, bad) = read("10.0.0.1\n10.0.0.1/8\nexample.test\n");
        assert_eq!(bad.len(), 2);
        assert!(bad.concat().starts_with("line 2: 10.0.0.1/8 has bits beyond its prefix"), "{bad:?}");
    }

    #[test]
    fn every_address_is_in_one_chunk_and_no_chunk_is_too_large() {
        for count in [1, 700, 701, 5_000, 100_000] {
            let (addresses, chunks) = (many(count), chunks(&many(count)));
            assert!(chunks.iter().all(|chunk| chunk.len() <= MOST), "{count}");
            assert_eq!(chunks.concat().into_iter().collect::<BTreeSet<_>>(), addresses);
        }
    }

    #[test]
    fn one_more_address_changes_one_chunk() {
        let (before, after) = (chunks(&many(5_000)), chunks(&many(5_001)));
        assert_eq!(before.iter().zip(&after).filter(|(before, after)| before != after).count(), 1);
    }
}

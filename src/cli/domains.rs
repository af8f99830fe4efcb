//! `podwall domains`: what the pods of this node asked for by name, and what is open because of it.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use podwall_ruleset::Key;
use serde::Serialize;

use super::output::{self, BAD, FAINT, GOOD, NAME, NOTE, paint};
use super::{CliError, CliResult, Exit, OutputFormat};
use crate::dns::ledger::{Entry, Outcome, SOCKET};

/// List the names that pods of this node asked for, and what is open because of them
#[derive(Debug, Args)]
#[command(
    long_about = "List the names that pods of this node asked for, and what is open because of them.\n\n\
        Asks the DNS proxy of this node, so it has to run there, as root. Packets are those of new connections; the \
        kernel counts them for each address. A name without a policy opens nothing; the allowed one that comes closest \
        is told beside it.",
    after_help = "Examples:\n  sudo podwall domains\n  sudo podwall domains shop/web --output json"
)]
pub struct Domains {
    /// Only this pod
    #[arg(value_name = "NAMESPACE/POD")]
    pod: Option<String>,
    /// Where the proxy keeps its socket
    #[arg(long, value_name = "DIR", default_value = "/run/podwall")]
    state_dir: PathBuf,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: OutputFormat,
}

/// One address of one name, or a name without any.
#[derive(Debug, Serialize)]
pub struct Row {
    pod: String,
    name: String,
    queries: u64,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packets: Option<u64>,
}

impl Domains {
    /// Runs it.
    pub fn run(self) -> CliResult {
        let mut rows = seen(&self.state_dir)?;
        rows.retain(|row| self.pod.as_ref().is_none_or(|pod| *pod == row.pod));
        match self.output {
            OutputFormat::Json => output::answer_json(&rows)?,
            OutputFormat::Text if rows.is_empty() => {
                output::answer("no pod of this node asked for a name\n")?
            }
            OutputFormat::Text => output::answer(&table(&rows))?,
        }
        Ok(Exit::Done)
    }
}

/// All there is to tell, asked of the proxy that keeps its socket there, and of the kernel.
pub fn seen(state_dir: &Path) -> Result<Vec<Row>, CliError> {
    let socket = state_dir.join(SOCKET);
    let doing = format!("asking the DNS proxy at {} (is podwall dns running?)", socket.display());
    let talk = || -> io::Result<Vec<Entry>> {
        let mut stream = UnixStream::connect(&socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        serde_json::from_str(&text).map_err(io::Error::other)
    };
    let entries = talk().map_err(|error| CliError::io(doing, error))?;
    Ok(rows(entries, &hits()))
}

/// Packets that met each pair, whichever packet filter holds it; none where the kernel does not tell.
fn hits() -> BTreeMap<(IpAddr, IpAddr), u64> {
    let mut counted = BTreeMap::new();
    let (native, fallback) = (podwall_nftables::hits(), podwall_iptables::hits());
    for hit in native.unwrap_or_default().into_iter().chain(fallback.unwrap_or_default()) {
        if let Key::Pair(pod, address) = hit.key {
            *counted.entry((pod, address)).or_default() += hit.packets;
        }
    }
    counted
}

fn rows(entries: Vec<Entry>, hits: &BTreeMap<(IpAddr, IpAddr), u64>) -> Vec<Row> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let mut rows = Vec::new();
    for entry in entries {
        let row = |address, seconds_left, packets| Row {
            pod: entry.pod.clone(),
            name: entry.name.clone(),
            queries: entry.queries,
            outcome: entry.outcome,
            nearest: entry.nearest.clone(),
            address,
            seconds_left,
            packets,
        };
        if entry.addresses.is_empty() {
            rows.push(row(None, None, None));
        }
        for open in &entry.addresses {
            let left = open.ends.saturating_sub(now) / 1000;
            let packets = hits.get(&(open.pod, open.address)).copied().unwrap_or_default();
            rows.push(row(Some(open.address), Some(left), Some(packets)));
        }
    }
    rows
}

/// For people.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut last = None;
    for row in rows {
        let this = Some((&row.pod, &row.name));
        if last != this {
            let outcome = match row.outcome {
                Outcome::Open => paint(GOOD, "open"),
                Outcome::Unresolved => paint(NOTE, "has no address"),
                Outcome::Unlisted => paint(BAD, "no policy lists it"),
                Outcome::Refused => paint(BAD, "refused"),
            };
            let nearest =
                row.nearest.as_ref().map(|nearest| format!(" (nearest: {nearest})")).unwrap_or_default();
            let asked = paint(FAINT, format!("asked {}", counted(row.queries, "time")));
            let _ = writeln!(text, "{} {} {outcome}{nearest}  {asked}", row.pod, paint(NAME, &row.name));
        }
        if let (Some(address), Some(left), Some(packets)) = (row.address, row.seconds_left, row.packets) {
            let packets = counted(packets, "packet");
            let _ = writeln!(text, "    {address:<39} {left:>6} s  {packets}");
        }
        last = this;
    }
    text
}

fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

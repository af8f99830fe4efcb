//! `podwall ban list`: what is banned, for people and for programs.
use clap::Args;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Row, Table, presets};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use podwall_crd::ban::{Ban, BanMode, BanPort};
use serde::Serialize;

use super::add;
use super::address::Banned;
use super::objects::Bans;
use crate::cli::cluster::{ClusterFlags, block_on};
use crate::cli::output;
use crate::cli::{CliResult, Exit, OutputFormat};

/// List bans, or those that concern an address
#[derive(Debug, Args)]
#[command(
    long_about = "List bans, or those that concern an address.\n\nWith addresses, only bans that list or cover one of \
        them are shown, and the exit code is 1 if there are none."
)]
pub struct List {
    /// Only bans that list these or cover them
    #[arg(value_name = "ADDRESS")]
    addresses: Vec<Banned>,
    /// Only bans made under this name
    #[arg(long, value_name = "NAME", value_parser = add::name)]
    name: Option<String>,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: OutputFormat,
}

/// One ban, as it is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: String,
    addresses: Vec<String>,
    direction: String,
    ports: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    expired: bool,
    action: String,
    mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enforced_on: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hits: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

impl List {
    /// Runs it.
    pub fn run(self, cluster: &ClusterFlags) -> CliResult {
        block_on(self.list(cluster))
    }

    async fn list(self, cluster: &ClusterFlags) -> CliResult {
        let bans = Bans::at(cluster).await?;
        let now = bans.now().await?;
        let mut found = bans.list(self.name.as_deref()).await?;
        found.retain(|ban| concerns(ban, &self.addresses));
        let entries: Vec<Entry> = found.iter().map(|ban| Entry::of(ban, now)).collect();
        match self.output {
            OutputFormat::Json => output::answer_json(&entries)?,
            OutputFormat::Text if entries.is_empty() => output::answer("nothing is banned\n")?,
            OutputFormat::Text => output::answer(&table(&entries, now))?,
        }
        let asked_and_none = !self.addresses.is_empty() && entries.is_empty();
        Ok(if asked_and_none { Exit::Negative } else { Exit::Done })
    }
}

fn concerns(ban: &Ban, addresses: &[Banned]) -> bool {
    let listed = || ban.spec.addresses.iter().filter_map(|text| text.parse::<Banned>().ok());
    addresses.is_empty() || listed().any(|listed| addresses.iter().any(|asked| listed.covers(*asked)))
}

impl Entry {
    fn of(ban: &Ban, now: Timestamp) -> Self {
        let (spec, status) = (&ban.spec, ban.status.clone().unwrap_or_default());
        let expires_at = spec.expires_at.clone().or(status.expires_at);
        let end = expires_at.as_deref().and_then(|end| end.parse::<Timestamp>().ok());
        Self {
            name: ban.name_any(),
            addresses: spec.addresses.clone(),
            direction: format!("{:?}", spec.direction),
            ports: spec.ports.iter().flatten().map(port).collect(),
            expired: end.is_some_and(|end| end <= now),
            expires_at,
            action: format!("{:?}", spec.action),
            mode: format!("{:?}", spec.mode),
            reason: spec.reason.clone(),
            enforced_on: status.enforced_on,
            hits: status.hits,
            last_error: status.last_error.map(|error| format!("{}: {}", error.node, error.message)),
        }
    }

    fn row(&self, now: Timestamp) -> Row {
        let first = self.addresses.first().cloned().unwrap_or_default();
        let more = match self.addresses.len() {
            0 | 1 => String::new(),
            many => format!(" +{}", many - 1),
        };
        let name = if self.mode == format!("{:?}", BanMode::Audit) {
            Cell::new(format!("{} (audit)", self.name)).fg(Color::Yellow)
        } else {
            Cell::new(&self.name)
        };
        let end = Cell::new(self.end(now));
        Row::from([
            Cell::new(format!("{first}{more}")).fg(Color::Cyan),
            name,
            Cell::new(format!("{} {}", self.direction, self.ports.join(" ")).trim_end()),
            if self.expired { end.add_attribute(Attribute::Dim) } else { end },
            self.enforced(),
            Cell::new(self.hits.map(|hits| hits.to_string()).unwrap_or_default()),
            Cell::new(self.reason.clone().unwrap_or_default()),
        ])
    }

    fn end(&self, now: Timestamp) -> String {
        let Some(text) = &self.expires_at else { return "never".to_owned() };
        match text.parse::<Timestamp>() {
            Ok(_) if self.expired => "expired".to_owned(),
            Ok(end) => format!("in {}", rough(end.duration_since(now))),
            Err(_) => text.clone(),
        }
    }

    fn enforced(&self) -> Cell {
        match (&self.last_error, &self.enforced_on) {
            (Some(error), on) => {
                Cell::new(format!("{} {error}", on.clone().unwrap_or_default()).trim_start()).fg(Color::Red)
            }
            (None, Some(on)) => Cell::new(on).fg(Color::Green),
            // No operator, or it has not counted yet: agents enforce all the same.
            (None, None) => Cell::new("not counted").add_attribute(Attribute::Dim),
        }
    }
}

fn table(entries: &[Entry], now: Timestamp) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .enforce_styling();
    let heads = ["FIRST ADDRESS", "BAN", "WAY", "ENDS", "ENFORCED", "HITS", "REASON"];
    table.set_header(heads.map(|head| Cell::new(head).add_attribute(Attribute::Bold)));
    for entry in entries {
        table.add_row(entry.row(now));
    }
    format!("{}\n", table.trim_fmt())
}

fn port(port: &BanPort) -> String {
    let BanPort { protocol, local_port, local_end_port, remote_port, remote_end_port } = port;
    let range = |first: &Option<i32>, last: &Option<i32>| match (first, last) {
        (None, _) => None,
        (Some(first), None) => Some(first.to_string()),
        (Some(first), Some(last)) => Some(format!("{first}-{last}")),
    };
    let protocol = protocol.to_lowercase();
    match (range(local_port, local_end_port), range(remote_port, remote_end_port)) {
        (None, None) => protocol,
        (Some(local), None) => format!("{protocol}/{local}"),
        (None, Some(remote)) => format!("{protocol}/remote:{remote}"),
        (Some(local), Some(remote)) => format!("{protocol}/{local} remote:{remote}"),
    }
}

/// The two largest units.
fn rough(left: SignedDuration) -> String {
    let seconds = left.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(spec: serde_json::Value) -> Ban {
        let object = serde_json::json!({
            "apiVersion": "podwall.dev/v1alpha1", "kind": "Ban", "metadata": {"name": "x"}, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_end_is_told_by_the_clock_of_the_cluster() {
        let now = time("2026-12-01T12:00:00Z");
        let end = |spec| output_of(&ban(spec), now);
        let until = |text: &str| serde_json::json!({"addresses": ["10.0.0.1"], "expiresAt": text});
        assert_eq!(end(until("2026-12-01T12:59:30Z")), "in 59m30s");
        assert_eq!(end(until("2026-12-08T13:00:00Z")), "in 7d1h");
        assert!(end(until("2026-12-01T11:00:00Z")).contains("expired"));
        assert_eq!(end(serde_json::json!({"addresses": ["10.0.0.1"]})), "never");
    }

    fn output_of(ban: &Ban, now: Timestamp) -> String {
        Entry::of(ban, now).end(now)
    }

    #[test]
    fn a_ban_concerns_an_address_inside_its_cidr() {
        let ban = ban(serde_json::json!({"addresses": ["10.0.0.0/8", "fd00::1"]}));
        let concerned = |text: &str| concerns(&ban, &[text.parse().unwrap()]);
        assert!(concerned("10.1.2.3") && concerned("fd00::1"));
        assert!(!concerned("11.0.0.1") && !concerned("fd00::2"));
    }
}

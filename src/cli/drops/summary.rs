//! Who is refused most, drawn anew every second.
use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use crate::cli::CliError;
use crate::cli::output::{HEAD, answer, paint};
use crate::drops::line::Line;

/// Lines drawn.
const SHOWN: usize = 20;
/// Talkers kept.
const MOST: usize = 10_000;

/// Everything seen so far.
#[derive(Debug)]
pub(super) struct Summary {
    every: Duration,
    drawn: Instant,
    talkers: HashMap<Talker, u64>,
    packets: u64,
    beyond: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Talker {
    from: String,
    to: String,
    service: String,
    by: String,
}

impl Summary {
    /// Nothing was seen yet.
    pub(super) fn new(every: Duration) -> Self {
        Self { every, drawn: Instant::now(), talkers: HashMap::new(), packets: 0, beyond: 0 }
    }

    /// How long until it is drawn again.
    pub(super) fn patience(&self) -> Duration {
        self.every.saturating_sub(self.drawn.elapsed())
    }

    /// One more drop.
    pub(super) fn add(&mut self, line: &Line) {
        self.packets += line.packets;
        let by = [line.policies.as_slice(), &line.bans].concat().join(", ");
        let talker = Talker {
            from: line.source.label(),
            to: line.destination.label(),
            service: line.service(),
            by: if by.is_empty() { line.reason.clone() } else { by },
        };
        if self.talkers.len() < MOST || self.talkers.contains_key(&talker) {
            *self.talkers.entry(talker).or_default() += line.packets;
        } else {
            self.beyond += line.packets;
        }
    }

    /// Draws, if it is time.
    pub(super) fn draw_if_due(&mut self) -> Result<(), CliError> {
        if self.patience().is_zero() { self.draw() } else { Ok(()) }
    }

    /// Draws.
    pub(super) fn draw(&mut self) -> Result<(), CliError> {
        self.drawn = Instant::now();
        // Home, and nothing below.
        let again = if std::io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "" };
        answer(&format!("{again}{}", self.picture()))
    }

    fn picture(&self) -> String {
        let mut talkers: Vec<(&Talker, &u64)> = self.talkers.iter().collect();
        talkers.sort_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["RECORDS", "FROM", "TO", "SERVICE", "BY"]);
        for (talker, packets) in talkers.iter().take(SHOWN) {
            let Talker { from, to, service, by } = talker;
            let count = Cell::new(packets).set_alignment(CellAlignment::Right);
            table.add_row([count, Cell::new(from), Cell::new(to), Cell::new(service), Cell::new(by)]);
        }
        let more = talkers.len().saturating_sub(SHOWN);
        let rest = if more > 0 { format!("and {more} more\n") } else { String::new() };
        let head = format!("{} drops told of, {} kinds", self.packets, talkers.len());
        format!("{}\n{}\n{rest}", paint(HEAD, head), table.trim_fmt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(from: &str, packets: u64) -> Line {
        serde_json::from_value(serde_json::json!({
            "time": "2026-11-21T08:15:02Z", "node": "n1", "verdict": "dropped", "reason": "policy",
            "protocol": "TCP", "chain": "i4_x", "why": "", "policies": ["shop/web-in"], "packets": packets,
            "source": {"address": from, "kind": "stranger"},
            "destination": {"address": "10.0.0.1", "port": 80, "kind": "pod", "namespace": "shop", "name": "web"},
        }))
        .unwrap()
    }

    #[test]
    fn who_sends_most_stands_first() {
        let mut summary = Summary::new(Duration::from_secs(1));
        for (from, packets) in [("192.0.2.1", 1), ("192.0.2.2", 5), ("192.0.2.1", 1)] {
            summary.add(&line(from, packets));
        }
        let picture = anstream::adapter::strip_str(&summary.picture()).to_string();
        let lines: Vec<&str> = picture.lines().collect();
        assert_eq!(lines[0], "7 drops told of, 2 kinds");
        assert!(
            lines[2].contains("5") && lines[2].contains("192.0.2.2") && lines[2].contains("shop/web"),
            "{picture}"
        );
        assert!(
            lines[3].contains("2") && lines[3].contains("192.0.2.1") && lines[3].contains("TCP/80"),
            "{picture}"
        );
    }
}

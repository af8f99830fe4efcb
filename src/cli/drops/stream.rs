//! One drop, one row: a table that never ends, so its columns are as wide as they had to be so far.
use std::io::IsTerminal as _;

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Row, Table, Width, presets};

use crate::cli::output::{NOTE, answer, paint};
use crate::cli::{CliError, OutputFormat};
use crate::drops::line::{EndLine, Line};

/// What the columns are called.
const HEADS: [&str; 7] = ["TIME", "NODE", "VERDICT", "FROM", "TO", "SERVICE", "WHY"];
/// Rows until a terminal is told the heads again: they have scrolled away by then.
const AGAIN: u64 = 20;
/// One name must not push all rows after it aside for ever.
const WIDEST: u16 = 64;
/// Between two columns.
const GAP: u16 = 2;

/// Everything printed so far.
#[derive(Debug, Default)]
pub(super) struct Stream {
    rows: u64,
    widths: Vec<u16>,
}

impl Stream {
    /// Prints one.
    pub(super) fn print(&mut self, mut line: Line, format: OutputFormat) -> Result<(), CliError> {
        match format {
            OutputFormat::Text => {
                let every = std::io::stdout().is_terminal().then_some(AGAIN);
                answer(&self.row(&line, every))
            }
            OutputFormat::Json => {
                line.sample = None;
                let text = serde_json::to_string(&line).map_err(|error| CliError::Io {
                    doing: "writing JSON".to_owned(),
                    source: Box::new(error),
                })?;
                answer(&format!("{text}\n"))
            }
        }
    }

    /// The next row, under the heads if it is the first or the first of so many.
    fn row(&mut self, line: &Line, every: Option<u64>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.enforce_styling().set_header(HEADS.map(|head| Cell::new(head).add_attribute(Attribute::Bold)));
        table.add_row(cells(line)).style_text_only();
        self.widen(&mut table);
        let headed = self.rows == 0 || every.is_some_and(|every| self.rows.is_multiple_of(every));
        self.rows += 1;
        let rows = table.lines().skip(usize::from(!headed));
        rows.map(|row| format!("{}\n", row.trim_end())).collect()
    }

    fn widen(&mut self, table: &mut Table) {
        let needed = table.column_max_content_widths();
        self.widths.resize(needed.len(), 0);
        // What is last pushes nothing aside.
        let last = needed.len().saturating_sub(1);
        for ((index, width), needed) in self.widths.iter_mut().enumerate().zip(needed) {
            *width = if index == last { 0 } else { needed.min(WIDEST).max(*width) };
            if let Some(column) = table.column_mut(index) {
                let gap = if index == last { 0 } else { GAP };
                column.set_padding((0, gap));
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width + gap)));
            }
        }
    }
}

/// Says that some were not shown.
pub(super) fn missed(number: u64) {
    anstream::eprintln!("{} {number} more came too fast to be shown", paint(NOTE.bold(), "note:"));
}

fn cells(line: &Line) -> Row {
    let clock = line.time.split(['T', 'Z']).nth(1).and_then(|clock| clock.get(..12.min(clock.len())));
    let times = if line.packets > 1 { format!(" x{}", line.packets) } else { String::new() };
    let (verdict, color) =
        if line.verdict == "dropped" { ("dropped", Color::Red) } else { ("would drop", Color::Yellow) };
    Row::from([
        Cell::new(clock.unwrap_or_default()).add_attribute(Attribute::Dim),
        Cell::new(&line.node),
        Cell::new(format!("{verdict}{times}")).fg(color),
        Cell::new(end(&line.source)).fg(Color::Cyan),
        Cell::new(end(&line.destination)).fg(Color::Cyan),
        Cell::new(line.service()),
        Cell::new(&line.why),
    ])
}

fn end(end: &EndLine) -> String {
    let label = end.label();
    if label == end.address { label } else { format!("{label} ({})", end.address) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(from: &str) -> Line {
        serde_json::from_value(serde_json::json!({
            "time": "2026-11-21T08:15:02.123456789Z", "node": "n1", "verdict": "dropped", "reason": "policy",
            "protocol": "TCP", "chain": "i4_x", "why": "shop/web is isolated for ingress by shop/web-in",
            "source": {"address": from, "kind": "stranger"},
            "destination": {"address": "10.0.0.1", "port": 8443, "kind": "pod", "namespace": "shop", "name": "web"},
        }))
        .unwrap()
    }

    fn printed(lines: &[&str], every: Option<u64>) -> String {
        let mut stream = Stream::default();
        let rows: String = lines.iter().map(|from| stream.row(&line(from), every)).collect();
        anstream::adapter::strip_str(&rows).to_string()
    }

    #[test]
    fn rows_for_people_say_who_to_whom_what_and_why_and_stay_as_wide_as_they_got() {
        let wanted = "\
TIME          NODE  VERDICT  FROM       TO                   SERVICE   WHY
08:15:02.123  n1    dropped  192.0.2.7  shop/web (10.0.0.1)  TCP/8443  shop/web is isolated for ingress by shop/web-in
08:15:02.123  n1    dropped  2001:db8::7777  shop/web (10.0.0.1)  TCP/8443  shop/web is isolated for ingress by shop/web-in
08:15:02.123  n1    dropped  192.0.2.7       shop/web (10.0.0.1)  TCP/8443  shop/web is isolated for ingress by shop/web-in
";
        assert_eq!(printed(&["192.0.2.7", "2001:db8::7777", "192.0.2.7"], None), wanted);
    }

    #[test]
    fn the_heads_come_again_where_they_scroll_away_and_only_there() {
        let heads = |every| printed(&["192.0.2.7"; 5], every).matches("VERDICT").count();
        assert_eq!((heads(None), heads(Some(2))), (1, 3));
    }

    #[test]
    fn a_very_long_name_is_shown_whole_and_moves_only_its_own_row() {
        let long = "x".repeat(200);
        let rows = printed(&[&long, "192.0.2.7"], None);
        let row = |number| rows.lines().nth(number).unwrap_or_default();
        assert!(row(1).contains(&long) && row(2).len() < 200, "{rows}");
    }
}

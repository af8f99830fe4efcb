//! The table.
use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use podwall_shapes::Samples;

use crate::measure::shown;

/// Times of one half of a deed.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    title: &'static str,
    engine: Option<Samples>,
    times: Vec<Option<Samples>>,
}

impl Row {
    pub(crate) const fn new(title: &'static str, engine: Option<Samples>) -> Self {
        Self { title, engine, times: Vec::new() }
    }

    /// What is done.
    pub(crate) const fn title(&self) -> &'static str {
        self.title
    }

    /// The next contender's times; `None`: it is out.
    pub(crate) fn push(&mut self, times: Option<Samples>) {
        self.times.push(times);
    }

    /// podwall's own time in seconds: what all others are compared with.
    fn ours(&self) -> Option<f64> {
        Some(self.times.first()?.as_ref()?.median()?.as_secs_f64())
    }

    fn cells(&self) -> Vec<String> {
        let counted = |samples: &Option<Samples>| {
            let count = samples.as_ref().map(|samples| format!("\nn {}", samples.len())).unwrap_or_default();
            format!("{}{count}", shown(samples))
        };
        let mut cells = vec![self.title.to_owned(), counted(&self.engine)];
        for (index, samples) in self.times.iter().enumerate() {
            let median = samples.as_ref().and_then(Samples::median);
            cells.push(match (index, median, self.ours()) {
                (1.., Some(median), Some(ours)) => {
                    let count = samples.as_ref().map(Samples::len).unwrap_or_default();
                    format!("{}\n×{} n {count}", shown(samples), factor(median.as_secs_f64() / ours))
                }
                _ => counted(samples),
            });
        }
        cells
    }
}

fn factor(factor: f64) -> String {
    if factor < 10.0 { format!("{factor:.1}") } else { format!("{factor:.0}") }
}

/// Rows, and why a contender is missing.
#[derive(Debug)]
pub(crate) struct Report {
    table: Table,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn new<'a>(titles: impl Iterator<Item = &'a str>) -> Self {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["change", "engine"].into_iter().chain(titles));
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        Self { table, notes: Vec::new() }
    }

    pub(crate) fn extend(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            self.table.add_row(row.cells());
        }
    }

    pub(crate) fn note(&mut self, title: &str, reason: &str) {
        self.notes.push(format!("{title}: {reason}"));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.table)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

//! Who reaches whom: what was seen, what the policies say, and how both are drawn.
//!
//! Pure. A cell is one source, one destination port, both address families.
use std::fmt::Write as _;

use anstyle::Style;
use podwall_ruleset::Family;
use serde::Serialize;

use crate::cli::output::{BAD, FAINT, GOOD, HEAD, NAME, NOTE, paint};

/// Outcome of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// An answer came back.
    Open,
    /// Nothing came back in time.
    Blocked,
}

/// One source to one destination; a family that was not probed is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Cell {
    /// Over IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Reach>,
    /// Over IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Reach>,
}

impl Cell {
    /// Notes the outcome for a family.
    pub const fn note(&mut self, family: Family, reach: Reach) {
        match family {
            Family::V4 => self.ipv4 = Some(reach),
            Family::V6 => self.ipv6 = Some(reach),
        }
    }

    /// Outcomes noted.
    pub fn probes(&self) -> usize {
        usize::from(self.ipv4.is_some()) + usize::from(self.ipv6.is_some())
    }

    /// Outcomes that equal the other cell's.
    fn agreeing(&self, other: &Self) -> usize {
        let same = |a: Option<Reach>, b| usize::from(a.is_some() && a == b);
        same(self.ipv4, other.ipv4) + same(self.ipv6, other.ipv6)
    }

    /// One character and its weight: open, blocked, only one family open, or not probed.
    pub const fn glyph(&self) -> (&'static str, Style) {
        match (self.ipv4, self.ipv6) {
            (None, None) => ("-", FAINT),
            (Some(Reach::Open), None | Some(Reach::Open)) | (None, Some(Reach::Open)) => ("✓", GOOD),
            (Some(Reach::Blocked), None | Some(Reach::Blocked)) | (None, Some(Reach::Blocked)) => ("✗", BAD),
            (Some(Reach::Open), Some(Reach::Blocked)) => ("4", NOTE),
            (Some(Reach::Blocked), Some(Reach::Open)) => ("6", NOTE),
        }
    }
}

/// Names of the rows and columns, which no step changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// Sources: `shop/web`.
    pub rows: Vec<String>,
    /// Destinations.
    pub columns: Vec<Column>,
}

/// A destination port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// First line of the heading: `web`.
    pub name: String,
    /// Second line: `8080`.
    pub port: String,
    /// Everything about it: `shop/web:8080/tcp`.
    pub full: String,
}

/// A table of cells, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    cells: Vec<Vec<Cell>>,
}

/// How a matrix compares with what the policies say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Agreement {
    /// Probes that ended as expected.
    pub agreed: usize,
    /// Probes made.
    pub probes: usize,
}

impl Agreement {
    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self { agreed: self.agreed + other.agreed, probes: self.probes + other.probes }
    }

    /// Every probe ended as expected.
    pub const fn complete(self) -> bool {
        self.agreed == self.probes
    }
}

impl Matrix {
    /// A table of empty cells for the frame.
    pub fn empty(frame: &Frame) -> Self {
        Self { cells: vec![vec![Cell::default(); frame.columns.len()]; frame.rows.len()] }
    }

    /// Notes one outcome; a place outside of the frame is not noted.
    pub fn note(&mut self, (row, column): (usize, usize), family: Family, reach: Reach) {
        if let Some(cell) = self.cells.get_mut(row).and_then(|row| row.get_mut(column)) {
            cell.note(family, reach);
        }
    }

    /// Every cell with its place.
    pub fn iter(&self) -> impl Iterator<Item = ((usize, usize), Cell)> {
        let row = |(at, row): (usize, &Vec<Cell>)| {
            row.clone().into_iter().enumerate().map(move |(column, cell)| ((at, column), cell))
        };
        self.cells.iter().enumerate().flat_map(row)
    }

    /// The cell at a place.
    pub fn get(&self, (row, column): (usize, usize)) -> Cell {
        self.cells.get(row).and_then(|row| row.get(column)).copied().unwrap_or_default()
    }

    /// Places where two tables of one frame differ.
    pub fn differing(&self, other: &Self) -> Vec<(usize, usize)> {
        self.iter().filter(|(at, cell)| *cell != other.get(*at)).map(|(at, _)| at).collect()
    }

    /// Counts the probes that ended as expected.
    pub fn agreement(&self, expected: &Self) -> Agreement {
        self.iter().fold(Agreement::default(), |sum, (at, cell)| Agreement {
            agreed: sum.agreed + cell.agreeing(&expected.get(at)),
            probes: sum.probes + cell.probes(),
        })
    }
}

/// A matrix with what surrounds it on paper.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// Names.
    pub frame: &'a Frame,
    /// What was seen.
    pub seen: &'a Matrix,
    /// What the policies say; a cell that differs is marked.
    pub expected: &'a Matrix,
    /// The step before; a cell that changed is set in brackets.
    pub before: Option<&'a Matrix>,
}

/// Characters of a column.
const WIDTH: usize = 5;

impl Picture<'_> {
    /// The table as text with colours.
    pub fn draw(&self) -> String {
        let margin = self.frame.rows.iter().map(String::len).max().unwrap_or_default() + 2;
        let mut text = String::new();
        let columns = &self.frame.columns;
        let heading = |pick: fn(&Column) -> &String, style: Style| {
            let names: String = columns.iter().map(|column| format!("{:^WIDTH$}", pick(column))).collect();
            format!("{:margin$}{}\n", "", paint(style, names.trim_end()))
        };
        text.push_str(&heading(|column| &column.name, HEAD));
        text.push_str(&heading(|column| &column.port, FAINT));
        for (at, name) in self.frame.rows.iter().enumerate() {
            let cells: String = (0..columns.len()).map(|column| self.cell((at, column))).collect();
            let _ = writeln!(text, "{}{}", paint(NAME, format!("{name:margin$}")), cells.trim_end());
        }
        text
    }

    fn cell(&self, at: (usize, usize)) -> String {
        let seen = self.seen.get(at);
        let (glyph, style) = seen.glyph();
        let changed = self.before.is_some_and(|before| before.get(at) != seen);
        let wrong = self.expected.get(at) != seen;
        let (left, right, style) = match (wrong, changed) {
            (true, _) => ("!", "!", style.invert().bold()),
            (false, true) => ("[", "]", style.bold()),
            (false, false) => (" ", " ", style),
        };
        let sign = paint(style, format!("{left}{glyph}{right}").trim());
        if wrong || changed { format!(" {sign} ") } else { format!("  {sign}  ") }
    }
}

/// What the signs mean, in one line.
pub fn legend() -> String {
    format!(
        "{} reachable   {} blocked   {} changed since the last table   {} itself",
        paint(GOOD, "✓"),
        paint(BAD, "✗"),
        paint(HEAD, "[ ]"),
        paint(FAINT, "-")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        let column = |name: &str, port: &str| Column {
            name: name.to_owned(),
            port: port.to_owned(),
            full: format!("shop/{name}:{port}/tcp"),
        };
        Frame {
            rows: vec!["shop/web".to_owned(), "guest".to_owned()],
            columns: vec![column("web", "8080"), column("db", "5432")],
        }
    }

    fn matrix(cells: [[Cell; 2]; 2]) -> Matrix {
        Matrix { cells: cells.map(Vec::from).to_vec() }
    }

    const SELF: Cell = Cell { ipv4: None, ipv6: None };
    const OPEN: Cell = Cell { ipv4: Some(Reach::Open), ipv6: Some(Reach::Open) };
    const SHUT: Cell = Cell { ipv4: Some(Reach::Blocked), ipv6: Some(Reach::Blocked) };
    const ONLY4: Cell = Cell { ipv4: Some(Reach::Open), ipv6: Some(Reach::Blocked) };

    fn plain(picture: &Picture<'_>) -> String {
        anstream::adapter::strip_str(&picture.draw()).to_string()
    }

    #[test]
    fn a_changed_cell_is_set_in_brackets_and_a_wrong_one_cries() {
        let before = matrix([[SELF, OPEN], [OPEN, OPEN]]);
        let seen = matrix([[SELF, OPEN], [SHUT, ONLY4]]);
        let expected = matrix([[SELF, OPEN], [SHUT, SHUT]]);
        let frame = frame();
        let picture = Picture { frame: &frame, seen: &seen, expected: &expected, before: Some(&before) };
        assert_eq!(
            plain(&picture),
            "           web  db\n          8080 5432\nshop/web    -    ✓\nguest      [✗]  !4!\n"
        );
    }

    #[test]
    fn every_family_of_a_cell_is_a_probe_of_its_own() {
        let seen = matrix([[SELF, OPEN], [SHUT, ONLY4]]);
        let expected = matrix([[SELF, OPEN], [SHUT, SHUT]]);
        assert_eq!(seen.agreement(&expected), Agreement { agreed: 5, probes: 6 });
        assert_eq!(seen.differing(&expected), vec![(1, 1)]);
    }
}

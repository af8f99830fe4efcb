//! The whole table as one block, for people.
use std::fmt::{self, Display, Formatter, Write as _};

use super::{Declared, Element, TABLE, noun, rule_lines};
use crate::ruleset::{Chain, Ruleset};
use crate::set::{Set, Shape};

/// Elements are broken into lines of about this many characters.
const WIDTH: usize = 100;

/// The table as `nft list table` would show it, loadable by `nft -f`; an empty string where there is no table.
/// Sets come first because rules read better once they are known; the kernel takes either order.
pub fn nft_listing(ruleset: &Ruleset) -> String {
    if ruleset.is_empty() {
        return String::new();
    }
    Listing(ruleset).to_string()
}

struct Listing<'a>(&'a Ruleset);

impl Display for Listing<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {TABLE} {{")?;
        let mut gap = "";
        for (name, set) in &self.0.sets {
            writeln!(f, "{gap}\t{} {name} {{", noun(set.spec))?;
            fmt_set(f, set)?;
            f.write_str("\t}\n")?;
            gap = "\n";
        }
        for (name, chain) in &self.0.chains {
            writeln!(f, "{gap}\tchain {name} {{")?;
            fmt_chain(f, chain)?;
            f.write_str("\t}\n")?;
            gap = "\n";
        }
        f.write_str("}\n")
    }
}

fn fmt_set(f: &mut Formatter<'_>, set: &Set) -> fmt::Result {
    for statement in Declared(set.spec).statements() {
        writeln!(f, "\t\t{statement}")?;
    }
    if set.is_empty() || matches!(set.spec.shape, Shape::Meter(_)) {
        return Ok(());
    }
    f.write_str("\t\telements = {")?;
    // Verdicts stand one a line: the eye looks for one address.
    let width = if matches!(set.spec.shape, Shape::Verdicts(_)) { 0 } else { WIDTH };
    let mut line = String::new();
    let mut comma = "";
    for (key, value) in set.iter() {
        let element = Element { key, value: Some(&value) }.to_string();
        if comma.is_empty() || line.len() + element.len() > width {
            write!(f, "{line}{comma}\n\t\t\t")?;
            line.clear();
        } else {
            line.push_str(", ");
        }
        line.write_str(&element)?;
        comma = ",";
    }
    writeln!(f, "{line}\n\t\t}}")
}

fn fmt_chain(f: &mut Formatter<'_>, chain: &Chain) -> fmt::Result {
    if let Some(base) = &chain.base {
        writeln!(f, "\t\t{base}")?;
    }
    chain.rules.iter().flat_map(rule_lines).try_for_each(|line| writeln!(f, "\t\t{line}"))
}

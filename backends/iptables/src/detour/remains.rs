//! What a proxy that was killed left: found by its sets, which stand as long as any rule names them.
use podwall_ruleset::{BackendError, Family};

use super::front::{self, Table};
use super::text::{self, TABLE};
use super::{destroy_sets, ipset};
use crate::detect::legacy_tables;
use crate::exec::{self, Error};
use crate::probe::{Program, Variant, failed};

/// Takes it out of both variants: queries go to their servers, then rules go, then sets.
pub(super) fn remove() -> Result<(), BackendError> {
    let sets = sets()?;
    if sets.is_empty() {
        return Ok(());
    }
    ipset(sets.iter().map(|name| format!("flush {name}\n")).collect())?;
    for variant in [Variant::Nft, Variant::Legacy] {
        for family in Family::BOTH {
            clear(Table { variant, family })?;
        }
    }
    destroy_sets(sets)
}

/// Names of our sets that are there. Without the program, or without sets in the kernel, there are none we could have
/// made.
fn sets() -> Result<Vec<&'static str>, BackendError> {
    let said = match exec::run("ipset", &["list", "-n"], String::new()) {
        Ok(said) if said.status.success() => said,
        Ok(_) | Err(Error::Missing { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let there = |name: &&str| said.stdout.lines().any(|line| line == *name);
    Ok(Family::BOTH.into_iter().flat_map(text::sets).filter(there).collect())
}

fn clear(table: Table) -> Result<(), BackendError> {
    // Asking legacy for a table that is not there would make it.
    let is_legacy = table.variant == Variant::Legacy;
    if is_legacy && !legacy_tables(table.family).iter().any(|name| name == TABLE) {
        return Ok(());
    }
    let program = table.variant.program(table.family, Program::Save);
    let said = match exec::run(program, &["-t", TABLE], String::new()) {
        Ok(said) if said.status.success() => said,
        Ok(said) if is_legacy => return Err(front::refused(program, &said)),
        // A kernel without nf_tables, or without IPv6; or a host without that variant.
        Ok(_) | Err(Error::Missing { .. }) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let text = removal(&said.stdout);
    text.map_or(Ok(()), |text| table.restore(&text))
}

/// The restore that takes out what a save shows of ours.
fn removal(saved: &str) -> Option<String> {
    let names = saved.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
    let names: Vec<&str> = names.filter(|name| text::is_chain(name)).collect();
    let rules = saved.lines().filter(|line| text::is_rule(line)).filter_map(|line| line.strip_prefix("-A "));
    let jumps = rules.filter(|rule| !rule.split(' ').next().is_some_and(text::is_chain));
    let mut script = format!("*{TABLE}\n");
    jumps.for_each(|rule| script += &format!("-D {rule}\n"));
    names.iter().for_each(|name| script += &format!(":{name} - [0:0]\n"));
    names.iter().for_each(|name| script += &format!("-X {name}\n"));
    (script.lines().count() > 1).then(|| script + "COMMIT\n")
}

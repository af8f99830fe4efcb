//! What an earlier podwall left in tables this one does not use: found, read, and taken out.
//!
//! Both variants share the kernel's ipsets, so those go only with the last rules that could name them: with
//! [`Remains::beside`] a variant that stays, its backend keeps them and sweeps what it has no use for.
use std::fs;

use podwall_ruleset::{BackendError, Family, Ruleset};

use crate::backend::{LOCK_PATIENCE, complaint, destroy, unread};
use crate::detect::legacy_tables;
use crate::exec::{self, Error};
use crate::image::Image;
use crate::ipset;
use crate::names::{is_chain_of_ours, is_rule_of_ours, is_set_of_ours};
use crate::observe;
use crate::probe::{Program, Variant, failed};
use crate::restore::{self, Saved, TABLE};

/// A foreign hand may be at work meanwhile; more often it is not tried.
const ROUNDS: u32 = 3;

/// Rules of ours, and ipsets where they are nobody's.
#[derive(Debug)]
pub struct Remains {
    kept: Option<Variant>,
    tables: Vec<Table>,
    sets: Image,
}

/// What a look into one table came to.
enum Read {
    /// Nothing of ours, or no such table.
    Nothing,
    Ours(Table),
    /// This program is not installed.
    Missing(&'static str),
}

/// One family of one variant, as its save program prints it.
#[derive(Debug)]
struct Table {
    variant: Variant,
    family: Family,
    text: String,
}

impl Remains {
    /// Looks into the variants that are not kept, and at ipsets when none is. `None`: nothing of ours is there.
    /// [`BackendError::Unsupported`]: the kernel or this image has nothing that could hold any, but where programs are
    /// missing and the kernel keeps meters of ours, rules of ours stand that cannot be read: an error.
    pub fn beside(kept: Option<Variant>) -> Result<Option<Self>, BackendError> {
        let mut remains = Self { kept, tables: Vec::new(), sets: Image::default() };
        let mut missing = None;
        for variant in [Variant::Nft, Variant::Legacy].into_iter().filter(|variant| Some(*variant) != kept) {
            for family in Family::BOTH {
                match Table::read(variant, family)? {
                    Read::Ours(table) => remains.tables.push(table),
                    Read::Nothing => {}
                    Read::Missing(program) => missing = Some(program),
                }
            }
        }
        if let Some(program) = missing.filter(|_| kept.is_none() && remains.tables.is_empty() && metered()) {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            let doing = format!(
                "rules of podwall stand in iptables and {program} is not installed here: use an image with iptables \
                 and ipset once, or reboot the node"
            );
            return Err(BackendError::Io { doing, source });
        }
        if kept.is_none() || !remains.tables.is_empty() {
            remains.sets = sets()?;
        }
        let nothing = remains.tables.is_empty() && (kept.is_some() || remains.sets.is_empty());
        Ok((!nothing).then_some(remains))
    }

    /// Where it is, for people.
    pub fn place(&self) -> &'static str {
        let of = |variant| self.tables.iter().any(|table| table.variant == variant);
        match (of(Variant::Nft), of(Variant::Legacy)) {
            (true, true) => "iptables-nft and iptables-legacy",
            (true, false) => "iptables-nft",
            (false, true) => "iptables-legacy",
            (false, false) => "ipset",
        }
    }

    /// What stands, each variant apart.
    pub fn rulesets(&self) -> Vec<Ruleset> {
        let fold = |variant: Option<Variant>| {
            let mut saved = Saved::default();
            saved.image.extend(self.sets.clone());
            let tables = self.tables.iter().filter(|table| Some(table.variant) == variant);
            let families: Vec<Family> = tables
                .map(|table| {
                    restore::read(table.family, &table.text, &mut saved);
                    table.family
                })
                .collect();
            observe::fold(&saved.image, &families, &Ruleset::default()).ruleset
        };
        if self.tables.is_empty() {
            return vec![fold(None)];
        }
        let there = |variant: &Variant| self.tables.iter().any(|table| table.variant == *variant);
        [Variant::Nft, Variant::Legacy].into_iter().filter(there).map(|variant| fold(Some(variant))).collect()
    }

    /// Takes it all out: in each table jumps and chains at once, then ipsets.
    pub fn remove(&mut self) -> Result<(), BackendError> {
        for _ in 0..ROUNDS {
            self.tables.iter().try_for_each(Table::clear)?;
            if self.kept.is_none() {
                let mut edits = ipset::Edits::default();
                self.sets.sets.keys().for_each(|name| edits.destroy(0, name));
                destroy(&edits)?;
            }
            match Self::beside(self.kept)? {
                None => return Ok(()),
                Some(rest) => *self = rest,
            }
        }
        let source = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
        let doing = format!("taking podwall's rules out of {}: they come back", self.place());
        Err(BackendError::Io { doing, source })
    }
}

impl Table {
    fn read(variant: Variant, family: Family) -> Result<Read, BackendError> {
        // Asking legacy for a table that is not there would make it.
        let is_legacy = variant == Variant::Legacy;
        if is_legacy && !legacy_tables(family).iter().any(|table| table == TABLE) {
            return Ok(Read::Nothing);
        }
        let program = variant.program(family, Program::Save);
        match exec::run(program, &["-c", "-t", TABLE], String::new()) {
            Ok(said) if said.status.success() => {
                let table = Self { variant, family, text: said.stdout };
                let ours = table.chains().next().is_some() || table.rules().next().is_some();
                Ok(if ours { Read::Ours(table) } else { Read::Nothing })
            }
            Ok(said) if is_legacy => Err(unread(program, &said.stderr)),
            // A kernel without nf_tables, or without IPv6.
            Ok(_) => Ok(Read::Nothing),
            Err(Error::Missing { program }) => Ok(Read::Missing(program)),
            Err(error) => Err(failed(error)),
        }
    }

    /// Names of our chains.
    fn chains(&self) -> impl Iterator<Item = &str> {
        let names = self.text.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        names.filter(|name| is_chain_of_ours(name))
    }

    /// Rules in others' chains that lead to ours, as `chain rule`.
    fn rules(&self) -> impl Iterator<Item = &str> {
        let rules = self.text.lines().filter_map(|line| Some(line.split_once("] ")?.1));
        let rules = rules.filter(|line| line.starts_with("-A ") && is_rule_of_ours(line));
        let rules = rules.filter_map(|line| line.strip_prefix("-A "));
        rules.filter(|rule| !rule.split(' ').next().is_some_and(is_chain_of_ours))
    }

    /// One restore: the kernel takes the table as a whole.
    fn clear(&self) -> Result<(), BackendError> {
        let mut text = format!("*{TABLE}\n");
        self.rules().for_each(|rule| text += &format!("-D {rule}\n"));
        self.chains().for_each(|name| text += &format!(":{name} - [0:0]\n"));
        self.chains().for_each(|name| text += &format!("-X {name}\n"));
        text += "COMMIT\n";
        let program = self.variant.program(self.family, Program::Restore);
        let said = exec::run(program, &["-w", LOCK_PATIENCE, "--noflush"], text).map_err(failed)?;
        if said.status.success() { Ok(()) } else { Err(complaint(&said, &[], &[])) }
    }
}

/// Does the kernel keep a hash table of rates under a name of ours? It does as long as one of our rules stands, in
/// either variant (`xt_hashlimit`), and tells without any program.
fn metered() -> bool {
    let meters = ["/proc/thread-self/net/ipt_hashlimit", "/proc/thread-self/net/ip6t_hashlimit"];
    let mut names = meters.iter().flat_map(fs::read_dir).flatten().flatten();
    names.any(|entry| entry.file_name().to_string_lossy().starts_with("n_meter"))
}

fn sets() -> Result<Image, BackendError> {
    let mut image = Image::default();
    let said = exec::run("ipset", &["save"], String::new()).map_err(failed)?;
    if !said.status.success() {
        let needs = format!("ipset: {}", said.stderr.trim());
        return Err(BackendError::Unsupported { needs });
    }
    ipset::read(&said.stdout, &mut image)?;
    image.sets.retain(|name, _| is_set_of_ours(name));
    Ok(image)
}

#[cfg(test)]
mod tests;

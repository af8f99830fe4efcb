//! `podwall ban remove`: lifts bans by address, by name, or by set.
use std::str::FromStr as _;

use clap::Args;
use kube::ResourceExt as _;
use podwall_crd::ban::Ban;

use super::add;
use super::address::Banned;
use super::objects::Bans;
use crate::cli::cluster::{ClusterFlags, block_on};
use crate::cli::output::{self, GOOD, NAME, NOTE, paint};
use crate::cli::{CliError, CliResult, Exit};

/// Lift bans
#[derive(Debug, Args)]
#[command(
    long_about = "Lift bans.\n\nAn address is taken out of every ban that lists it, or with --name only of those made \
        under that name. A CIDR that covers it is left alone, and told. With --all and --name, the whole set goes."
)]
pub struct Remove {
    /// Addresses and CIDRs as they were banned, or names of Ban objects
    #[arg(value_name = "ADDRESS|BAN", required_unless_present = "all")]
    what: Vec<String>,
    /// Only bans made under this name
    #[arg(long, value_name = "NAME", value_parser = add::name)]
    name: Option<String>,
    /// Everything made under --name
    #[arg(long, requires = "name", conflicts_with = "what")]
    all: bool,
    /// It is no error if there is nothing to lift
    #[arg(long)]
    ignore_missing: bool,
}

/// What became of one word.
#[derive(Debug, Default)]
struct Lifted {
    objects: Vec<String>,
    still_covered_by: Vec<String>,
}

impl Remove {
    /// Runs it.
    pub fn run(self, cluster: &ClusterFlags) -> CliResult {
        block_on(self.lift(cluster))
    }

    async fn lift(self, cluster: &ClusterFlags) -> CliResult {
        let bans = Bans::at(cluster).await?;
        let mut missing = 0;
        if self.all {
            let found = bans.list(self.name.as_deref()).await?;
            for ban in &found {
                bans.delete(&ban.name_any()).await?;
            }
            output::answer(&format!("{} {} bans\n", paint(GOOD, "lifted"), found.len()))?;
            missing += usize::from(found.is_empty());
        }
        for word in &self.what {
            let lifted = match Banned::from_str(word) {
                Ok(address) => self.lift_address(&bans, address).await?,
                Err(_) => by_name(&bans, word).await?,
            };
            missing += usize::from(lifted.objects.is_empty());
            tell(word, &lifted)?;
        }
        Ok(if missing == 0 || self.ignore_missing { Exit::Done } else { Exit::Negative })
    }

    async fn lift_address(&self, bans: &Bans, address: Banned) -> Result<Lifted, CliError> {
        if let Some(set) = &self.name {
            // What `add` made under this name needs no look at all the others: lists are long.
            let usual = format!("{set}-{}", address.in_name());
            if bans.delete(&usual).await? {
                return Ok(Lifted { objects: vec![usual], ..Lifted::default() });
            }
        }
        let mut lifted = Lifted::default();
        for mut ban in bans.list(self.name.as_deref()).await? {
            let name = ban.name_any();
            match take_out(&mut ban, address) {
                Found::Nothing => {}
                Found::Covering => lifted.still_covered_by.push(name),
                Found::Last => {
                    bans.delete(&name).await?;
                    lifted.objects.push(name);
                }
                Found::OneOfMany => {
                    bans.replace(&ban).await?;
                    lifted.objects.push(name);
                }
            }
        }
        Ok(lifted)
    }
}

async fn by_name(bans: &Bans, name: &str) -> Result<Lifted, CliError> {
    let objects = if bans.delete(name).await? { vec![name.to_owned()] } else { Vec::new() };
    Ok(Lifted { objects, ..Lifted::default() })
}

/// How a ban has to do with an address.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// Listed, and nothing else is.
    Last,
    /// Listed among others, and taken out.
    OneOfMany,
    /// Not listed, but inside a CIDR that is.
    Covering,
}

/// Takes an address out of a ban that lists it, however it is written there.
fn take_out(ban: &mut Ban, address: Banned) -> Found {
    let listed: Vec<Option<Banned>> = ban.spec.addresses.iter().map(|text| text.parse().ok()).collect();
    if listed.contains(&Some(address)) {
        ban.spec.addresses.retain(|text| text.parse() != Ok(address));
        return if ban.spec.addresses.is_empty() { Found::Last } else { Found::OneOfMany };
    }
    if listed.into_iter().flatten().any(|other| other.covers(address)) {
        Found::Covering
    } else {
        Found::Nothing
    }
}

fn tell(word: &str, lifted: &Lifted) -> Result<(), CliError> {
    if lifted.objects.is_empty() {
        anstream::eprintln!(
            "{} nothing bans {word}; `podwall ban list` shows what there is",
            paint(NOTE, "note:")
        );
    } else {
        let from = lifted.objects.join(", ");
        output::answer(&format!("{} {} ({from})\n", paint(GOOD, "lifted"), paint(NAME, word)))?;
    }
    if !lifted.still_covered_by.is_empty() {
        let by = lifted.still_covered_by.join(", ");
        anstream::eprintln!("{} {word} is still banned as part of a CIDR: {by}", paint(NOTE, "note:"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(addresses: &[&str]) -> Ban {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "podwall.dev/v1alpha1", "kind": "Ban", "metadata": {"name": "x"},
            "spec": {"addresses": addresses},
        }))
        .unwrap()
    }

    #[test]
    fn an_address_leaves_a_list_and_the_last_one_takes_the_object_with_it() {
        let address = "2001:db8::1".parse().unwrap();
        let mut many = ban(&["10.0.0.1", "2001:DB8::0001"]);
        assert_eq!(take_out(&mut many, address), Found::OneOfMany);
        assert_eq!(many.spec.addresses, ["10.0.0.1"]);
        assert_eq!(take_out(&mut ban(&["2001:db8::1/128"]), address), Found::Last);
        assert_eq!(take_out(&mut ban(&["2001:db8::/32"]), address), Found::Covering);
        assert_eq!(take_out(&mut ban(&["10.0.0.1"]), address), Found::Nothing);
    }
}

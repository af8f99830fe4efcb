//! Which of the two iptables the host uses, told by what stands in both; our own rules do not count.
//!
//! The order of evidence is that of the wrapper Kubernetes images use (kubernetes-sigs/iptables-wrappers): the chains
//! kubelet makes for this very purpose, then who has more rules. One difference: where kubelet's chains stand in both,
//! as on a host that went from one variant to the other without a reboot, rules decide.
use std::collections::BTreeMap;
use std::fs;

use podwall_ruleset::{BackendError, Family};

use crate::detour;
use crate::exec::{self, Error};
use crate::names;
use crate::probe::{Program, Variant, failed};

/// Chains kubelet makes in the mangle table, so that others know which iptables it uses.
const HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Detected {
    pub(crate) variant: Variant,
    /// For people: why this one.
    pub(crate) why: String,
    /// For people: both are in use, and where.
    pub(crate) mixed: Option<String>,
}

/// What others have in one variant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Survey {
    hint: Option<&'static str>,
    /// Rules by table, both families together.
    rules: BTreeMap<String, usize>,
}

/// Looks at both variants. Nothing comes into being by looking.
pub(crate) fn detect() -> Result<Detected, BackendError> {
    let mut legacy = Survey::default();
    for family in Family::BOTH {
        // The kernel makes a table for whoever asks for it, so only those are read that are there.
        if !legacy_tables(family).is_empty() {
            legacy.ask(Variant::Legacy, family)?;
        }
    }
    let (mut nft, mut usable) = (Survey::default(), false);
    for family in Family::BOTH {
        usable |= nft.ask(Variant::Nft, family)?;
    }
    Ok(weigh(&nft, &legacy, if usable { Variant::Nft } else { Variant::Legacy }))
}

/// The tables of x_tables that are there in the namespace of this thread.
pub(crate) fn legacy_tables(family: Family) -> Vec<String> {
    let file = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    let names = fs::read_to_string(file).unwrap_or_default();
    names.lines().map(str::to_owned).collect()
}

impl Survey {
    /// Asks one program; answers whether it works here.
    fn ask(&mut self, variant: Variant, family: Family) -> Result<bool, BackendError> {
        match exec::run(variant.program(family, Program::Save), &[], String::new()) {
            Ok(said) if said.status.success() => {
                self.read(&said.stdout);
                Ok(true)
            }
            Ok(_) | Err(Error::Missing { .. }) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    fn read(&mut self, text: &str) {
        let mut table = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if let Some(chain) = line.strip_prefix(':').filter(|_| table == "mangle") {
                let name = chain.split(' ').next();
                self.hint = self.hint.or_else(|| HINTS.into_iter().find(|hint| name == Some(*hint)));
            } else if line.starts_with("-A ") && !names::is_rule_of_ours(line) && !detour::text::is_rule(line)
            {
                *self.rules.entry(table.to_owned()).or_default() += 1;
            }
        }
    }

    fn count(&self) -> usize {
        self.rules.values().sum()
    }

    fn tables(&self) -> String {
        self.rules.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// Pure: what the evidence says; `usable` where there is none.
fn weigh(nft: &Survey, legacy: &Survey, usable: Variant) -> Detected {
    let kubelet = |hint: &str, variant: Variant| {
        (variant, format!("kubelet's chain {hint} is in the mangle table of {}", variant.as_str()))
    };
    let (variant, why) = match (nft.hint, legacy.hint) {
        (Some(hint), None) => kubelet(hint, Variant::Nft),
        (None, Some(hint)) => kubelet(hint, Variant::Legacy),
        (None, None) | (Some(_), Some(_)) => match (nft.count(), legacy.count()) {
            (0, 0) => (usable, format!("nobody uses iptables here, and {} works", usable.as_str())),
            (n, l) => {
                let variant = if l > n { Variant::Legacy } else { Variant::Nft };
                (variant, format!("others have {l} rules in iptables-legacy and {n} in iptables-nft"))
            }
        },
    };
    let mixed = (nft.count() > 0 && legacy.count() > 0).then(|| {
        format!(
            "this host mixes two kinds of iptables: tables {} are legacy ({} rules), tables {} are nft ({} rules); \
             both see every packet, and podwall uses {}: {why}",
            legacy.tables(),
            legacy.count(),
            nft.tables(),
            nft.count(),
            variant.as_str()
        )
    });
    Detected { variant, why, mixed }
}

#[cfg(test)]
mod tests;

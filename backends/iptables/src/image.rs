//! What the kernel holds or should hold, as text: chains of both families and ipsets, by their kernel names.
use std::collections::{BTreeMap, BTreeSet};

use podwall_ruleset::Family;

/// A chain of one family.
pub(crate) type Place = (Family, String);

/// A rule of a built-in chain that leads into ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Jump {
    /// `FORWARD`, ...
    pub(crate) hook: &'static str,
    /// The rule, as iptables-save prints it behind the chain's name.
    pub(crate) line: String,
}

/// An ipset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ipset {
    /// Everything behind the name in a `create` line that we decide.
    pub(crate) create: String,
    /// Elements, as ipset prints them.
    pub(crate) members: BTreeSet<String>,
}

/// Kernel objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Image {
    /// Rules, as iptables-save prints them behind the chain's name.
    pub(crate) chains: BTreeMap<Place, Vec<String>>,
    /// Ways into our chains.
    pub(crate) jumps: BTreeSet<(Family, Jump)>,
    /// Sets.
    pub(crate) sets: BTreeMap<String, Ipset>,
}

impl Image {
    /// Nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty() && self.sets.is_empty()
    }

    /// Chains of a family whose names begin so.
    pub(crate) fn named<'a>(
        &'a self,
        family: Family,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Place, &'a Vec<String>)> {
        let from = (family, prefix.to_owned());
        self.chains.range(from..).take_while(move |((of, name), _)| *of == family && name.starts_with(prefix))
    }

    /// Takes everything of another image in.
    pub(crate) fn extend(&mut self, other: Self) {
        self.chains.extend(other.chains);
        self.jumps.extend(other.jumps);
        self.sets.extend(other.sets);
    }

    /// Leaves out a family the host does not have.
    pub(crate) fn retain(&mut self, families: &[Family]) {
        self.chains.retain(|(family, _), _| families.contains(family));
        self.jumps.retain(|(family, _)| families.contains(family));
    }
}

/// The built-in chain of a hook.
pub(crate) const fn hook_name(hook: podwall_ruleset::Hook) -> &'static str {
    match hook {
        podwall_ruleset::Hook::Prerouting => "PREROUTING",
        podwall_ruleset::Hook::Input => "INPUT",
        podwall_ruleset::Hook::Forward => "FORWARD",
        podwall_ruleset::Hook::Output => "OUTPUT",
        podwall_ruleset::Hook::Postrouting => "POSTROUTING",
    }
}

/// The hook of a built-in chain.
pub(crate) fn hook_of(name: &str) -> Option<podwall_ruleset::Hook> {
    use podwall_ruleset::Hook;
    [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting]
        .into_iter()
        .find(|hook| hook_name(*hook) == name)
}

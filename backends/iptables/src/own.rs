//! Which kernel objects belong to which neutral object, by name alone.
use std::collections::BTreeSet;

use podwall_ruleset::{ChainName, Ruleset, SetName};

use crate::image::{Image, Jump};
use crate::lower;
use crate::names::{self, REVERSE_PATH};

/// Everything a ruleset may call its own.
pub(crate) struct Owned<'a> {
    ruleset: &'a Ruleset,
    links: BTreeSet<String>,
    jumps: BTreeSet<Jump>,
    reverse_path: bool,
}

impl<'a> Owned<'a> {
    /// By the names of all chains and sets of a ruleset.
    pub(crate) fn of(ruleset: &'a Ruleset) -> Self {
        let mut owned = Self { ruleset, links: BTreeSet::new(), jumps: BTreeSet::new(), reverse_path: false };
        for (name, chain) in &ruleset.chains {
            for (index, rule) in chain.rules.iter().enumerate() {
                if lower::asks_links(rule) {
                    owned.links.insert(names::links(name, index));
                }
                owned.reverse_path |= lower::checks_reverse_path(rule);
            }
            let jump = chain.base.and_then(|base| lower::jump(name, base).ok());
            owned.jumps.extend(jump);
        }
        if owned.reverse_path {
            owned.jumps.extend(lower::reverse_path_jump().ok());
        }
        owned
    }

    fn chain(&self, kernel: &str) -> bool {
        let chain =
            |name: &str| ChainName::new(name).is_ok_and(|name| self.ruleset.chains.contains_key(&name));
        let set = |name: &str| SetName::new(name).is_ok_and(|name| self.ruleset.sets.contains_key(&name));
        let Some((kind, name)) = kernel.split_once('-') else {
            return kernel == REVERSE_PATH && self.reverse_path;
        };
        match kind {
            "PW" => chain(name.split('.').next().unwrap_or_default()),
            "PWM" => set(name.split('-').next().unwrap_or_default()),
            "PWS" => set(name),
            "PWL" => self.links.contains(kernel),
            _ => false,
        }
    }

    fn set(&self, kernel: &str) -> bool {
        let name = kernel.split_once('_').and_then(|(_, name)| SetName::new(name).ok());
        let Some((name, set)) = name.and_then(|name| Some((name.clone(), self.ruleset.sets.get(&name)?)))
        else {
            return false;
        };
        matches!(names::ipset(&name, set.spec.shape), Some(Ok(ours)) if ours == kernel)
    }

    /// What of an image is not owned.
    pub(crate) fn strays(&self, image: &Image) -> Image {
        let mut stray = image.clone();
        stray.chains.retain(|(_, name), _| !self.chain(name));
        stray.jumps.retain(|(_, jump)| !self.jumps.contains(jump));
        stray.sets.retain(|name, _| !self.set(name));
        stray
    }
}

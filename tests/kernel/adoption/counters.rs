//! What rules have counted, by chain and rule.
use std::collections::BTreeMap;

use podwall_lab::Netns;
use podwall_nftables::Guard;
use podwall_ruleset::{Backend, ChainName, RuleId};

use crate::rig::{Filter, open_backend};

/// Packets by chain and rule.
pub type Counts = BTreeMap<(ChainName, RuleId), u64>;

/// As the filter reads them.
pub fn of(filter: &mut Filter) -> Counts {
    counts(filter.backend.as_mut())
}

/// As a newcomer reads them.
pub fn read(netns: &Netns, guard: Guard) -> Counts {
    counts(open_backend(netns, guard).as_mut())
}

fn counts(backend: &mut dyn Backend) -> Counts {
    let mut counts = Counts::new();
    for counter in backend.counters().expect("they can be read") {
        *counts.entry((counter.chain, counter.rule)).or_default() += counter.packets;
    }
    counts
}

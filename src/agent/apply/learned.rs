//! What pods learned from DNS, read from rules that stand: the kernel is the only one who remembers it for us.
use std::net::IpAddr;

use podwall_engine::model::ListId;
use podwall_ruleset::{Deadline, Key, Ruleset, Value};

/// By which names, which pod, what, and until when.
pub(super) type Learned = (ListId, IpAddr, IpAddr, Deadline);

/// What pods learned, as the kernel holds it.
pub(super) fn learned(ruleset: &Ruleset) -> Vec<Learned> {
    let sets = ruleset.sets.iter().filter_map(|(name, set)| Some((ListId::of_set(name)?, set)));
    let elements = sets.flat_map(|(list, set)| set.iter().map(move |element| (list.clone(), element)));
    elements
        .filter_map(|(list, (key, value))| match (key, value) {
            (Key::Pair(pod, address), Value::Until(ends)) => Some((list, *pod, *address, ends)),
            _ => None,
        })
        .collect()
}

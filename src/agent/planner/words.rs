//! What things are called: watches that are away, and kinds of changes.
use std::collections::BTreeMap;

use podwall_engine::Change;

use super::super::input::Feed;
use crate::telemetry::metrics::Kind;

/// The watches that are away, those with one reason together.
pub(super) fn away(stale: &BTreeMap<Feed, String>) -> Option<String> {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (feed, reason) in stale {
        by_reason.entry(reason).or_default().push(feed.as_str());
    }
    let words = by_reason.iter().map(|(reason, feeds)| format!("{}: {reason}", feeds.join(", ")));
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| format!("not watching {}", words.join("; ")))
}

pub(super) const fn kind(change: &Change) -> Kind {
    match change {
        Change::Pod(_) | Change::PodGone(_) => Kind::Pod,
        Change::Namespace(..) | Change::NamespaceGone(_) => Kind::Namespace,
        Change::Node(_) | Change::NodeGone(_) => Kind::Node,
        Change::Policy(_) | Change::PolicyGone(_) => Kind::Policy,
        Change::Ban(_) | Change::BanGone(_) => Kind::Ban,
        Change::Service(_) | Change::ServiceGone(_) => Kind::Service,
        Change::Exposure(_) | Change::ExposureGone(_) => Kind::Exposure,
        Change::Links(_) | Change::AddressHeld(_) | Change::AddressFree(_) => Kind::Links,
        Change::ApiServers(_)
        | Change::Clock(_)
        | Change::Learned(_)
        | Change::Watch(_)
        | Change::GraceOver
        | Change::Refused(_) => Kind::Agent,
    }
}

//! How often bans were met on this node, from what the kernel counts for each element.
//!
//! The kernel counts since it holds an element: it begins anew when the element is taken out and put back, which a
//! longer ban or a neighbour of a block does. So what came in between two looks is added up here. An element that
//! several bans stand behind counts for each of them (decision B2).
use std::collections::{BTreeMap, BTreeSet};

use podwall_crd::node_report::{BanHits, MOST_HITS};
use podwall_engine::Engine;
use podwall_engine::model::Text;
use podwall_engine::model::ban::{BanId, BanKind};
use podwall_ruleset::{Hit, Key, SetName};

use crate::telemetry::metrics::{BanLabels, Metrics};

/// What was counted so far.
#[derive(Debug, Default)]
pub(super) struct Hits {
    /// By element, as the kernel said last.
    seen: BTreeMap<(SetName, Key), Count>,
    bans: BTreeMap<BanId, Met>,
    /// The bans that have metrics of their own.
    shown: BTreeSet<BanLabels>,
}

/// Packets and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    packets: u64,
    bytes: u64,
}

/// What one ban met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Met {
    /// Another ban of the same name is another matter.
    uid: Text,
    count: Count,
}

impl Count {
    /// What was added since, if the kernel did not begin anew.
    const fn since(self, before: Self) -> Self {
        match (self.packets.checked_sub(before.packets), self.bytes.checked_sub(before.bytes)) {
            (Some(packets), Some(bytes)) => Self { packets, bytes },
            (None, _) | (_, None) => self,
        }
    }

    const fn add(&mut self, more: Self) {
        self.packets = self.packets.saturating_add(more.packets);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

impl Hits {
    /// Takes in what the kernel says; answers the bans that were met most, for the node's report.
    pub(super) fn take(&mut self, hits: Vec<Hit>, engine: &Engine, metrics: &Metrics) -> Vec<BanHits> {
        let before = std::mem::take(&mut self.seen);
        let sets = engine.banned_sets();
        for Hit { set, key, packets, bytes } in hits {
            let (now, element) = (Count { packets, bytes }, (set, key));
            let more = now.since(before.get(&element).copied().unwrap_or_default());
            metrics.banned_packets.inc_by(more.packets);
            metrics.banned_bytes.inc_by(more.bytes);
            for ban in sets.get(&element.0).into_iter().flat_map(|set| set.behind(&element.1)) {
                self.met(ban, more, engine);
            }
            self.seen.insert(element, now);
        }
        self.bans.retain(|id, met| engine.cluster().ban(id).is_some_and(|ban| ban.uid == met.uid));
        let most = most(&self.bans);
        self.shown = show(&most, &self.shown, metrics);
        let told = most.iter().filter(|(id, _)| id.kind == BanKind::Ban);
        told.map(|(id, met)| BanHits {
            ban: id.name.to_string(),
            uid: met.uid.to_string(),
            packets: i64::try_from(met.count.packets).unwrap_or(i64::MAX),
        })
        .collect()
    }

    fn met(&mut self, id: &BanId, more: Count, engine: &Engine) {
        let Some(ban) = engine.cluster().ban(id) else { return };
        let met = self.bans.entry(id.clone()).or_default();
        if met.uid != ban.uid {
            *met = Met { uid: Text::clone(&ban.uid), count: Count::default() };
        }
        met.count.add(more);
    }
}

/// The bans that were met most, as many as a report has room for.
fn most(bans: &BTreeMap<BanId, Met>) -> Vec<(&BanId, &Met)> {
    let mut all: Vec<(&BanId, &Met)> = bans.iter().filter(|(_, met)| met.count.packets > 0).collect();
    all.sort_by(|(one, met), (other, theirs)| {
        theirs.count.packets.cmp(&met.count.packets).then_with(|| one.cmp(other))
    });
    all.truncate(MOST_HITS);
    all
}

/// Metrics for these bans, and for no others any more.
fn show(most: &[(&BanId, &Met)], shown: &BTreeSet<BanLabels>, metrics: &Metrics) -> BTreeSet<BanLabels> {
    let mut now = BTreeSet::new();
    for (id, met) in most {
        let labels = BanLabels {
            kind: id.kind.as_str(),
            namespace: id.namespace.to_string(),
            name: id.name.to_string(),
        };
        let all = [(&metrics.ban_packets, met.count.packets), (&metrics.ban_bytes, met.count.bytes)];
        for (family, count) in all {
            let counter = family.get_or_create(&labels);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        now.insert(labels);
    }
    for gone in shown.difference(&now) {
        metrics.ban_packets.remove(gone);
        metrics.ban_bytes.remove(gone);
    }
    now
}

#[cfg(test)]
mod tests;

//! What is still missing before the first write.
use std::collections::{BTreeMap, BTreeSet};

use crate::agent::input::Feed;

/// The sources that are not complete yet, and whether the kernel was looked at.
#[derive(Debug)]
pub(super) struct Gathering {
    missing: BTreeSet<Feed>,
    looked: bool,
    reads_folder: bool,
}

impl Gathering {
    pub(super) fn new(feeds: BTreeSet<Feed>) -> Self {
        let reads_folder = feeds.contains(&Feed::Folder);
        Self { missing: feeds, looked: false, reads_folder }
    }

    /// A source has delivered everything there is.
    pub(super) fn complete(&mut self, feed: Feed) {
        if self.missing.remove(&feed) && self.missing.is_empty() {
            tracing::info!("everything was read");
        }
    }

    /// The kernel was looked at.
    pub(super) const fn standing(&mut self) {
        self.looked = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.looked && self.missing.is_empty()
    }

    /// Objects come from a folder, which may leave out what an API server always has.
    pub(super) const fn reads_folder(&self) -> bool {
        self.reads_folder
    }

    /// What is waited for, in words; the reason a source gives for being away goes with it.
    pub(super) fn waiting(&self, away: &BTreeMap<Feed, String>) -> Option<String> {
        let named = |feed: &Feed| match away.get(feed) {
            Some(reason) => format!("{} ({reason})", feed.as_str()),
            None => feed.as_str().to_owned(),
        };
        let mut missing: Vec<String> = self.missing.iter().map(named).collect();
        if !self.looked {
            missing.push("the rules that stand".to_owned());
        }
        (!missing.is_empty()).then(|| format!("waiting for {}", missing.join(", ")))
    }
}

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

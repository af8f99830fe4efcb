//! How far this node surely is with each kind: everything up to the mark was committed. Pure.
//!
//! A version goes three steps: heard from the watch, handed to the kernel's thread with whatever was committed next,
//! and standing once that came back well. What follows from nothing the node has (a ban for other nodes) stands as
//! soon as nothing waits; but where a commit did not go through, nothing heard since stands before the next that does.
use std::collections::BTreeMap;

use podwall_crd::ResourceVersion;
use podwall_crd::node_report::ReportedKind;

/// What moved a watch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// A status, a label, or an object that went: nobody waits to hear of it.
    Idle,
    /// A spec: somebody may wait for it to be in force.
    Spec,
}

/// How far a kind has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// Everything of the kind up to this was told.
    pub version: ResourceVersion,
    /// The last version at which a spec changed.
    pub spec: ResourceVersion,
    /// Objects of the kind there are.
    pub objects: usize,
}

/// By kind.
pub type ByKind = BTreeMap<ReportedKind, Reached>;

/// The steps of all kinds.
#[derive(Debug, Default)]
pub struct Marks {
    heard: ByKind,
    handed: Option<ByKind>,
    standing: ByKind,
    /// What was handed on last does not stand.
    adrift: bool,
}

impl Marks {
    /// A watch has told everything up to a version.
    pub fn heard(&mut self, kind: ReportedKind, version: ResourceVersion, objects: usize, news: News) {
        let reached = self.heard.entry(kind).or_default();
        *reached = Reached {
            version,
            spec: match news {
                News::Idle => reached.spec,
                News::Spec => version,
            },
            objects,
        };
    }

    /// Everything heard so far is on its way to the kernel.
    pub fn handed(&mut self) {
        self.handed = Some(self.heard.clone());
    }

    /// What was handed on stands.
    pub fn done(&mut self) {
        if let Some(handed) = self.handed.take() {
            self.standing = handed;
            self.adrift = false;
        }
    }

    /// What was handed on does not stand; it will be handed on again.
    pub fn lost(&mut self) {
        self.handed = None;
        self.adrift = true;
    }

    /// Is it unknown what stands?
    pub const fn are_adrift(&self) -> bool {
        self.adrift
    }

    /// Nothing is on its way and nothing waits: what was heard needed nothing.
    pub fn idle(&mut self) {
        if self.handed.is_none() && !self.adrift && self.heard != self.standing {
            self.standing.clone_from(&self.heard);
        }
    }

    /// Nothing is in force any more.
    pub fn withdraw(&mut self) {
        self.lost();
        self.standing.clear();
    }

    /// What stands.
    pub const fn standing(&self) -> &ByKind {
        &self.standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u32) -> ResourceVersion {
        ResourceVersion::parse(&number.to_string()).unwrap()
    }

    fn hear(marks: &mut Marks, number: u32, news: News) {
        marks.heard(ReportedKind::Ban, version(number), 1, news);
    }

    fn ban(marks: &Marks) -> Option<(ResourceVersion, ResourceVersion)> {
        marks.standing().get(&ReportedKind::Ban).map(|reached| (reached.version, reached.spec))
    }

    #[test]
    fn a_version_stands_once_what_was_committed_after_it_stands() {
        let mut marks = Marks::default();
        hear(&mut marks, 10, News::Spec);
        marks.handed();
        hear(&mut marks, 20, News::Spec);
        assert_eq!(ban(&marks), None);
        marks.idle();
        assert_eq!(ban(&marks), None, "something is on its way");
        marks.done();
        assert_eq!(ban(&marks), Some((version(10), version(10))));
        marks.handed();
        marks.lost();
        marks.done();
        marks.idle();
        assert_eq!(ban(&marks), Some((version(10), version(10))), "it did not go through");
        marks.handed();
        marks.done();
        assert_eq!(ban(&marks), Some((version(20), version(20))));
    }

    #[test]
    fn what_needs_no_commit_stands_when_nothing_waits_and_idle_news_press_nobody() {
        let mut marks = Marks::default();
        hear(&mut marks, 10, News::Spec);
        hear(&mut marks, 30, News::Idle);
        marks.idle();
        assert_eq!(ban(&marks), Some((version(30), version(10))));
        marks.withdraw();
        assert_eq!(ban(&marks), None);
    }
}

//! What pods learned from DNS, in the sets of the chains that ask for it.
use std::collections::BTreeMap;
use std::net::IpAddr;

use podwall_ruleset::{ChainName, Deadline, Family, Key, SetName, Value};

use crate::change::Change;
use crate::lessons::{Lesson, Subject};
use crate::model::NameList;

use super::Engine;

/// What one pod knows.
pub(super) type Lessons = BTreeMap<Subject, Deadline>;

impl Engine {
    /// A pod was given an address for a name.
    pub(super) fn learn(&mut self, lesson: Lesson) {
        let (pod, subject) = (lesson.pod, (lesson.list.clone(), lesson.address));
        let end = |engine: &Self| engine.cluster.lessons().end_of(pod, &subject);
        let before = end(self);
        // Nobody learns for another pod of his address: what that one learned went with it.
        self.cluster.apply(Change::Learned(lesson));
        let after = end(self);
        if let (Some(ends), Some(set)) = (after.filter(|_| before != after), subject.0.set(Family::of(&pod)))
        {
            self.recorder.put(&set, Key::Pair(pod, subject.1), Value::Until(ends));
        }
    }

    /// Time goes on: what has ended is taken out. Open connections are not looked at; they may go on.
    pub(super) fn forget_ended(&mut self, now: Deadline) {
        let ended = self.cluster.lessons().ended(now);
        self.cluster.apply(Change::Clock(now));
        for (pod, (list, address)) in ended {
            if let Some(set) = list.set(Family::of(&pod)) {
                self.recorder.take(&set, &Key::Pair(pod, address));
            }
        }
    }

    /// Brings the sets from what a pod knew to what it knows.
    pub(super) fn relearn(&mut self, pod: IpAddr, before: &Lessons) {
        let now = self.cluster.lessons().of(pod);
        let family = Family::of(&pod);
        for (list, address) in before.keys().filter(|subject| !now.contains_key(*subject)) {
            if let Some(set) = list.set(family) {
                self.recorder.take(&set, &Key::Pair(pod, *address));
            }
        }
        for (subject, ends) in now.iter().filter(|(subject, ends)| before.get(*subject) != Some(*ends)) {
            // Where no chain asks for the names there is no set, and nothing happens.
            if let Some(set) = subject.0.set(family) {
                self.recorder.put(&set, Key::Pair(pod, subject.1), Value::Until(*ends));
            }
        }
    }

    /// A chain begins to ask for names.
    pub(super) fn join_list(&mut self, list: &NameList, family: Family, chain: &ChainName) -> SetName {
        let (set, spec) = list.set(family);
        if !self.learned.contains_key(&set) {
            self.recorder.put_set(&set, spec);
            let id = list.id();
            let about = |lesson: &Lesson| lesson.list == id && Family::of(&lesson.pod) == family;
            for lesson in self.cluster.lessons().all().filter(about) {
                self.recorder.put(&set, Key::Pair(lesson.pod, lesson.address), Value::Until(lesson.ends));
            }
        }
        self.learned.entry(set.clone()).or_default().insert(chain.clone());
        set
    }

    /// A chain no longer asks; the last one takes the set along.
    pub(super) fn leave_list(&mut self, set: &SetName, chain: &ChainName) {
        let Some(users) = self.learned.get_mut(set) else { return };
        users.remove(chain);
        if users.is_empty() {
            self.learned.remove(set);
            self.recorder.drop_set(set);
        }
    }
}

//! What pods learned from DNS: which addresses stand for the names of which list, and until when. A plain store.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use podwall_ruleset::{Deadline, Family};

use crate::model::PodUid;
use crate::model::domain::ListId;

/// An address that a pod was given for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lesson {
    /// The pod's own address, from which it asked.
    pub pod: IpAddr,
    /// The pod; what another one of its address learned is not its own.
    pub owner: PodUid,
    /// The names it is for.
    pub list: ListId,
    /// What it learned; of the family of the pod's address.
    pub address: IpAddr,
    /// Until when.
    pub ends: Deadline,
}

/// Which lesson of a pod.
pub type Subject = (ListId, IpAddr);

/// All lessons that last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lessons {
    by_pod: BTreeMap<IpAddr, Pupil>,
    ends: BTreeSet<(Deadline, IpAddr, Subject)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pupil {
    uid: PodUid,
    known: BTreeMap<Subject, Deadline>,
}

impl Lessons {
    /// Keeps a lesson; one that is known already only ever lasts longer by it.
    pub fn keep(&mut self, lesson: Lesson) {
        let Lesson { pod, owner, list, address, ends } = lesson;
        if Family::of(&pod) != Family::of(&address) {
            return;
        }
        if self.owner(pod).is_some_and(|known| *known != owner) {
            self.forget(pod);
        }
        let subject = (list, address);
        let pupil = self.by_pod.entry(pod).or_insert_with(|| Pupil { uid: owner, known: BTreeMap::new() });
        match pupil.known.get(&subject) {
            Some(old) if *old >= ends => return,
            Some(old) => drop(self.ends.remove(&(*old, pod, subject.clone()))),
            None => {}
        }
        pupil.known.insert(subject.clone(), ends);
        self.ends.insert((ends, pod, subject));
    }

    /// Whose lessons of an address these are.
    pub fn owner(&self, pod: IpAddr) -> Option<&PodUid> {
        self.by_pod.get(&pod).map(|pupil| &pupil.uid)
    }

    /// Forgets all that a pod learned.
    pub fn forget(&mut self, pod: IpAddr) {
        let Some(pupil) = self.by_pod.remove(&pod) else { return };
        for (subject, ends) in pupil.known {
            self.ends.remove(&(ends, pod, subject));
        }
    }

    /// Forgets what has ended by now.
    pub fn expire(&mut self, now: Deadline) {
        while let Some(first) = self.ends.first().cloned().filter(|(ends, ..)| *ends <= now) {
            self.ends.remove(&first);
            let (_, pod, subject) = first;
            let Some(pupil) = self.by_pod.get_mut(&pod) else { continue };
            pupil.known.remove(&subject);
            if pupil.known.is_empty() {
                self.by_pod.remove(&pod);
            }
        }
    }

    /// What has ended by now, and whose it was.
    pub fn ended(&self, now: Deadline) -> Vec<(IpAddr, Subject)> {
        let ended = self.ends.iter().take_while(|(ends, ..)| *ends <= now);
        ended.map(|(_, pod, subject)| (*pod, subject.clone())).collect()
    }

    /// When the next one ends.
    pub fn next_end(&self) -> Option<Deadline> {
        self.ends.first().map(|(ends, ..)| *ends)
    }

    /// What a pod learned.
    pub fn of(&self, pod: IpAddr) -> BTreeMap<Subject, Deadline> {
        self.by_pod.get(&pod).map(|pupil| pupil.known.clone()).unwrap_or_default()
    }

    /// Until when a pod may use an address for the names of a list.
    pub fn end_of(&self, pod: IpAddr, subject: &Subject) -> Option<Deadline> {
        self.by_pod.get(&pod)?.known.get(subject).copied()
    }

    /// Everything, pod by pod.
    pub fn all(&self) -> impl Iterator<Item = Lesson> {
        self.by_pod.iter().flat_map(|(pod, pupil)| {
            pupil.known.iter().map(|((list, address), ends)| Lesson {
                pod: *pod,
                owner: pupil.uid.clone(),
                list: list.clone(),
                address: *address,
                ends: *ends,
            })
        })
    }
}

//! What the kernel is known to hold, so that an answer that brings nothing new is not held up; and by which names, so
//! that a policy that says other words keeps what it still means.
use std::collections::BTreeMap;
use std::net::IpAddr;

use podwall_engine::model::DomainName;

use super::words::Told;

/// Whose, for which names, what.
type Key = (IpAddr, String, IpAddr);

/// Names by which one address is held for one list, each until when.
pub type Names = BTreeMap<DomainName, u64>;

/// Addresses one pod may hold for the names of one list; the rest of a flood is refused.
pub const MOST: usize = 4096;
/// Names that are remembered of one address; beyond, that which ends first is forgotten.
const MOST_NAMES: usize = 8;

/// Confirmed lessons, by what they say, and until when.
#[derive(Debug, Default)]
pub struct Memory {
    held: BTreeMap<Key, Held>,
    /// When to look which of them have ended. Those renewed meanwhile are here twice.
    ends: BTreeMap<u64, Vec<Key>>,
    /// How many there are of each pod and list.
    counts: BTreeMap<(IpAddr, String), usize>,
}

/// One address that is open.
#[derive(Debug)]
pub struct Held {
    /// The pod that learned it.
    pub owner: String,
    /// Until when.
    pub ends: u64,
    /// By which names.
    pub names: Names,
    /// Did the agent that is there say so itself?
    sure: bool,
}

impl Held {
    fn name(&mut self, name: &DomainName, ends: u64) {
        if !self.names.contains_key(name)
            && self.names.len() >= MOST_NAMES
            && let Some(first) =
                self.names.iter().min_by_key(|(_, ends)| **ends).map(|(name, _)| name.clone())
        {
            self.names.remove(&first);
        }
        let known = self.names.entry(name.clone()).or_default();
        *known = ends.max(*known);
    }
}

impl Memory {
    /// The lessons that are not known to last until `wanted`. The others are known by this name as well from now on.
    pub fn missing(&mut self, name: &DomainName, lessons: &[Told], wanted: u64) -> Vec<Told> {
        let mut missing = Vec::new();
        for told in lessons {
            match self.held(told) {
                Some(held) if held.sure && held.ends >= wanted => held.name(name, wanted),
                Some(_) | None => missing.push(told.clone()),
            }
        }
        missing
    }

    /// If all of them stand at that moment: when the first of them ends.
    pub fn stand(&self, lessons: &[Told], moment: u64) -> Option<u64> {
        let end = |told: &Told| {
            let held = self.held.get(&key(told)).filter(|held| held.owner == told.owner)?;
            (held.ends > moment).then_some(held.ends)
        };
        lessons.iter().map(end).try_fold(u64::MAX, |first, end| Some(first.min(end?)))
    }

    /// Would they be too many for their pod? To last longer is not to be one more.
    pub fn is_full(&self, lessons: &[Told]) -> bool {
        let mut new = BTreeMap::<(IpAddr, &str), usize>::new();
        for told in lessons.iter().filter(|told| !self.held.contains_key(&key(told))) {
            *new.entry((told.pod, &told.list)).or_default() += 1;
        }
        new.into_iter().any(|((pod, list), new)| {
            self.counts.get(&(pod, list.to_owned())).copied().unwrap_or_default() + new > MOST
        })
    }

    /// The kernel holds these, by this name.
    pub fn note(&mut self, name: &DomainName, lessons: &[Told]) {
        for told in lessons {
            self.hold(told).name(name, told.ends);
        }
    }

    /// The kernel holds this, by these names.
    pub fn note_all(&mut self, told: &Told, names: &Names) {
        let held = self.hold(told);
        for (name, ends) in names {
            held.name(name, *ends);
        }
    }

    fn hold(&mut self, told: &Told) -> &mut Held {
        let key = key(told);
        if self.held.get(&key).is_some_and(|held| held.owner != told.owner) {
            self.held.remove(&key);
            self.uncount(&key);
        }
        if self.held.get(&key).is_none_or(|held| held.ends < told.ends) {
            self.ends.entry(told.ends).or_default().push(key.clone());
        }
        if !self.held.contains_key(&key) {
            *self.counts.entry((told.pod, told.list.clone())).or_default() += 1;
        }
        let held = self.held.entry(key).or_insert_with(|| Held {
            owner: told.owner.clone(),
            ends: told.ends,
            names: Names::new(),
            sure: true,
        });
        held.ends = held.ends.max(told.ends);
        held.sure = true;
        held
    }

    /// Another agent is there, which may know less than the one before: it is told once more.
    pub fn doubt_all(&mut self) {
        for held in self.held.values_mut() {
            held.sure = false;
        }
    }

    /// Is there anything the agent that is there did not say itself?
    pub fn doubts(&self) -> bool {
        self.held.values().any(|held| !held.sure)
    }

    /// Does the agent that is there hold it at least as long?
    pub fn is_sure(&self, told: &Told) -> bool {
        self.held
            .get(&key(told))
            .is_some_and(|held| held.sure && held.owner == told.owner && held.ends >= told.ends)
    }

    /// Everything: whose, what, and how it is held.
    pub fn all(&self) -> impl Iterator<Item = (IpAddr, IpAddr, &Held)> {
        self.held.iter().map(|((pod, _, address), held)| (*pod, *address, held))
    }

    /// Drops what has ended, without looking at what has not: answers wait meanwhile.
    pub fn sweep(&mut self, now: u64) {
        while let Some(first) = self.ends.first_entry().filter(|first| *first.key() <= now) {
            for key in first.remove() {
                if self.held.get(&key).is_some_and(|held| held.ends <= now) {
                    self.held.remove(&key);
                    self.uncount(&key);
                }
            }
        }
    }

    fn uncount(&mut self, (pod, list, _): &Key) {
        let of = (*pod, list.clone());
        if let Some(count) = self.counts.get_mut(&of) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&of);
            }
        }
    }

    fn held(&mut self, told: &Told) -> Option<&mut Held> {
        self.held.get_mut(&key(told)).filter(|held| held.owner == told.owner)
    }
}

fn key(told: &Told) -> Key {
    (told.pod, told.list.clone(), told.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(owner: &str, address: u8, ends: u64) -> Told {
        Told {
            pod: [10, 0, 0, 1].into(),
            owner: owner.to_owned(),
            list: "l".to_owned(),
            address: [198, 51, 100, address].into(),
            ends,
        }
    }

    fn api() -> DomainName {
        DomainName::new("api.example.com")
    }

    #[test]
    fn what_lasts_long_enough_is_not_told_again() {
        let mut memory = Memory::default();
        memory.note(&api(), &[told("u", 1, 100)]);
        let both = [told("u", 1, 200), told("u", 2, 200)];
        assert_eq!(memory.missing(&api(), &both, 100), [told("u", 2, 200)]);
        assert_eq!(memory.missing(&api(), &both, 101), both);
        assert_eq!(memory.stand(&both[..1], 99), Some(100));
        assert!(memory.stand(&both[..1], 100).is_none() && memory.stand(&both, 0).is_none());
    }

    #[test]
    fn a_pod_may_hold_so_many_and_more_again_when_some_have_ended() {
        let mut memory = Memory::default();
        let many = |ends| {
            (0..MOST).map(move |n| Told {
                address: std::net::Ipv4Addr::from_bits(u32::try_from(n).unwrap()).into(),
                ..told("u", 1, ends)
            })
        };
        memory.note(&api(), &many(100).collect::<Vec<_>>());
        memory.note(&api(), &many(200).take(1).collect::<Vec<_>>());
        let other = Told { list: "other".to_owned(), ..told("u", 1, 100) };
        assert!(memory.is_full(&[told("u", 9, 100)]) && !memory.is_full(&[other]));
        assert!(!memory.is_full(&many(300).collect::<Vec<_>>()), "those it holds may last longer");
        memory.sweep(100);
        assert!(!memory.is_full(&[told("u", 9, 100)]));
        assert!(memory.is_full(&many(300).chain([told("u", 9, 100)]).collect::<Vec<_>>()), "all at once");
    }

    #[test]
    fn what_was_renewed_lasts_beyond_its_first_end() {
        let mut memory = Memory::default();
        memory.note(&api(), &[told("u", 1, 100), told("u", 2, 100)]);
        memory.note(&api(), &[told("u", 1, 200)]);
        memory.sweep(100);
        assert_eq!(memory.stand(&[told("u", 1, 200)], 150), Some(200));
        assert_eq!(memory.stand(&[told("u", 2, 100)], 0), None);
        assert_eq!(memory.counts.values().sum::<usize>(), 1);
        memory.sweep(200);
        assert_eq!((memory.held.len(), memory.ends.len(), memory.counts.len()), (0, 0, 0));
    }

    #[test]
    fn another_pod_of_the_address_starts_from_nothing() {
        let mut memory = Memory::default();
        memory.note(&api(), &[told("old", 1, 100)]);
        assert_eq!(memory.missing(&api(), &[told("new", 1, 100)], 50).len(), 1);
        memory.note(&api(), &[told("new", 1, 90)]);
        assert_eq!(memory.stand(&[told("new", 1, 90)], 0), Some(90));
        memory.sweep(100);
        assert!(memory.stand(&[told("old", 1, 100)], 0).is_none() && memory.counts.is_empty());
    }

    #[test]
    fn another_agent_is_told_again_what_stands_meanwhile() {
        let mut memory = Memory::default();
        let lessons = [told("u", 1, 100)];
        memory.note(&api(), &lessons);
        assert!(!memory.doubts() && memory.is_sure(&lessons[0]));
        memory.doubt_all();
        assert!(memory.doubts() && !memory.is_sure(&lessons[0]));
        assert_eq!((memory.stand(&lessons, 50), memory.missing(&api(), &lessons, 50).len()), (Some(100), 1));
        memory.note(&api(), &lessons);
        assert!(memory.is_sure(&lessons[0]) && !memory.is_sure(&told("u", 1, 101)));
    }

    #[test]
    fn an_address_is_known_by_a_few_names_each_until_its_own_end() {
        let mut memory = Memory::default();
        memory.note(&api(), &[told("u", 1, 1000)]);
        for n in 0..20 {
            let name = DomainName::new(&format!("n{n}.example.com"));
            assert!(memory.missing(&name, &[told("u", 1, 500 + n)], 500 + n).is_empty());
        }
        let names = memory.all().map(|(_, _, held)| held.names.clone()).next().unwrap();
        assert_eq!((names.len(), names.get(&api())), (MOST_NAMES, Some(&1000)));
        assert_eq!(names.get(&DomainName::new("n19.example.com")), Some(&519));
    }
}

//! What the kernel is known to hold, so that an answer that brings nothing new is not held up.
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use super::words::Told;

/// Whose, for which names, what.
type Key = (IpAddr, String, IpAddr);

/// Addresses one pod may hold for the names of one list; the rest of a flood is refused.
pub const MOST: usize = 4096;

/// Confirmed lessons, by what they say, and until when.
#[derive(Debug, Default)]
pub struct Memory {
    held: BTreeMap<Key, (String, u64)>,
    /// When to look which of them have ended. Those renewed meanwhile are here twice.
    ends: BTreeMap<u64, Vec<Key>>,
    /// How many there are of each pod and list.
    counts: BTreeMap<(IpAddr, String), usize>,
}

impl Memory {
    /// The lessons that are not known to last until `wanted`.
    pub fn missing(&self, lessons: &[Told], wanted: u64) -> Vec<Told> {
        lessons.iter().filter(|told| self.end(told).is_none_or(|end| end < wanted)).cloned().collect()
    }

    /// Do all of them stand at that moment?
    pub fn stand(&self, lessons: &[Told], moment: u64) -> bool {
        lessons.iter().all(|told| self.end(told).is_some_and(|end| end > moment))
    }

    /// Would one of them be too many for its pod?
    pub fn is_full(&self, lessons: &[Told]) -> bool {
        let count =
            |told: &Told| self.counts.get(&(told.pod, told.list.clone())).copied().unwrap_or_default();
        lessons.iter().any(|told| count(told) >= MOST)
    }

    /// The kernel holds these.
    pub fn note(&mut self, lessons: &[Told]) {
        for told in lessons {
            let key = (told.pod, told.list.clone(), told.address);
            self.ends.entry(told.ends).or_default().push(key.clone());
            if self.held.insert(key, (told.owner.clone(), told.ends)).is_none() {
                *self.counts.entry((told.pod, told.list.clone())).or_default() += 1;
            }
        }
    }

    /// Whoever confirmed them may not know them any more.
    pub fn forget_all(&mut self) {
        self.held.clear();
        self.ends.clear();
        self.counts.clear();
    }

    /// Drops what has ended, without looking at what has not: answers wait meanwhile.
    pub fn sweep(&mut self, now: u64) {
        while let Some(first) = self.ends.first_entry().filter(|first| *first.key() <= now) {
            for key in first.remove() {
                if self.held.get(&key).is_some_and(|(_, end)| *end <= now) {
                    self.held.remove(&key);
                    self.uncount((key.0, key.1));
                }
            }
        }
    }

    fn uncount(&mut self, whose: (IpAddr, String)) {
        if let Entry::Occupied(mut count) = self.counts.entry(whose) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn end(&self, told: &Told) -> Option<u64> {
        let (owner, end) = self.held.get(&(told.pod, told.list.clone(), told.address))?;
        (*owner == told.owner).then_some(*end)
    }
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

    #[test]
    fn what_lasts_long_enough_is_not_told_again() {
        let mut memory = Memory::default();
        memory.note(&[told("u", 1, 100)]);
        let both = [told("u", 1, 200), told("u", 2, 200)];
        assert_eq!(memory.missing(&both, 100), [told("u", 2, 200)]);
        assert_eq!(memory.missing(&both, 101), both);
        assert!(memory.stand(&both[..1], 99) && !memory.stand(&both[..1], 100) && !memory.stand(&both, 0));
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
        memory.note(&many(100).collect::<Vec<_>>());
        memory.note(&many(200).take(1).collect::<Vec<_>>());
        let other = Told { list: "other".to_owned(), ..told("u", 1, 100) };
        assert!(memory.is_full(&[told("u", 9, 100)]) && !memory.is_full(&[other]));
        memory.sweep(100);
        assert!(!memory.is_full(&[told("u", 9, 300)]));
        assert_eq!(memory.counts.values().sum::<usize>(), 1);
    }

    #[test]
    fn what_was_renewed_lasts_beyond_its_first_end() {
        let mut memory = Memory::default();
        memory.note(&[told("u", 1, 100), told("u", 2, 100)]);
        memory.note(&[told("u", 1, 200)]);
        memory.sweep(100);
        assert!(memory.stand(&[told("u", 1, 200)], 150) && !memory.stand(&[told("u", 2, 100)], 0));
        assert_eq!(memory.counts.values().sum::<usize>(), 1);
        memory.sweep(200);
        assert_eq!((memory.held.len(), memory.ends.len(), memory.counts.len()), (0, 0, 0));
    }

    #[test]
    fn another_pod_of_the_address_starts_from_nothing() {
        let mut memory = Memory::default();
        memory.note(&[told("old", 1, 100)]);
        assert_eq!(memory.missing(&[told("new", 1, 100)], 50).len(), 1);
        memory.sweep(100);
        assert!(!memory.stand(&[told("old", 1, 100)], 0));
    }
}

//! What the kernel is known to hold, so that an answer that brings nothing new is not held up.
use std::collections::BTreeMap;
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
        lessons.iter().any(|told| {
            let first = (told.pod, told.list.clone(), IpAddr::from([0, 0, 0, 0]));
            let same = |(key, _): &(&Key, _)| key.0 == told.pod && key.1 == told.list;
            self.held.range(first..).take_while(same).count() >= MOST
        })
    }

    /// The kernel holds these.
    pub fn note(&mut self, lessons: &[Told]) {
        for told in lessons {
            let key = (told.pod, told.list.clone(), told.address);
            self.held.insert(key, (told.owner.clone(), told.ends));
        }
    }

    /// Whoever confirmed them may not know them any more.
    pub fn forget_all(&mut self) {
        self.held.clear();
    }

    /// Drops what has ended.
    pub fn sweep(&mut self, now: u64) {
        self.held.retain(|_, (_, end)| *end > now);
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
    fn another_pod_of_the_address_starts_from_nothing() {
        let mut memory = Memory::default();
        memory.note(&[told("old", 1, 100)]);
        assert_eq!(memory.missing(&[told("new", 1, 100)], 50).len(), 1);
        memory.sweep(100);
        assert!(!memory.stand(&[told("old", 1, 100)], 0));
    }
}

//! How much of the proxy one pod may take up: questions that are open, connections that are.
//!
//! Owns that one pod leaves the others theirs: it may take no more than what is left over after it. So however many are
//! greedy, whoever comes next finds as much as each of them has (Choudhury and Hahne, dynamic thresholds).
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Turns of one kind.
#[derive(Debug)]
pub struct Turns {
    /// One pod never has more.
    each: usize,
    /// All together never have more.
    all: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    by_pod: BTreeMap<IpAddr, usize>,
    all: usize,
}

/// One of them; given back when dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    pod: IpAddr,
}

impl Turns {
    /// None is taken.
    pub fn new(each: usize, all: usize) -> Arc<Self> {
        Arc::new(Self { each, all, taken: Mutex::default() })
    }

    /// One for a pod, unless it has too many.
    pub fn take(self: &Arc<Self>, pod: IpAddr) -> Option<Turn> {
        let mut taken = self.taken();
        let own = taken.by_pod.get(&pod).copied().unwrap_or_default();
        if own >= self.each.min(self.all.saturating_sub(taken.all)) {
            return None;
        }
        taken.all += 1;
        taken.by_pod.insert(pod, own + 1);
        Some(Turn { turns: Arc::clone(self), pod })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.turns.taken();
        taken.all -= 1;
        if let Some(own) = taken.by_pod.get_mut(&self.pod) {
            *own -= 1;
            if *own == 0 {
                taken.by_pod.remove(&self.pod);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(turns: &Arc<Turns>, pod: u8) -> Vec<Turn> {
        std::iter::from_fn(|| turns.take([10, 0, 0, pod].into())).collect()
    }

    #[test]
    fn a_pod_has_so_many_and_gets_them_back() {
        let turns = Turns::new(3, 100);
        let mut mine = take_all(&turns, 1);
        assert_eq!(mine.len(), 3);
        mine.pop();
        assert_eq!(take_all(&turns, 1).len(), 1);
        drop(mine);
        assert_eq!(take_all(&turns, 1).len(), 3);
        assert!(turns.taken().by_pod.is_empty() && turns.taken().all == 0);
    }

    #[test]
    fn however_many_are_greedy_there_is_something_left_for_the_next() {
        let turns = Turns::new(64, 100);
        let greedy: Vec<Vec<Turn>> = (0..5).map(|pod| take_all(&turns, pod)).collect();
        let had: Vec<usize> = greedy.iter().map(Vec::len).collect();
        assert_eq!(had, [50, 25, 13, 6, 3]);
        assert_eq!(take_all(&turns, 99).len(), 2);
    }
}

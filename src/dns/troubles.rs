//! Names that a policy allows and pods do not get as they should, for the status of the policy.
//!
//! A name that has addresses of one family only has none of the other, and both are asked for at once: nothing is
//! told of a name that had an address before, or may have one in a moment.
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use podwall_crd::node_report::NameTrouble;

use super::words::Named;

/// For so long a name may turn out to have an address after all.
const SETTLING: Duration = Duration::from_secs(5);
/// Whoever has not asked for so long does not use the name.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// Names in trouble, of one list and of all; beyond, no more are looked at. A status has room for sixteen.
const MOST: (usize, usize) = (32, 1024);
/// Names known to have had an address; beyond, all are learned anew.
const MOST_GOOD: usize = 20_000;

/// What is wrong, and with which names it is not.
#[derive(Debug, Default)]
pub struct Troubles {
    bad: BTreeMap<String, Trouble>,
    good: BTreeSet<String>,
}

#[derive(Debug)]
struct Trouble {
    what: NameTrouble,
    lists: BTreeSet<String>,
    since: Instant,
    asked: Instant,
}

impl Troubles {
    /// A name has addresses, and they are open.
    pub fn good(&mut self, name: &str) {
        self.bad.remove(name);
        if !self.good.contains(name) {
            if self.good.len() >= MOST_GOOD {
                self.good.clear();
            }
            self.good.insert(name.to_owned());
        }
    }

    /// Something is wrong with a name of these lists.
    pub fn bad(&mut self, what: NameTrouble, name: &str, lists: BTreeSet<String>, now: Instant) {
        let known = self.bad.contains_key(name);
        let resolved = what == NameTrouble::Unresolved && self.good.contains(name);
        if resolved || (!known && self.is_full(&lists)) {
            return;
        }
        let trouble = self.bad.entry(name.to_owned()).or_insert_with(|| Trouble {
            what,
            lists: BTreeSet::new(),
            since: now,
            asked: now,
        });
        trouble.lists.extend(lists);
        (trouble.what, trouble.asked) = (what, now);
    }

    fn is_full(&self, lists: &BTreeSet<String>) -> bool {
        let of = |list: &String| self.bad.values().filter(|trouble| trouble.lists.contains(list)).count();
        self.bad.len() >= MOST.1 || lists.iter().any(|list| of(list) >= MOST.0)
    }

    /// What is sure by now.
    pub fn settled(&mut self, now: Instant) -> Vec<Named> {
        self.bad.retain(|_, trouble| now.duration_since(trouble.asked) < FORGOTTEN);
        let sure = self.bad.iter().filter(|(_, trouble)| now.duration_since(trouble.since) >= SETTLING);
        sure.map(|(name, trouble)| Named {
            name: name.clone(),
            lists: trouble.lists.clone(),
            trouble: trouble.what,
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(id: &str) -> BTreeSet<String> {
        [id.to_owned()].into()
    }

    fn told(troubles: &mut Troubles, at: Instant) -> Vec<(String, NameTrouble)> {
        troubles.settled(at).into_iter().map(|named| (named.name, named.trouble)).collect()
    }

    #[test]
    fn a_name_without_addresses_is_told_of_once_that_is_sure_and_as_long_as_it_is_asked_for() {
        let (mut troubles, start) = (Troubles::default(), Instant::now());
        troubles.bad(NameTrouble::Unresolved, "typo.example", list("a"), start);
        assert_eq!(told(&mut troubles, start), []);
        let wanted = [("typo.example".to_owned(), NameTrouble::Unresolved)];
        assert_eq!(told(&mut troubles, start + SETTLING), wanted);
        troubles.bad(NameTrouble::Unresolved, "typo.example", list("b"), start + SETTLING);
        let lists: Vec<_> = troubles.settled(start + SETTLING).into_iter().map(|named| named.lists).collect();
        assert_eq!(lists, [["a", "b"].map(str::to_owned).into()]);
        assert_eq!(told(&mut troubles, start + FORGOTTEN), wanted);
        assert_eq!(told(&mut troubles, start + SETTLING + FORGOTTEN), []);
    }

    #[test]
    fn a_name_of_one_family_is_not_told_of_whichever_answer_comes_first() {
        let (mut troubles, start) = (Troubles::default(), Instant::now());
        troubles.good("first.example");
        troubles.bad(NameTrouble::Unresolved, "first.example", list("a"), start);
        troubles.bad(NameTrouble::Unresolved, "last.example", list("a"), start);
        troubles.good("last.example");
        assert_eq!(told(&mut troubles, start + SETTLING), []);
        // But one may have had addresses, and then more than a pod may learn.
        troubles.bad(NameTrouble::AtCapacity, "last.example", list("a"), start);
        let wanted = [("last.example".to_owned(), NameTrouble::AtCapacity)];
        assert_eq!(told(&mut troubles, start + SETTLING), wanted);
        troubles.good("last.example");
        assert_eq!(told(&mut troubles, start + SETTLING), []);
    }

    #[test]
    fn a_pod_that_asks_for_ever_new_names_leaves_room_for_the_troubles_of_others() {
        let (mut troubles, start) = (Troubles::default(), Instant::now());
        for n in 0..2000 {
            troubles.bad(NameTrouble::Unresolved, &format!("n{n}.example"), list("flood"), start);
        }
        troubles.bad(NameTrouble::Unresolved, "typo.example", list("other"), start);
        let told = told(&mut troubles, start + SETTLING);
        assert_eq!(told.len(), MOST.0 + 1);
        assert!(told.iter().any(|(name, _)| name == "typo.example"));
    }
}

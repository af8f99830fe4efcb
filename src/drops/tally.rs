//! True numbers of dropped packets. Records are sampled where a source sends too many; the kernel's counters are not.
//!
//! A counter is a chain's, and records tell which flows its packets were of. What the counter has beyond the records
//! can only be of sources that were sampled: it is theirs, in the proportion of their records. With one such source,
//! which is what a flood is, that is exact; over all flows of a chain it always adds up.
use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::IpAddr;

/// What was counted and what was told of it.
#[derive(Debug)]
pub struct Tally<K> {
    /// Records a source gets through in the time between two looks, whatever it sends.
    limit: u64,
    chains: BTreeMap<String, Chain<K>>,
    looks: u64,
}

#[derive(Debug)]
struct Chain<K> {
    /// What the kernel counted when it was looked at last.
    counted: Option<u64>,
    /// Packets counted since, and not yet somebody's.
    owed: i128,
    flows: BTreeMap<(IpAddr, K), u64>,
}

impl<K> Default for Chain<K> {
    fn default() -> Self {
        Self { counted: None, owed: 0, flows: BTreeMap::new() }
    }
}

/// How many flows are kept between two looks.
const MOST_FLOWS: usize = 4096;

impl<K: Ord + Hash + Clone> Tally<K> {
    /// `limit`: a source that told of so many was sampled.
    pub const fn new(limit: u64) -> Self {
        Self { limit, chains: BTreeMap::new(), looks: 0 }
    }

    /// One record of a flow.
    pub fn record(&mut self, chain: &str, source: IpAddr, flow: K) {
        let own = match self.chains.get_mut(chain) {
            Some(own) => own,
            None => self.chains.entry(chain.to_owned()).or_default(),
        };
        own.owed -= 1;
        let flow = (source, flow);
        if own.flows.len() < MOST_FLOWS || own.flows.contains_key(&flow) {
            *own.flows.entry(flow).or_default() += 1;
        }
    }

    /// The kernel's counters, by chain; answers how many packets more each flow had than were told.
    pub fn look(&mut self, counters: &BTreeMap<String, u64>) -> Vec<(K, u64)> {
        self.chains.retain(|chain, _| counters.contains_key(chain));
        let (first, mut more) = (self.looks == 0, Vec::new());
        self.looks += 1;
        for (chain, packets) in counters {
            let own = self.chains.entry(chain.clone()).or_default();
            let since = match own.counted {
                Some(before) if before <= *packets => packets - before,
                // What was there before us is not ours to count, but for what was told of it.
                None if first => u64::try_from(-own.owed.min(0)).unwrap_or_default(),
                // It was made since the last look, or made anew.
                Some(_) | None => *packets,
            };
            own.counted = Some(*packets);
            own.owed += i128::from(since);
            more.extend(own.share(self.limit));
        }
        more
    }
}

impl<K: Ord + Clone> Chain<K> {
    fn share(&mut self, limit: u64) -> Vec<(K, u64)> {
        let flows = std::mem::take(&mut self.flows);
        let Ok(owed) = u64::try_from(self.owed) else { return Vec::new() };
        let mut by_source: BTreeMap<IpAddr, u64> = BTreeMap::new();
        for ((source, _), records) in &flows {
            *by_source.entry(*source).or_default() += records;
        }
        let sampled = |source: &IpAddr| by_source.get(source).is_some_and(|records| *records >= limit);
        let sampled: Vec<(K, u64)> = flows
            .into_iter()
            .filter(|((source, _), _)| sampled(source))
            .map(|((_, key), n)| (key, n))
            .collect();
        let records: u64 = sampled.iter().map(|(_, records)| records).sum();
        if records == 0 || owed == 0 {
            return Vec::new();
        }
        let mut left = owed;
        let last = sampled.len() - 1;
        let shares = sampled.into_iter().enumerate().map(|(number, (key, own))| {
            let share = u128::from(owed) * u128::from(own) / u128::from(records);
            let share = if number == last { left } else { u64::try_from(share).unwrap_or(left).min(left) };
            left -= share;
            (key, share)
        });
        let shares = shares.filter(|(_, share)| *share > 0).collect();
        self.owed = 0;
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(packets: u64) -> BTreeMap<String, u64> {
        BTreeMap::from([("i4_x".to_owned(), packets)])
    }

    fn tally() -> Tally<&'static str> {
        let mut tally = Tally::new(10);
        assert_eq!(tally.look(&counters(1000)), [], "before us");
        tally
    }

    fn record(tally: &mut Tally<&'static str>, source: u8, flow: &'static str, times: u64) {
        for _ in 0..times {
            tally.record("i4_x", [10, 0, 0, source].into(), flow);
        }
    }

    #[test]
    fn where_every_packet_was_told_there_is_nothing_more() {
        let mut tally = tally();
        record(&mut tally, 1, "a", 3);
        assert_eq!(tally.look(&counters(1003)), []);
    }

    #[test]
    fn a_flood_of_one_source_is_counted_exactly_and_its_quiet_neighbour_is_not_charged() {
        let mut tally = tally();
        record(&mut tally, 1, "flood", 20);
        record(&mut tally, 2, "quiet", 3);
        assert_eq!(tally.look(&counters(101_023)), [("flood", 100_000)]);
        assert_eq!(tally.look(&counters(101_023)), []);
    }

    #[test]
    fn two_floods_share_what_is_more_and_it_adds_up() {
        let mut tally = tally();
        record(&mut tally, 1, "one", 30);
        record(&mut tally, 2, "two", 10);
        let more = tally.look(&counters(1000 + 40 + 101));
        assert_eq!(more, [("one", 75), ("two", 26)]);
    }

    #[test]
    fn a_packet_counted_before_its_record_came_is_not_counted_twice() {
        let mut tally = tally();
        record(&mut tally, 1, "a", 19);
        assert_eq!(tally.look(&counters(1020)), [("a", 1)]);
        record(&mut tally, 1, "a", 1);
        assert_eq!(tally.look(&counters(1020)), [], "the record came late");
        record(&mut tally, 1, "a", 12);
        assert_eq!(tally.look(&counters(1032)), [], "made up for");
        record(&mut tally, 1, "a", 12);
        assert_eq!(tally.look(&counters(1054)), [("a", 10 - 1)]);
    }

    #[test]
    fn a_chain_made_since_the_last_look_counts_from_nothing() {
        let mut tally = Tally::new(10);
        assert_eq!(tally.look(&BTreeMap::new()), []);
        record(&mut tally, 1, "a", 20);
        assert_eq!(tally.look(&counters(300)), [("a", 280)]);
    }

    #[test]
    fn a_chain_made_anew_counts_from_nothing() {
        let mut tally = tally();
        record(&mut tally, 1, "a", 10);
        assert_eq!(tally.look(&counters(50)), [("a", 40)]);
    }
}

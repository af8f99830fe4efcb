//! How often people are told of what a pod asks for in vain: names are endless, events are kept by the API server.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// So many may be told closely after each other.
const FIRST: u32 = 10;
/// How far they are apart then.
const CLOSE: Duration = Duration::from_secs(2);
/// And those after them.
const APART: Duration = Duration::from_secs(60);
/// A pod of which nothing was told for so long begins anew.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// What was told of whom.
#[derive(Debug, Default)]
pub struct Pace {
    told: BTreeMap<String, (u32, Instant)>,
}

impl Pace {
    /// May something be told of the pod now? Then it is told.
    pub fn allows(&mut self, pod: &str, now: Instant) -> bool {
        if let Some((count, last)) = self.told.get_mut(pod) {
            let since = now.duration_since(*last);
            if since < FORGOTTEN {
                let apart = if *count < FIRST { CLOSE } else { APART };
                let may = since >= apart;
                if may {
                    (*count, *last) = (*count + 1, now);
                }
                return may;
            }
        }
        self.told.retain(|_, (_, last)| now.duration_since(*last) < FORGOTTEN);
        self.told.insert(pod.to_owned(), (1, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_asks_for_ever_new_names_is_told_of_ever_less_and_others_as_before() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut told = 0;
        for second in 0..600 {
            told += u32::from(pace.allows("a/loud", start + Duration::from_secs(second)));
        }
        // Ten in the first eighteen seconds, then one a minute.
        assert_eq!(told, 19);
        assert!(pace.allows("a/quiet", start + Duration::from_secs(600)));
        assert!(!pace.allows("a/loud", start + Duration::from_secs(600)));
        assert!(pace.allows("a/loud", start + Duration::from_secs(600) + FORGOTTEN));
        assert!(pace.allows("a/loud", start + Duration::from_secs(602) + FORGOTTEN));
    }
}

//! What pods asked for and got, for `podwall domains`: told on `<state-dir>/domains.sock`, to root alone.
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;

use super::exchange::Exchange;

/// The socket in the state folder.
pub const SOCKET: &str = "domains.sock";
/// Names that are remembered of one pod; for another, that goes which was asked for longest ago, those without an open
/// address first.
const MOST: usize = 500;

/// A name that a pod asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// `namespace/name`.
    pub pod: String,
    /// The name.
    pub name: String,
    /// How often it was asked for.
    pub queries: u64,
    /// What came of it last.
    pub outcome: Outcome,
    /// What it allows that comes closest, where no policy lists the name.
    pub nearest: Option<String>,
    /// What is open by it.
    pub addresses: Vec<Open>,
}

/// An address that is open to a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Open {
    /// The address.
    pub address: IpAddr,
    /// The pod's own.
    pub pod: IpAddr,
    /// Until when, in milliseconds since 1970.
    pub ends: u64,
}

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Its addresses are open.
    Open,
    /// It has none.
    Unresolved,
    /// No policy lists it.
    Unlisted,
    /// The answer was refused, or not confirmed.
    Refused,
}

/// What is remembered.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<(String, String), Noted>,
    /// How many there are of each pod.
    counts: BTreeMap<String, usize>,
    asked: u64,
}

#[derive(Debug)]
struct Noted {
    queries: u64,
    outcome: Outcome,
    nearest: Option<String>,
    open: BTreeMap<(IpAddr, IpAddr), u64>,
    /// Counts up with every question.
    asked: u64,
}

impl Ledger {
    /// Notes a question and what came of it; answers whether that is anything new.
    pub fn note(
        &mut self,
        (pod, name): (&str, &str),
        outcome: Outcome,
        nearest: Option<String>,
        open: &[Open],
    ) -> bool {
        let key = (pod.to_owned(), name.to_owned());
        if !self.entries.contains_key(&key) {
            self.make_room(pod);
        }
        self.asked += 1;
        let noted = self.entries.entry(key).or_insert(Noted {
            queries: 0,
            outcome,
            nearest: None,
            open: BTreeMap::new(),
            asked: 0,
        });
        noted.asked = self.asked;
        // A name of one family has no addresses of the other, and is asked for both.
        let outcome = match (noted.outcome, outcome) {
            (Outcome::Open, Outcome::Unresolved) => Outcome::Open,
            (_, outcome) => outcome,
        };
        let new = noted.queries == 0 || noted.outcome != outcome;
        noted.queries += 1;
        (noted.outcome, noted.nearest) = (outcome, nearest);
        noted.open.extend(open.iter().map(|open| ((open.address, open.pod), open.ends)));
        new
    }

    /// For one more name of a pod.
    fn make_room(&mut self, pod: &str) {
        let count = self.counts.entry(pod.to_owned()).or_default();
        if *count < MOST {
            *count += 1;
            return;
        }
        let own = self.entries.range((pod.to_owned(), String::new())..).take_while(|((of, _), _)| of == pod);
        let oldest = own.min_by_key(|(_, noted)| (!noted.open.is_empty(), noted.asked));
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.entries.remove(&key);
        }
    }

    /// Drops addresses that have ended, and pods that are gone.
    pub fn sweep(&mut self, now: u64, lives: impl Fn(&str) -> bool) {
        for noted in self.entries.values_mut() {
            noted.open.retain(|_, ends| *ends > now);
        }
        if !self.counts.keys().all(|pod| lives(pod)) {
            self.counts.retain(|pod, _| lives(pod));
            self.entries.retain(|(pod, _), _| lives(pod));
        }
    }

    /// All of it.
    pub fn page(&self, now: u64) -> Vec<Entry> {
        let open = |noted: &Noted| {
            let lasting = noted.open.iter().filter(|(_, ends)| **ends > now);
            lasting.map(|((address, pod), ends)| Open { address: *address, pod: *pod, ends: *ends }).collect()
        };
        let entry = |((pod, name), noted): (&(String, String), &Noted)| Entry {
            pod: pod.clone(),
            name: name.clone(),
            queries: noted.queries,
            outcome: noted.outcome,
            nearest: noted.nearest.clone(),
            addresses: open(noted),
        };
        self.entries.iter().map(entry).collect()
    }
}

/// Opens the socket; one that is there was left behind.
pub fn bind(state_dir: &Path) -> io::Result<UnixListener> {
    std::fs::create_dir_all(state_dir)?;
    let path = state_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Tells everybody who comes, until the task is dropped.
pub async fn serve(listener: UnixListener, exchange: Arc<Exchange>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let page = exchange.page();
        tokio::spawn(async move {
            if let Ok(text) = serde_json::to_vec(&page) {
                // Whoever asked may be gone.
                let _ = stream.write_all(&text).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_not_open_and_pods_that_are_gone_are_forgotten() {
        let mut ledger = Ledger::default();
        let open = |ends| Open { address: [198, 51, 100, 1].into(), pod: [10, 0, 0, 1].into(), ends };
        ledger.note(("a/one", "api.example.com"), Outcome::Open, None, &[open(100)]);
        ledger.note(("a/one", "api.example.com"), Outcome::Open, None, &[open(200)]);
        ledger.note(("a/two", "x.example.org"), Outcome::Unlisted, Some("example.com".to_owned()), &[]);
        let told: Vec<_> =
            ledger.page(150).into_iter().map(|e| (e.pod, e.queries, e.outcome, e.addresses)).collect();
        let wanted = [
            ("a/one".to_owned(), 2, Outcome::Open, vec![open(200)]),
            ("a/two".to_owned(), 1, Outcome::Unlisted, Vec::new()),
        ];
        assert_eq!(told, wanted);
        ledger.note(("a/one", "api.example.com"), Outcome::Unresolved, None, &[]);
        assert_eq!(ledger.page(150)[0].outcome, Outcome::Open, "no addresses of the other family");
        assert!(ledger.page(200)[0].addresses.is_empty());
        ledger.sweep(150, |pod| pod == "a/two");
        assert_eq!(ledger.page(150).len(), 1);
    }

    #[test]
    fn a_pod_that_asks_for_ever_new_names_forgets_its_own_oldest_and_nobody_elses() {
        let mut ledger = Ledger::default();
        let open = Open { address: [198, 51, 100, 1].into(), pod: [10, 0, 0, 1].into(), ends: 100 };
        ledger.note(("a/other", "api.example.com"), Outcome::Unlisted, None, &[]);
        ledger.note(("a/one", "open.example.com"), Outcome::Open, None, &[open]);
        for n in 0..MOST * 2 {
            ledger.note(("a/one", &format!("n{n}.example.com")), Outcome::Unlisted, None, &[]);
        }
        let names: Vec<String> = ledger.page(0).into_iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), MOST + 1);
        let last = format!("n{}.example.com", MOST * 2 - 1);
        for kept in ["api.example.com", "open.example.com", &last] {
            assert!(names.iter().any(|name| name == kept), "{kept}");
        }
        assert!(!names.iter().any(|name| name == "n0.example.com"));
        ledger.sweep(0, |pod| pod == "a/other");
        assert_eq!((ledger.page(0).len(), ledger.counts.len()), (1, 1));
    }
}

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;

/// Notes what it is told, and refuses some of it, counted from the first.
struct Scribe {
    notes: Arc<Mutex<Vec<String>>>,
    refuses: &'static [usize],
}

impl Scribe {
    fn note(&mut self, note: String) -> Result<(), BackendError> {
        let mut notes = self.notes.lock().unwrap();
        notes.push(note);
        if self.refuses.contains(&notes.len()) { Err(BackendError::Stale) } else { Ok(()) }
    }
}

impl Detour for Scribe {
    fn set(&mut self, askers: &Askers, ways: &BTreeMap<IpAddr, u16>) -> Result<(), BackendError> {
        self.note(format!("{askers:?} {ways:?}"))
    }

    fn renew(&mut self) -> Result<Option<String>, BackendError> {
        self.note("renewed".to_owned()).map(|()| None)
    }

    fn close(&mut self) -> Result<(), BackendError> {
        self.note("closed".to_owned())
    }
}

#[test]
fn what_was_refused_is_set_as_a_whole_at_the_next_renewal_and_told_when_it_is_done() {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let (lane, thread) = start(Box::new(Scribe { notes: Arc::clone(&notes), refuses: &[1, 3] })).unwrap();
    let all = || notes.lock().unwrap().clone();
    let comes_to = |count: usize| {
        (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            all().len() == count
        })
    };
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let server = ip("10.96.0.10");
    let mut told = lane.set([(ip("10.0.0.2"), server)].into(), [(server, 9000)].into());
    assert!(comes_to(1) && told.try_recv().is_err());
    lane.renew();
    assert!(comes_to(2));
    for count in 3..=5 {
        lane.renew();
        assert!(comes_to(count));
    }
    drop(lane);
    thread.join().unwrap();
    told.try_recv().unwrap();
    let set = "{(10.0.0.2, 10.96.0.10)} {10.96.0.10: 9000}";
    assert_eq!(all(), [set, set, "renewed", set, "renewed", "closed"]);
}

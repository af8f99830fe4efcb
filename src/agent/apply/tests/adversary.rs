//! Others at our table: what they leave behind, take away, or make before us.
use std::sync::atomic::{AtomicUsize, Ordering};

use podwall_ruleset::Guard;

use super::*;

/// A kernel in which somebody made an unowned table of our name, and keeps what is foreign in it.
struct Squatted {
    inner: Shared,
    owned: Capabilities,
    looked: bool,
    keeps: bool,
}

impl Squatted {
    fn new(inner: Shared, keeps: bool) -> Self {
        let owned = Capabilities { guard: Guard::Owned, ..inner.capabilities.clone() };
        Self { inner, owned, looked: false, keeps }
    }
}

impl Backend for Squatted {
    fn capabilities(&self) -> &Capabilities {
        if self.looked { &self.inner.capabilities } else { &self.owned }
    }

    fn observe(&mut self) -> Result<Observed, BackendError> {
        self.looked = true;
        self.inner.observe()
    }

    fn check(&mut self, transaction: &Transaction) -> Result<(), BackendError> {
        self.inner.check(transaction)
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<Receipt, BackendError> {
        self.inner.commit(transaction)
    }

    fn sweep(&mut self) -> Result<(), BackendError> {
        if self.keeps { Ok(()) } else { self.inner.sweep() }
    }

    fn counters(&mut self) -> Result<Vec<Counter>, BackendError> {
        self.inner.counters()
    }

    fn hits(&mut self) -> Result<Vec<podwall_ruleset::Hit>, BackendError> {
        self.inner.hits()
    }
}

fn squatted(keeps: bool) -> (Case, Arc<AtomicUsize>) {
    let wanted = Case::settled().engine.ruleset().clone();
    let mut case = Case::over(Fake::holding(wanted));
    let listening = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&listening);
    let start: StartListening = Box::new(move || {
        heard.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    let backend = Box::new(Squatted::new(case.backend.clone(), keeps));
    case.applier.kernel = Kernel::new(backend, "memory", start, case.applier.telemetry.clone());
    (case, listening)
}

#[test]
fn a_table_that_turns_out_not_to_be_owned_is_listened_to_from_then_on_and_once() {
    let (mut case, listening) = squatted(false);
    case.settle();
    case.applier.audit();
    assert_eq!(listening.load(Ordering::Relaxed), 1);
}

#[test]
fn what_no_ruleset_can_name_is_swept_out_and_what_stays_makes_the_node_unready() {
    for (keeps, concerns) in [(false, "ready\n"), (true, "not ready\n")] {
        let (mut case, _) = squatted(keeps);
        case.settle();
        case.backend.fake.lock().unwrap().write_foreign(&["a chain: Back_Door"], |_| {});
        case.applier.work(Work::Foreign(None));
        case.settle();
        assert!(case.concerns().starts_with(concerns), "{}", case.concerns());
        assert_eq!(case.concerns().contains("Back_Door"), keeps, "{}", case.concerns());
    }
}

#[test]
fn flows_are_judged_again_after_a_table_that_was_touched_although_nothing_differs_any_more() {
    let wanted = Case::settled().engine.ruleset().clone();
    let mut case = Case::over(Fake::holding(wanted));
    case.backend.fake.lock().unwrap().write_foreign(&["the table was dormant"], |_| {});
    case.applier.due(Instant::now());
    case.backend.fake.lock().unwrap().sweep().unwrap();
    case.settle();
    assert_eq!(case.jobs.try_recv().unwrap().judged, [1, 2].map(address).into());
    assert!(case.stands_as_wanted());
}

#[test]
fn teardown_takes_an_empty_table_too() {
    let mut case = Case::over(Fake::holding(Ruleset::default()));
    assert_eq!(case.applier.tear_down(), Ok(Removed::default()));
    assert_eq!(case.backend.table(), None);
    assert_eq!(case.applier.tear_down(), Ok(Removed::default()), "and none does no harm");
}

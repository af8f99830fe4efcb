//! The apply thread's work against a backend in memory that fails on demand.
use std::net::IpAddr;
use std::sync::{Arc, Mutex, mpsc};

use podwall_engine::change::Change;
use podwall_engine::compile::names;
use podwall_engine::model::{Action, IpBlock};
use podwall_engine::model::{
    Labels, Life, Network, Node, NodeName, Peer, PeerSelector, Peers, Pod, PodUid, Policy, PolicyId,
    PolicyKind, PolicyRule, Ports, Scope, Selector, Tier,
};
use podwall_engine::{Engine, Options};
use podwall_ruleset::fake::{Failure as Fault, Fake};
use podwall_ruleset::{
    Capabilities, Chain, ChainName, Counter, Digest, ForeignChange, Key, Match, Observed, Op, Receipt,
    Refusal, RuleId, Transaction, Verdict,
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;

mod adversary;
mod picky;
mod switch;

/// A fake the test can look into while the applier holds it.
#[derive(Clone)]
struct Shared {
    fake: Arc<Mutex<Fake>>,
    capabilities: Capabilities,
}

impl Shared {
    fn new(fake: Fake) -> Self {
        let capabilities = fake.capabilities().clone();
        Self { fake: Arc::new(Mutex::new(fake)), capabilities }
    }

    fn table(&self) -> Option<Ruleset> {
        self.fake.lock().unwrap().table().cloned()
    }

    fn commits(&self) -> usize {
        self.fake.lock().unwrap().committed().len()
    }

    fn fail(&self, commit: usize, fault: Fault) {
        self.fake.lock().unwrap().fail(commit, fault);
    }
}

impl Backend for Shared {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn observe(&mut self) -> Result<Observed, BackendError> {
        self.fake.lock().unwrap().observe()
    }

    fn check(&mut self, transaction: &Transaction) -> Result<(), BackendError> {
        self.fake.lock().unwrap().check(transaction)
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<Receipt, BackendError> {
        self.fake.lock().unwrap().commit(transaction)
    }

    fn sweep(&mut self) -> Result<(), BackendError> {
        self.fake.lock().unwrap().sweep()
    }

    fn counters(&mut self) -> Result<Vec<Counter>, BackendError> {
        self.fake.lock().unwrap().counters()
    }

    fn hits(&mut self) -> Result<Vec<podwall_ruleset::Hit>, BackendError> {
        self.fake.lock().unwrap().hits()
    }
}

/// An applier with an engine behind it that answers as the planner would.
struct Case {
    backend: Shared,
    applier: Applier,
    outcomes: UnboundedReceiver<Outcome>,
    jobs: Receiver<Job>,
    engine: Engine,
    state: tempfile::TempDir,
}

impl Case {
    fn over(fake: Fake) -> Self {
        Self::with(fake, tempfile::tempdir().unwrap())
    }

    /// Another agent in a state folder that an earlier one may have used.
    fn with(fake: Fake, state: tempfile::TempDir) -> Self {
        Self::beside(fake, state, switch::nothing())
    }

    /// The same, where earlier agents used other packet filters.
    fn beside(fake: Fake, state: tempfile::TempDir, elsewhere: Elsewhere) -> Self {
        let backend = Shared::new(fake);
        let (sender, outcomes) = tokio::sync::mpsc::unbounded_channel();
        let (jobs, received) = mpsc::channel();
        let applier = Applier::new(Setup {
            backend: Box::new(backend.clone()),
            place: "memory",
            elsewhere,
            start_listening: Box::new(|| Ok(())),
            established: Established::Recheck,
            outcomes: sender,
            jobs,
            adoption: Adoption::open(state.path()),
            telemetry: Telemetry::default(),
        });
        let mut engine = Engine::new(NodeName::from("a"), Options::default());
        for change in [Change::Node(node()), pod(1), pod(2), Change::Policy(policy("deny", None))] {
            engine.apply(change);
        }
        engine.take();
        Self { backend, applier, outcomes, jobs: received, engine, state }
    }

    /// An agent that has adopted an empty kernel.
    fn settled() -> Self {
        let mut case = Self::over(Fake::default());
        case.settle();
        assert_eq!(case.backend.table().as_ref(), Some(case.engine.ruleset()));
        case
    }

    /// Lets time pass and answers like the planner, until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..10 {
            let now = Instant::now() + LONGEST_PAUSE;
            self.applier.due(now);
            while let Ok(outcome) = self.outcomes.try_recv() {
                self.answer(outcome);
            }
        }
    }

    fn answer(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Standing(_) | Outcome::Lost => self.give_whole(),
            Outcome::Refused(chains) => {
                self.engine.apply(Change::Refused(chains.into_keys().collect()));
                self.give_whole();
            }
            Outcome::Done
            | Outcome::Undone
            | Outcome::TornDown
            | Outcome::Judged(_)
            | Outcome::Learned(_)
            | Outcome::Hits(_) => {}
        }
    }

    fn give_whole(&mut self) {
        let Update { delta: _, tightened, released, barred } = self.engine.take();
        let ruleset = self.engine.ruleset().clone();
        self.applier.work(Work::Wanted(Wanted {
            ruleset,
            tightened,
            released,
            barred,
            since: None,
            pupils: Vec::new(),
        }));
    }

    fn change(&mut self, change: Change) {
        self.engine.apply(change);
        let update = self.engine.take();
        self.applier.work(Work::Update { update, since: Instant::now(), pupils: Vec::new() });
    }

    /// What stands, without what only waits to be deleted and the temporary recheck.
    fn stands_as_wanted(&mut self) -> bool {
        self.settle();
        let last = self.applier.recheck.number();
        self.applier.work(Work::Rechecked(last));
        self.settle();
        self.backend.table().as_ref() == Some(self.engine.ruleset())
    }

    fn concerns(&self) -> String {
        self.applier.telemetry.health.report().to_string()
    }
}

fn node() -> Node {
    let pod_ranges = vec!["10.0.0.0/24".parse().unwrap()];
    Node {
        name: NodeName::from("a"),
        labels: Labels::default(),
        addresses: Vec::new(),
        pod_ranges,
        link_groups: Default::default(),
    }
}

fn pod(number: u8) -> Change {
    Change::Pod(Pod {
        uid: PodUid(format!("u{number}").into()),
        namespace: "shop".into(),
        name: format!("p{number}").into(),
        labels: Labels::default(),
        node: Some(NodeName::from("a")),
        network: Network::Own,
        addresses: vec![address(number)],
        life: Life::Live,
        started: None,
        ports: Vec::new(),
        host_ports: Vec::new(),
        own: None,
        workload: None,
    })
}

fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

/// Isolates everybody; lets in what the block holds, if one is given.
fn policy(name: &str, block: Option<&str>) -> Policy {
    let rule = |block: &str| PolicyRule {
        id: RuleId(Digest::of([name, block])),
        index: 0,
        action: Action::Accept,
        peers: Peers::List(vec![Peer::Block(IpBlock { cidr: block.parse().unwrap(), except: Vec::new() })]),
        ports: Ports::Any,
    };
    Policy {
        id: PolicyId {
            tier: Tier::Namespace,
            namespace: "shop".into(),
            name: name.into(),
            kind: PolicyKind::NetworkPolicy,
        },
        uid: name.into(),
        digest: Digest::of([name, block.unwrap_or_default()]),
        priority: 0,
        mode: podwall_engine::model::ban::Mode::Enforce,
        subject: PeerSelector { scope: Scope::Named("shop".into()), pods: Selector::everything() },
        ingress: Some(block.map(rule).into_iter().collect()),
        egress: None,
    }
}

#[test]
fn a_table_that_stands_as_wanted_is_adopted_without_a_write() {
    let wanted = Case::settled().engine.ruleset().clone();
    let mut case = Case::over(Fake::holding(wanted));
    case.settle();
    assert_eq!(case.backend.commits(), 0);
    assert_eq!(case.concerns(), "ready\n");
}

#[test]
fn flows_that_a_killed_agent_had_not_come_to_are_judged_by_the_next_without_a_write() {
    let wanted = Case::settled().engine.ruleset().clone();
    let mut case = Case::over(Fake::holding(wanted));
    case.settle();
    assert_eq!(case.jobs.try_recv().unwrap().judged, [1, 2].map(address).into());
    case.applier.audit();
    case.settle();
    assert!(case.jobs.try_recv().is_err(), "once is enough");
    assert_eq!(case.backend.commits(), 0);
}

#[test]
fn whoever_keeps_established_flows_keeps_them_over_a_restart_too() {
    let wanted = Case::settled().engine.ruleset().clone();
    let mut case = Case::over(Fake::holding(wanted));
    case.applier.established = Established::Keep;
    case.settle();
    assert!(case.jobs.try_recv().is_err());
}

#[test]
fn a_table_that_went_away_while_no_agent_ran_is_no_first_adoption() {
    let Case { state, .. } = Case::settled();
    let mut case = Case::with(Fake::default(), state);
    case.settle();
    assert_eq!(case.jobs.try_recv().unwrap().judged, [1, 2].map(address).into());
    assert!(case.stands_as_wanted());
}

#[test]
fn how_strict_a_node_was_outlives_its_table() {
    let mut case = Case::settled();
    let mut said = Vec::new();
    for _ in 0..2 {
        case = Case::with(Fake::default(), case.state);
        case.applier.due(Instant::now());
        while let Ok(outcome) = case.outcomes.try_recv() {
            said.extend(matches!(outcome, Outcome::Standing(_)).then_some(outcome));
        }
        case.engine.apply(Change::GraceOver);
        case.give_whole();
    }
    assert_eq!(said, [Outcome::Standing(Standing::Lenient), Outcome::Standing(Standing::Strict)]);
}

#[test]
fn a_node_that_was_torn_down_is_new_to_the_next_agent() {
    let mut case = Case::settled();
    case.applier.tear_down().unwrap();
    let mut next = Case::with(Fake::default(), case.state);
    next.settle();
    assert!(next.jobs.try_recv().is_err());
}

#[test]
fn only_what_differs_is_written_over_a_standing_table_and_its_flows_are_judged_again() {
    let wanted = Case::settled().engine.ruleset().clone();
    let mut case = Case::over(Fake::holding(wanted));
    case.engine.apply(pod(3));
    case.settle();
    let fake = case.backend.fake.lock().unwrap();
    let ops: usize = fake.committed().iter().map(|transaction| transaction.ops().len()).sum();
    assert!(ops < 20, "{ops} operations for one pod");
    let job = case.jobs.try_recv().unwrap();
    assert_eq!(job.judged, [1, 2, 3].map(address).into());
    drop(fake);
    assert!(case.stands_as_wanted());
}

#[test]
fn flows_from_before_the_first_adoption_are_left_alone() {
    let case = Case::settled();
    assert!(case.jobs.try_recv().is_err());
}

#[test]
fn a_lost_answer_or_a_foreign_write_or_a_refusal_in_passing_is_repaired() {
    for fault in [Fault::AnswerLost, Fault::RequestLost, Fault::Stale, Fault::Rejected(0)] {
        for commit in 0..3 {
            let mut case = Case::settled();
            case.backend.fail(commit, fault);
            case.change(Change::Policy(policy("open", Some("192.0.2.0/24"))));
            assert!(case.stands_as_wanted(), "{fault:?} at commit {commit}");
            assert_eq!(case.concerns(), "ready\n");
        }
    }
}

#[test]
fn what_another_program_wrote_is_undone_and_counted_and_flows_are_judged_again() {
    let mut case = Case::settled();
    case.backend.fake.lock().unwrap().write_foreign(&[], |table| *table = None);
    let change = ForeignChange { writer: 77, program: Some("nft".to_owned()) };
    case.applier.work(Work::Foreign(Some(change)));
    while let Ok(outcome) = case.outcomes.try_recv() {
        case.answer(outcome);
    }
    assert_eq!(case.jobs.try_recv().unwrap().judged, [1, 2].map(address).into());
    assert!(case.stands_as_wanted());
    let metrics = &case.applier.telemetry.metrics;
    assert_eq!(metrics.foreign_changes.get(), 1);
    assert_eq!(metrics.repairs.get_or_create(&RepairCause::Foreign.into()).get(), 1);
}

#[test]
fn another_programs_write_that_changed_nothing_is_no_reason_to_write() {
    let mut case = Case::settled();
    let before = case.backend.commits();
    case.applier.work(Work::Foreign(None));
    case.applier.audit();
    case.settle();
    assert_eq!(case.backend.commits(), before);
}

#[test]
fn a_write_of_another_program_elsewhere_does_not_hold_a_commit_up() {
    let mut case = Case::settled();
    // The audit has read the table; the next commit is checked against that.
    case.applier.audit();
    case.backend.fake.lock().unwrap().write_foreign(&[], |_| {});
    case.change(pod(3));
    assert_eq!(case.applier.state, State::Following);
    assert!(case.stands_as_wanted());
}

#[test]
fn a_kernel_that_refuses_everything_keeps_the_last_good_rules_and_is_told() {
    let mut case = Case::settled();
    let before = case.backend.table();
    for commit in 0..200 {
        case.backend.fail(commit, Fault::RequestLost);
    }
    case.change(pod(3));
    case.settle();
    assert_eq!(case.backend.table(), before);
    assert!(case.concerns().contains("the last good rules stand"), "{}", case.concerns());
}

#[test]
fn work_is_done_only_when_it_stands() {
    let mut case = Case::settled();
    let whole = |case: &mut Case| {
        while case.outcomes.try_recv().is_ok() {}
        case.give_whole();
        std::iter::from_fn(|| case.outcomes.try_recv().ok()).last()
    };
    assert_eq!(whole(&mut case), Some(Outcome::Done));
    (0..200).for_each(|commit| case.backend.fail(commit, Fault::RequestLost));
    case.engine.apply(pod(3));
    assert_eq!(whole(&mut case), Some(Outcome::Undone));
    // Until the next try everything else is left undone too.
    case.change(pod(4));
    assert_eq!(case.outcomes.try_recv(), Ok(Outcome::Undone));
}

#[test]
fn what_nothing_leads_to_is_deleted_only_after_the_last_packets_left() {
    let mut case = Case::settled();
    let chains = case.backend.table().unwrap().chains.len();
    case.change(Change::PolicyGone(policy("deny", None).id));
    assert_eq!(case.backend.table().unwrap().chains.len(), chains);
    assert!(case.applier.kernel.reap_due().is_some_and(|due| due > Instant::now()));
    case.change(pod(3));
    assert!(case.stands_as_wanted());
    assert!(case.backend.table().unwrap().chains.len() < chains);
}

#[test]
fn a_tighter_policy_is_armed_with_its_commit_and_disarmed_when_the_flows_are_done() {
    let mut case = Case::settled();
    case.change(Change::Policy(policy("open", Some("192.0.2.0/24"))));
    for job in case.jobs.try_iter() {
        case.applier.work(Work::Rechecked(job.number));
    }
    case.change(Change::PolicyGone(policy("open", None).id));
    let armed = |case: &Case| !case.backend.table().unwrap().chains[&names::recheck()].rules.is_empty();
    assert!(armed(&case));
    let job = case.jobs.try_recv().unwrap();
    assert_eq!(job.judged, [1, 2].map(address).into());
    case.applier.work(Work::Rechecked(job.number.wrapping_sub(1)));
    assert!(armed(&case));
    case.applier.work(Work::Rechecked(job.number));
    assert!(!armed(&case));
}

#[test]
fn a_repair_while_flows_are_looked_at_leaves_them_armed() {
    let mut case = Case::settled();
    case.change(Change::Policy(policy("open", Some("192.0.2.0/24"))));
    case.change(Change::PolicyGone(policy("open", None).id));
    case.applier.lose(RepairCause::Audit);
    case.settle();
    assert!(!case.backend.table().unwrap().chains[&names::recheck()].rules.is_empty());
}

#[test]
fn without_the_thread_that_cuts_flows_the_agent_ends_and_the_rules_stand() {
    let case = Case::settled();
    let before = case.backend.table();
    let (works, received) = mpsc::channel();
    works.send(Work::FlowsEnded).unwrap();
    let (outcomes, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let setup = Setup {
        backend: Box::new(case.backend.clone()),
        place: "memory",
        elsewhere: switch::nothing(),
        start_listening: Box::new(|| Ok(())),
        established: Established::Recheck,
        outcomes,
        jobs: mpsc::channel().0,
        adoption: Adoption::open(case.state.path()),
        telemetry: Telemetry::default(),
    };
    run(setup, &received);
    assert_eq!(heard.blocking_recv(), None, "the planner learns of it, and with it the agent ends");
    assert_eq!(case.backend.table(), before);
}

#[test]
fn a_teardown_leaves_nothing_and_nothing_comes_back() {
    let mut case = Case::settled();
    let standing = Removed::all_of(&case.backend.table().unwrap());
    let (reply, mut answer) = oneshot::channel();
    case.applier.work(Work::TearDown(reply));
    assert_eq!(answer.try_recv().unwrap(), Ok(standing));
    assert_eq!(case.backend.table(), None);
    case.change(pod(3));
    case.settle();
    assert_eq!(case.backend.table(), None);
}

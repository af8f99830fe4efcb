//! A kernel that refuses some chains: whoever is behind them is shut, and everybody else is served.
use super::*;

/// Refuses the rules of some chains.
struct Picky(Shared, fn(&ChainName, &Chain) -> bool);

impl Backend for Picky {
    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    fn observe(&mut self) -> Result<Observed, BackendError> {
        self.0.observe()
    }

    fn check(&mut self, transaction: &Transaction) -> Result<(), BackendError> {
        self.0.check(transaction)
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<Receipt, BackendError> {
        let refused = |op: &Op| match op {
            Op::AddRules(name, chain) => self.1(name, chain),
            _ => false,
        };
        match transaction.ops().iter().position(refused) {
            Some(op) => Err(BackendError::Rejected(vec![Refusal {
                op,
                object: "a chain".to_owned(),
                reason: "ENOMEM".to_owned(),
            }])),
            None => self.0.commit(transaction),
        }
    }

    fn counters(&mut self) -> Result<Vec<Counter>, BackendError> {
        self.0.counters()
    }

    fn hits(&mut self) -> Result<Vec<podwall_ruleset::Hit>, BackendError> {
        self.0.hits()
    }
}

/// An agent that has settled, whose kernel is picky from then on.
fn picky(refuses: fn(&ChainName, &Chain) -> bool) -> Case {
    let mut case = Case::settled();
    let picky = Picky(case.backend.clone(), refuses);
    case.applier.kernel = Kernel::new(Box::new(picky), "memory", Box::new(|| Ok(())), Telemetry::default());
    case.applier.state = State::Lost { cause: RepairCause::Start, ask: Some(Instant::now()) };
    case.settle();
    case
}

/// The chains it refused.
fn refused(case: &Case) -> Vec<&ChainName> {
    case.applier.refused.keys().collect()
}

#[test]
fn a_chain_the_kernel_keeps_refusing_is_blamed_and_everything_else_is_enforced() {
    // Every rule that asks for a prefix.
    let mut case = picky(|_, chain| {
        let mut questions = chain.rules.iter().flat_map(|rule| &rule.matches);
        questions.any(|question| matches!(question, Match::Prefix(..)))
    });
    case.change(Change::Policy(policy("open", Some("192.0.2.0/25"))));
    case.change(pod(9));
    assert!(case.stands_as_wanted());
    let refused = refused(&case);
    assert!(
        refused.iter().all(|chain| chain.as_str().starts_with("i4_")) && refused.len() == 1,
        "{refused:?}"
    );
    let table = case.backend.table().unwrap();
    assert!(!table.chains.contains_key(refused[0]));
    let shut = Verdict::Goto(names::refused());
    let verdict = |number: u8| {
        table.sets.values().filter_map(|set| set.verdict(&Key::Address(address(number)))).any(|v| *v == shut)
    };
    assert!(verdict(1) && verdict(9));
}

#[test]
fn a_ban_whose_rules_the_kernel_keeps_refusing_is_left_out_and_everything_else_is_enforced() {
    let mut case = picky(|name, _| name.as_str().starts_with("b4_"));
    let ban =
        serde_json::json!({"metadata": {"name": "x"}, "spec": {"addresses": ["192.0.2.1", "2001:db8::1"]}});
    case.change(Change::Ban(podwall_engine::ingest::ban(&ban).unwrap().0));
    case.change(pod(9));
    assert!(case.stands_as_wanted());
    let refused = refused(&case);
    assert!(
        refused.iter().all(|chain| chain.as_str().starts_with("b4_")) && refused.len() == 1,
        "{refused:?}"
    );
    let table = case.backend.table().unwrap();
    let standing = |start: &str| table.chains.keys().any(|chain| chain.as_str().starts_with(start));
    assert!(standing("b6_") && !standing("b4_"));
    let verdict = |key: &Key| table.sets.values().any(|set| set.verdict(key).is_some());
    assert!(verdict(&Key::Address(address(9))));
}

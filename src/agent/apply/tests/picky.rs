//! A kernel that refuses some chains: whoever is behind them is shut, and everybody else is served.
use super::*;

#[test]
fn a_chain_the_kernel_keeps_refusing_is_blamed_and_everything_else_is_enforced() {
    /// Refuses every rule that asks for a prefix.
    struct Picky(Shared);
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
                Op::AddRules(_, chain) => chain
                    .rules
                    .iter()
                    .any(|rule| rule.matches.iter().any(|question| matches!(question, Match::Prefix(..)))),
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
    let mut case = Case::settled();
    let picky = Picky(case.backend.clone());
    case.applier.kernel = Kernel::new(Box::new(picky), "memory", Box::new(|| Ok(())), Telemetry::default());
    case.applier.state = State::Lost { cause: RepairCause::Start, ask: Some(Instant::now()) };
    case.settle();
    case.change(Change::Policy(policy("open", Some("192.0.2.0/25"))));
    case.change(pod(9));
    assert!(case.stands_as_wanted());
    let refused: Vec<&ChainName> = case.applier.refused.keys().collect();
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

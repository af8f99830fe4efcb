//! The backend against this kernel, each test in a network namespace of its own.
use podwall_ruleset::{Backend as _, Delta, Ruleset, stages};

use super::*;

mod detour;
mod foreign;
mod guard;
mod namespace;
mod readback;
mod refusals;
mod sample;
mod size;

use namespace::in_namespace;

/// A dropped owner may hold its table a moment longer: a program that another thread is just starting has a copy of
/// its socket until it executes (`fork`, `O_CLOEXEC`).
fn open(guard: Guard) -> Nftables {
    for _ in 0..500 {
        match Nftables::open(Options { guard }) {
            Err(BackendError::Owned { .. }) => std::thread::sleep(Duration::from_millis(10)),
            opened => return opened.unwrap(),
        }
    }
    panic!("the table still has an owner after five seconds")
}

/// Brings the kernel from `old` to `new` as the agent would.
fn bring(kernel: &mut Nftables, old: &Ruleset, new: &Ruleset) {
    for stage in stages(old, &Delta::between(old, new)) {
        kernel.check(&stage.transaction).unwrap();
        kernel.commit(&stage.transaction).unwrap();
    }
}

/// What stands, which must be all ours.
fn standing(kernel: &mut Nftables) -> Option<Ruleset> {
    let observed = kernel.observe().unwrap();
    assert_eq!(observed.alien, Vec::<String>::new());
    observed.ruleset
}

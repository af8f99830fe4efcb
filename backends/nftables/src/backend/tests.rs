//! The backend against this kernel, each test in a network namespace of its own.
use podwall_ruleset::{Backend as _, Delta, Ruleset, stages};

use super::*;

mod foreign;
mod guard;
mod namespace;
mod readback;
mod refusals;
mod sample;
mod size;

use namespace::in_namespace;

fn open(guard: Guard) -> Nftables {
    Nftables::open(Options { guard }).unwrap()
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

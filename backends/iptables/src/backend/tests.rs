//! The backend against this kernel, each test in a network namespace of its own.
use podwall_ruleset::{Backend as _, Delta, Ruleset, stages};

use super::*;

mod cost;
mod foreign;
pub(crate) mod namespace;
mod process;
pub(crate) mod readback;
mod refusals;

use namespace::in_namespace;

pub(crate) fn open(variant: Variant) -> Iptables {
    Iptables::open(Options { variant: Choice::Forced(variant) }).unwrap()
}

/// Brings the kernel from `old` to `new` as the agent would.
pub(crate) fn bring(kernel: &mut Iptables, old: &Ruleset, new: &Ruleset) {
    for stage in stages(old, &Delta::between(old, new)) {
        kernel.check(&stage.transaction).unwrap();
        let done = kernel.commit(&stage.transaction);
        done.unwrap_or_else(|error| panic!("{}: {error}\n{}", stage.kind.as_str(), stage.transaction));
    }
}

/// What stands, which must be all ours.
fn standing(kernel: &mut Iptables) -> Option<Ruleset> {
    let observed = kernel.observe().unwrap();
    assert_eq!(observed.alien, Vec::<String>::new());
    observed.ruleset
}

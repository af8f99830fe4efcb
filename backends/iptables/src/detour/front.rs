//! The head of `PREROUTING` in a nat table: what leads to us, and whether others come first.
use std::collections::BTreeSet;
use std::io;

use podwall_ruleset::{BackendError, Family};

use super::text::{self, Chain, HOOK, TABLE};
use crate::backend::locked;
use crate::exec::{self, Said};
use crate::probe::{Program, Variant, failed};
use crate::restore::{goes_on, target};

/// Seconds to wait for the lock of iptables: less than a lease, which is renewed by the same thread.
const LOCK_PATIENCE: &str = "1";

/// The nat table of a family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    pub(super) variant: Variant,
    pub(super) family: Family,
}

/// What of `PREROUTING` concerns us.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Front {
    /// Rules that lead to chains of ours.
    jumps: Vec<String>,
    /// Something that may decide stands before the first of them.
    late: bool,
}

impl Table {
    /// Reads one chain; with the whole table that would take as long as a node has services.
    pub(super) fn front(self) -> Result<Front, BackendError> {
        let program = self.variant.program(self.family, Program::List);
        let said = exec::run(program, &["-t", TABLE, "-S", HOOK], String::new()).map_err(failed)?;
        if said.status.success() { Ok(Front::read(&said.stdout)) } else { Err(refused(program, &said)) }
    }

    /// One restore: the kernel takes all of it or nothing.
    pub(super) fn restore(self, text: &str) -> Result<(), BackendError> {
        let program = self.variant.program(self.family, Program::Restore);
        let arguments = ["-w", LOCK_PATIENCE, "--noflush"];
        let said = exec::run(program, &arguments, text.to_owned()).map_err(failed)?;
        if said.status.success() { Ok(()) } else { Err(refused(program, &said)) }
    }
}

impl Front {
    fn read(text: &str) -> Self {
        let mut front = Self::default();
        let prefix = format!("-A {HOOK} ");
        for rule in text.lines().filter_map(|line| line.strip_prefix(&prefix)) {
            match target(rule) {
                Some(name) if text::is_chain(name) => front.jumps.push(rule.to_owned()),
                Some(name) if front.jumps.is_empty() && !goes_on(name) => front.late = true,
                Some(_) | None => {}
            }
        }
        front
    }

    /// Is that the one chain of ours a packet comes to, before anything else that may decide?
    pub(super) fn leads_to(&self, chain: Option<&Chain>) -> bool {
        match (self.jumps.as_slice(), chain) {
            ([], None) => true,
            ([jump], Some(chain)) => !self.late && target(jump) == Some(chain.name.as_str()),
            _ => false,
        }
    }

    /// What brings it there; `old` is a chain of ours that may stand without a jump.
    pub(super) fn script(&self, old: Option<&Chain>, wanted: Option<&Chain>) -> String {
        let mut gone: BTreeSet<&str> = self.jumps.iter().filter_map(|jump| target(jump)).collect();
        gone.extend(old.map(|chain| chain.name.as_str()));
        text::change(&self.jumps, gone, wanted)
    }

    /// What is the matter, for people.
    pub(super) fn told(&self) -> &'static str {
        match (self.jumps.as_slice(), self.late) {
            ([], _) => "another program took the way of DNS queries out of the nat table: it is back",
            (_, true) => "another program's rules came before the way of DNS queries: it is first again",
            (_, false) => "another program changed the way of DNS queries in the nat table: it is as it was",
        }
    }
}

/// What a program's refusal means.
pub(super) fn refused(program: &str, said: &Said) -> BackendError {
    let kind = if locked(said).is_some() { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other };
    let source = io::Error::new(kind, said.reason().to_owned());
    BackendError::Io { doing: format!("{program}: {source}"), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "-A PREROUTING -m comment --comment \"podwall dns\" -j PWD-x\n";

    fn front(rules: &[&str]) -> Front {
        Front::read(&format!("-P PREROUTING ACCEPT\n{}", rules.concat()))
    }

    #[test]
    fn only_what_may_decide_comes_before_us_by_mistake() {
        let late = |rules: &[&str]| front(rules).late;
        assert!(late(&["-A PREROUTING -m comment --comment \"-j LOG\" -j KUBE-SERVICES\n", OURS]));
        assert!(late(&["-A PREROUTING -d 10.0.0.1/32 -j DNAT --to-destination 10.0.0.2\n", OURS]));
        assert!(!late(&["-A PREROUTING -p udp -j LOG\n", "-A PREROUTING -p tcp\n", OURS]));
        assert!(!late(&[OURS, "-A PREROUTING -j KUBE-SERVICES\n"]));
    }
}

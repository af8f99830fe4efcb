//! A turn as input of `ipset restore` and of `iptables-restore`.
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use podwall_ruleset::delta::SetEdit;
use podwall_ruleset::{Key, SetName, Shape};

use super::{
    DISPATCH, ipset_type, is_policy_set, pod, pod_chain, pods, write_dispatch, write_pod, write_policy_set,
};
use crate::Turn;

/// What ipset is told before the rules change, and after: a set in use cannot be destroyed.
#[derive(Debug, Default)]
pub struct Sets {
    /// Before.
    pub before: String,
    /// After.
    pub after: String,
}

impl Sets {
    /// Those a turn changes.
    pub fn of(turn: &Turn) -> Self {
        let mut sets = Self::default();
        for (name, edit) in &turn.delta.sets {
            let known = turn.before.sets.get(name).or_else(|| turn.after.sets.get(name));
            let Some(kind) = known.and_then(|set| ipset_type(name, set.spec.shape)) else { continue };
            let goes = edit.spec.as_ref().is_some_and(|spec| spec.after.is_none());
            if goes {
                let _ = writeln!(sets.after, "destroy {name}");
                continue;
            }
            if edit.spec.is_some() {
                let _ = writeln!(sets.before, "create {name} {kind} family inet maxelem 1048576");
            }
            sets.elements(name, edit);
        }
        sets
    }

    fn elements(&mut self, name: &SetName, edit: &SetEdit) {
        for (key, element) in &edit.elements {
            let verb = if element.after.is_some() { "add" } else { "del" };
            let _ = match key {
                Key::Endpoint(address, protocol, port) => {
                    writeln!(self.before, "{verb} {name} {address},{protocol}:{port}")
                }
                Key::Address(_) | Key::Range(..) | Key::Pair(..) | Key::Service(..) | Key::Link(_) => {
                    writeln!(self.before, "{verb} {name} {key}")
                }
            };
        }
    }
}

/// The whole filter table as it is to be.
pub fn whole(turn: &Turn) -> String {
    let mut text = format!("*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:{DISPATCH} -\n");
    let pods = pods(&turn.after);
    let sets = turn.after.chains.iter().filter(|(name, _)| is_policy_set(name));
    for (name, _) in sets.clone() {
        let _ = writeln!(text, ":{name} -");
    }
    for address in pods.keys() {
        let _ = writeln!(text, ":{} -", pod_chain(*address));
    }
    let _ = writeln!(text, "-A FORWARD -j {DISPATCH}");
    for (name, chain) in sets {
        write_policy_set(&mut text, name, chain);
    }
    for (address, governed) in &pods {
        write_dispatch(&mut text, "-A", *address);
        write_pod(&mut text, *address, governed);
    }
    text.push_str("COMMIT\n");
    text
}

/// Only what differs; empty when no rule does.
pub fn difference(turn: &Turn) -> String {
    let (mut heads, mut body, mut tail) = (String::new(), String::new(), String::new());
    for (name, edit) in turn.delta.chains.iter().filter(|(name, _)| is_policy_set(name)) {
        match &edit.after {
            Some(chain) => {
                let _ = writeln!(heads, ":{name} -");
                write_policy_set(&mut body, name, chain);
            }
            None => {
                let _ = writeln!(tail, "-F {name}\n-X {name}");
            }
        }
    }
    let mut gone = String::new();
    for address in touched(turn) {
        let (before, after) = (pod(&turn.before, address), pod(&turn.after, address));
        let chain = pod_chain(address);
        match (before, after) {
            (None, Some(governed)) => {
                let _ = writeln!(heads, ":{chain} -");
                write_pod(&mut body, address, &governed);
                write_dispatch(&mut body, "-A", address);
            }
            (Some(before), Some(after)) if before != after => {
                let _ = writeln!(heads, ":{chain} -");
                write_pod(&mut body, address, &after);
            }
            (Some(_), None) => {
                write_dispatch(&mut gone, "-D", address);
                let _ = writeln!(gone, "-F {chain}\n-X {chain}");
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    let whole = [heads, body, gone, tail].concat();
    if whole.is_empty() { whole } else { format!("*filter\n{whole}COMMIT\n") }
}

/// Local pods whose verdicts changed.
fn touched(turn: &Turn) -> BTreeSet<IpAddr> {
    let maps = turn.delta.sets.iter().filter(|(name, _)| {
        let set = turn.before.sets.get(*name).or_else(|| turn.after.sets.get(*name));
        set.is_some_and(|set| matches!(set.spec.shape, Shape::Verdicts(podwall_ruleset::Family::V4)))
    });
    maps.flat_map(|(_, edit)| edit.elements.keys()).filter_map(Key::address).collect()
}

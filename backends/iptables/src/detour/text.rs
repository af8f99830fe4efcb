//! The detour as text: what its chains and sets are called, and the lines that make them.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use podwall_ruleset::detour::LIFE;
use podwall_ruleset::{Digest, Family, Proxy};

use super::Held;
use crate::restore::target;

/// Where destination NAT is possible.
pub(super) const TABLE: &str = "nat";
/// The chain that jumps to ours.
pub(super) const HOOK: &str = "PREROUTING";
/// What chains of ours in that table begin with.
const PREFIX: &str = "PWD-";
/// Plain DNS.
const PORT: u16 = 53;
const PROTOCOLS: [&str; 2] = ["udp", "tcp"];

/// Is the name of a chain in the nat table one of ours?
pub(crate) fn is_chain(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Is a line of iptables-save, `-A chain rule`, in one of our chains, or does it lead to one?
pub(crate) fn is_rule(line: &str) -> bool {
    let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|line| line.split_once(' ')) else {
        return false;
    };
    is_chain(chain) || target(rule).is_some_and(is_chain)
}

const fn asks(family: Family) -> &'static str {
    let [asks, _] = sets(family);
    asks
}

const fn ways(family: Family) -> &'static str {
    let [_, ways] = sets(family);
    ways
}

/// Whose queries to which server are taken, and the servers they are taken from.
pub(super) const fn sets(family: Family) -> [&'static str; 2] {
    match family {
        Family::V4 => ["pwd_asks4", "pwd_ways4"],
        Family::V6 => ["pwd_asks6", "pwd_ways6"],
    }
}

/// A chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    rules: Vec<String>,
}

impl Chain {
    /// For the servers of a family, if there are any.
    pub(super) fn of(family: Family, proxy: Proxy, all: &BTreeMap<IpAddr, u16>) -> Option<Self> {
        let mine = all.iter().filter(|(server, _)| Family::of(server) == family);
        let mine: Vec<(&IpAddr, &u16)> = mine.collect();
        if mine.is_empty() {
            return None;
        }
        let mut rules = vec![
            format!("-m set ! --match-set {} dst -j RETURN", ways(family)),
            format!("-m set ! --match-set {} src,dst,dst -j RETURN", asks(family)),
        ];
        let (own, whole) = match family {
            Family::V4 => (proxy.v4.to_string(), 32),
            Family::V6 => (format!("[{}]", proxy.v6), 128),
        };
        for (server, port) in mine {
            rules.extend(PROTOCOLS.map(|protocol| {
                format!(
                    "-d {server}/{whole} -p {protocol} -m {protocol} --dport {PORT} \
                     -j DNAT --to-destination {own}:{port}"
                )
            }));
        }
        Some(Self { name: format!("{PREFIX}{}", Digest::of(&rules)), rules })
    }

    /// One that nobody enters, with every kind of rule.
    pub(super) fn trial(family: Family, proxy: Proxy) -> Self {
        let server = proxy.address(family);
        let rules = Self::of(family, proxy, &BTreeMap::from([(server, PORT)])).map(|chain| chain.rules);
        Self { name: format!("{PREFIX}trial"), rules: rules.unwrap_or_default() }
    }

    fn write(&self, text: &mut String) {
        for rule in &self.rules {
            *text += &format!("-A {} {rule}\n", self.name);
        }
    }

    /// The rule that leads to it.
    fn jump(&self) -> String {
        format!("-m comment --comment \"podwall dns\" -j {}", self.name)
    }
}

/// The restore that makes a chain alone.
pub(super) fn trial(chain: &Chain) -> String {
    let mut text = format!("*{TABLE}\n:{} - [0:0]\n", chain.name);
    chain.write(&mut text);
    text + "COMMIT\n"
}

/// The restore that takes it away again.
pub(super) fn without(chain: &Chain) -> String {
    change(&[], [chain.name.as_str()].into(), None)
}

/// The restore after which `PREROUTING` leads to that chain, first, and no more to those it led to by these jumps.
pub(super) fn change(jumps: &[String], mut gone: BTreeSet<&str>, wanted: Option<&Chain>) -> String {
    let mut text = format!("*{TABLE}\n");
    // Declared, a chain is emptied, whether or not it was there.
    if let Some(chain) = wanted {
        gone.remove(chain.name.as_str());
        text += &format!(":{} - [0:0]\n", chain.name);
    }
    gone.iter().for_each(|name| text += &format!(":{name} - [0:0]\n"));
    if let Some(chain) = wanted {
        chain.write(&mut text);
    }
    jumps.iter().for_each(|jump| text += &format!("-D {HOOK} {jump}\n"));
    if let Some(chain) = wanted {
        text += &format!("-I {HOOK} 1 {}\n", chain.jump());
    }
    gone.iter().for_each(|name| text += &format!("-X {name}\n"));
    text + "COMMIT\n"
}

/// Lines that make the sets of a family, or empty them; ways first.
pub(super) fn fresh_sets(family: Family) -> String {
    let form = match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    let (asks, ways, life) = (asks(family), ways(family), LIFE.as_secs());
    format!(
        "create {ways} hash:ip family {form} timeout {life}\nflush {ways}\n\
         create {asks} hash:ip,port,ip family {form}\nflush {asks}\n"
    )
}

/// Lines for what is no more; ways first.
pub(super) fn parted(old: &Held, new: &Held) -> String {
    let gone = old.ways.difference(&new.ways).map(way);
    gone.chain(old.asks.difference(&new.asks).flat_map(ask)).map(|member| format!("del {member}\n")).collect()
}

/// Lines for what there is. A way that is there begins its life anew.
pub(super) fn held(all: &Held) -> String {
    let there = all.asks.iter().flat_map(ask).chain(all.ways.iter().map(way));
    there.map(|member| format!("add {member}\n")).collect()
}

/// A set and its member.
fn way(server: &IpAddr) -> String {
    format!("{} {server}", ways(Family::of(server)))
}

/// A set and its members, one for each protocol.
fn ask((pod, server): &(IpAddr, IpAddr)) -> [String; 2] {
    PROTOCOLS.map(|protocol| format!("{} {pod},{protocol}:{PORT},{server}", asks(Family::of(pod))))
}

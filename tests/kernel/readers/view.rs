//! What all readers can tell of a table: elements with their verdicts, and of rules the sets they look into and the
//! verdicts they give, in order.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use podwall_ruleset::{Key, Match, Outcome, Rule, Ruleset, Shape, Value, Verdict};

/// A table as a reader tells it, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Elements by set, with the verdict of each or nothing.
    pub sets: BTreeMap<String, BTreeMap<String, String>>,
    /// Rules by chain.
    pub chains: BTreeMap<String, Vec<Told>>,
}

/// A rule.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Sets it looks into, meters left out.
    pub looks: Vec<String>,
    /// Its verdict, if it has one of its own.
    pub gives: String,
}

impl View {
    /// What the readers should tell. Meters are filled by packets.
    pub fn of(ruleset: &Ruleset) -> Self {
        let sets = ruleset.sets.iter().filter(|(_, set)| !matches!(set.spec.shape, Shape::Meter(_)));
        let elements = |(key, value): (&Key, Value)| match value {
            Value::Member | Value::Until(_) => (key_words(key), String::new()),
            Value::Verdict(verdict) => (key_words(key), verdict_words(&verdict)),
        };
        Self {
            sets: sets.map(|(name, set)| (name.to_string(), set.iter().map(elements).collect())).collect(),
            chains: ruleset
                .chains
                .iter()
                .map(|(name, chain)| (name.to_string(), chain.rules.iter().flat_map(told).collect()))
                .collect(),
        }
    }
}

/// Fails with what differs, and nothing else.
pub fn same(read: &View, wanted: &View) {
    let mut wrong = Vec::new();
    let names: BTreeSet<&String> = read.sets.keys().chain(wanted.sets.keys()).collect();
    for name in names.into_iter().filter(|name| read.sets.get(*name) != wanted.sets.get(*name)) {
        wrong.push(format!("set {name}\n{:?}\n{:?}", read.sets.get(name), wanted.sets.get(name)));
    }
    let names: BTreeSet<&String> = read.chains.keys().chain(wanted.chains.keys()).collect();
    for name in names.into_iter().filter(|name| read.chains.get(*name) != wanted.chains.get(*name)) {
        wrong.push(format!("chain {name}\n{:?}\n{:?}", read.chains.get(name), wanted.chains.get(name)));
    }
    assert!(wrong.is_empty(), "first as read, then as wanted:\n{}", wrong.join("\n"));
}

/// A rule that logs is two in the kernel: the log has a rate, the verdict has not.
fn told(rule: &Rule) -> Vec<Told> {
    let mut looks: Vec<String> = Vec::new();
    for question in &rule.matches {
        if let Match::In(_, set) = question {
            looks.push(set.to_string());
        }
    }
    let gives = match &rule.effect.outcome {
        Outcome::Continue => String::new(),
        Outcome::Verdict(verdict) => verdict_words(verdict),
        Outcome::Map(_, map) => {
            looks.push(map.to_string());
            String::new()
        }
    };
    vec![Told { looks, gives }]
}

fn key_words(key: &Key) -> String {
    match key {
        Key::Address(address) => address.to_string(),
        Key::Range(first, last) => span(first, last),
        Key::Pair(first, second) => format!("{first} . {second}"),
        Key::Endpoint(address, protocol, port) => format!("{address} . {protocol} . {port}"),
        Key::Service(protocol, ports) => format!("{protocol} . {}", span(&ports.first(), &ports.last())),
        Key::Link(link) => link.to_string(),
    }
}

/// From first to last; one alone is its own name.
pub fn span<T: Display + PartialEq>(first: &T, last: &T) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn verdict_words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Reject(_) => "reject".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}

/// nft lists objects in the order they were made, which is nobody's concern: the blocks of a listing, sorted, and
/// the elements within each. Whether it spells the family out before an update, which names it again, depends on how
/// many times the rule asks.
pub fn sorted(listing: &str) -> Vec<String> {
    let listing =
        listing.replace("meta nfproto ipv4 update", "update").replace("meta nfproto ipv6 update", "update");
    let mut blocks: Vec<String> = listing
        .split("\n\t}\n")
        .map(|block| {
            let (head, elements) = block.split_once("elements = {").unwrap_or((block, ""));
            let mut elements: Vec<&str> =
                elements.split([',', '}']).map(str::trim).filter(|element| !element.is_empty()).collect();
            elements.sort_unstable();
            let head = head.trim_start_matches("table inet podwall {").trim();
            format!("{head} {elements:?}")
        })
        .collect();
    blocks.sort_unstable();
    blocks
}

//! One rule in words.
//!
//! Owns the lowering of a rule whose log is rate limited and which also gives a verdict: it is two rules, because
//! a `limit` that is used up ends its rule (nft(8), LIMIT STATEMENT), and a record not sent must not let a packet by.
use crate::ids::RuleId;
use crate::matching::{ConnState, Family, Lookup, Match, Side};
use crate::ruleset::Rule;
use crate::verdict::{Count, Log, Outcome};

/// The rule as one line, or as two when it both logs and decides.
pub(super) fn rule_lines(rule: &Rule) -> Vec<String> {
    let matches: Vec<String> = rule.matches.iter().map(match_text).collect();
    let counter = (rule.effect.count == Count::Yes).then(|| "counter".to_owned());
    let outcome = outcome_text(&rule.effect.outcome);
    match (&rule.effect.log, outcome) {
        (None, outcome) => vec![line(matches.into_iter().chain(counter).chain(outcome), rule.id)],
        (Some(log), None) => vec![line(matches.into_iter().chain(counter).chain([log_text(log)]), rule.id)],
        (Some(log), Some(outcome)) => vec![
            line(matches.iter().cloned().chain(counter).chain([log_text(log)]), rule.id),
            line(matches.into_iter().chain([outcome]), rule.id),
        ],
    }
}

fn line(words: impl Iterator<Item = String>, id: RuleId) -> String {
    let mut text: String = words.flat_map(|word| [word, " ".to_owned()]).collect();
    text.push_str(&format!("comment \"{id}\""));
    text
}

fn outcome_text(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Continue => None,
        Outcome::Verdict(verdict) => Some(verdict.to_string()),
        Outcome::Map(lookup, map) => Some(format!("{} vmap @{map}", lookup_text(*lookup))),
    }
}

fn log_text(log: &Log) -> String {
    // nft has no escape inside a string; a quote or a line break would end it.
    let prefix: String =
        log.prefix.chars().map(|c| if c == '"' || c.is_control() { '_' } else { c }).collect();
    format!(
        "update @{} {{ {} limit rate {}/second burst {} packets }} log prefix \"{prefix}\" group {} snaplen {}",
        log.meter.set,
        lookup_text(log.meter.key),
        log.meter.rate,
        log.meter.burst,
        log.group,
        log.snaplen
    )
}

fn match_text(question: &Match) -> String {
    match question {
        Match::Family(Family::V4) => "meta nfproto ipv4".to_owned(),
        Match::Family(Family::V6) => "meta nfproto ipv6".to_owned(),
        Match::In(lookup, set) => format!("{} @{set}", lookup_text(*lookup)),
        Match::Prefix(side, prefix) => {
            let family = if prefix.is_ipv4() { Family::V4 } else { Family::V6 };
            format!("{} {prefix}", address_text(family, *side))
        }
        Match::Protocol(protocol) => format!("meta l4proto {protocol}"),
        Match::Port(protocol, ports) => format!("meta l4proto {protocol} th dport {ports}"),
        Match::SourcePort(protocol, ports) => format!("meta l4proto {protocol} th sport {ports}"),
        Match::Local => "fib daddr type local".to_owned(),
        Match::Icmpv6Type(first, last) if first == last => format!("icmpv6 type {first}"),
        Match::Icmpv6Type(first, last) => format!("icmpv6 type {first}-{last}"),
        Match::HopLimit(limit) => format!("ip6 hoplimit {limit}"),
        Match::Broadcast => "fib daddr type broadcast".to_owned(),
        Match::State(states) => {
            let words: Vec<&str> = states.iter().copied().map(state_text).collect();
            format!("ct state {}", words.join(","))
        }
        Match::OriginalDirection => "ct direction original".to_owned(),
        Match::Translated => "ct status dnat".to_owned(),
        Match::TcpNotOpening => "tcp flags & (fin|syn|rst|ack) != syn".to_owned(),
        Match::SctpNotOpening => "meta l4proto sctp @th,96,8 != 0x1".to_owned(),
        Match::InputLink(link) => format!("iifname \"{link}\""),
        Match::ReversePathMissing => "fib saddr . iif oif missing".to_owned(),
    }
}

fn lookup_text(lookup: Lookup) -> String {
    let service = "meta l4proto . th dport";
    match lookup {
        Lookup::Address(family, side) => address_text(family, side).to_owned(),
        Lookup::Pair(family) => {
            format!("{} . {}", address_text(family, Side::Source), address_text(family, Side::Destination))
        }
        Lookup::Endpoint(family, side) => format!("{} . {service}", address_text(family, side)),
        Lookup::Service => service.to_owned(),
        Lookup::InputLink => "iifname".to_owned(),
        Lookup::OutputLink => "oifname".to_owned(),
    }
}

const fn address_text(family: Family, side: Side) -> &'static str {
    match (family, side) {
        (Family::V4, Side::Source) => "ip saddr",
        (Family::V4, Side::Destination) => "ip daddr",
        (Family::V6, Side::Source) => "ip6 saddr",
        (Family::V6, Side::Destination) => "ip6 daddr",
    }
}

const fn state_text(state: ConnState) -> &'static str {
    match state {
        ConnState::New => "new",
        ConnState::Established => "established",
        ConnState::Related => "related",
        ConnState::Invalid => "invalid",
        ConnState::Untracked => "untracked",
    }
}

//! The same policies in the form of kube-router (`pkg/controllers/netpol`): one chain for each pod, found by a linear
//! list of two rules a pod; one chain for each policy set, shared; one ipset for each selector.
//!
//! In favour of iptables: comments are left out (kube-router writes one on every rule), one chain stands for all
//! policies of a pod and direction (kube-router has one for each policy), input and output lists and IPv6 are left
//! out, and only the established accept, the invalid drop, the node's own traffic, the policies, the record and the
//! reject are kept of each pod's chain.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use podwall_ruleset::{
    Chain, ChainName, Family, Lookup, Match, Outcome, PortRange, Ruleset, Set, SetName, Shape, Side, Value,
    Verdict,
};

mod restore;

pub use restore::{Sets, difference, whole};

/// Set on a packet a policy lets through.
const ALLOWED: &str = "0x10000/0x10000";
/// The list of pods.
pub(crate) const DISPATCH: &str = "KUBE-ROUTER-FORWARD";

/// Which chains judge a pod; `None`: not isolated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Governed {
    ingress: Option<ChainName>,
    egress: Option<ChainName>,
}

/// Every local IPv4 pod.
pub(crate) fn pods(ruleset: &Ruleset) -> BTreeMap<IpAddr, Governed> {
    let mut pods: BTreeMap<IpAddr, Governed> = BTreeMap::new();
    for (name, set) in verdict_maps(ruleset) {
        for (key, value) in set.iter() {
            if let (Some(address), Value::Verdict(verdict)) = (key.address(), value) {
                put(pods.entry(address).or_default(), name, &verdict);
            }
        }
    }
    pods
}

/// One of them, if it is there.
pub(crate) fn pod(ruleset: &Ruleset, address: IpAddr) -> Option<Governed> {
    let key = podwall_ruleset::Key::Address(address);
    let mut found = None;
    for (name, set) in verdict_maps(ruleset) {
        if let Some(verdict) = set.verdict(&key) {
            put(found.get_or_insert_default(), name, verdict);
        }
    }
    found
}

fn verdict_maps(ruleset: &Ruleset) -> impl Iterator<Item = (&SetName, &Set)> {
    let maps = ruleset.sets.iter().filter(|(_, set)| set.spec.shape == Shape::Verdicts(Family::V4));
    maps.map(|(name, set)| (name, set.as_ref()))
}

fn put(governed: &mut Governed, map: &SetName, verdict: &Verdict) {
    let chain = verdict.target().cloned();
    if map.as_str().starts_with("in") {
        governed.ingress = chain;
    } else {
        governed.egress = chain;
    }
}

/// The chain of a pod.
pub(crate) fn pod_chain(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("KUBE-POD-FW-{:08X}", address.to_bits()),
        IpAddr::V6(address) => format!("KUBE-POD-FW-{:08X}", address.to_bits() >> 96),
    }
}

/// Where a pod's packets are sent to its chain; `verb` is `-A` or `-D`.
pub(crate) fn write_dispatch(text: &mut String, verb: &str, address: IpAddr) {
    let chain = pod_chain(address);
    let _ = writeln!(text, "{verb} {DISPATCH} -d {address}/32 -j {chain}");
    let _ = writeln!(text, "{verb} {DISPATCH} -s {address}/32 -j {chain}");
}

/// The rules of a pod's chain.
pub(crate) fn write_pod(text: &mut String, address: IpAddr, governed: &Governed) {
    let chain = pod_chain(address);
    let mut rule = |body: &str| {
        let _ = writeln!(text, "-A {chain} {body}");
    };
    rule("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    rule("-m conntrack --ctstate INVALID -j DROP");
    rule(&format!("-d {address}/32 -m addrtype --src-type LOCAL -j ACCEPT"));
    for (flag, target) in [("-d", &governed.ingress), ("-s", &governed.egress)] {
        match target {
            Some(target) => rule(&format!("{flag} {address}/32 -j {target}")),
            None => rule(&format!("{flag} {address}/32 -j MARK --set-xmark {ALLOWED}")),
        }
    }
    rule(&format!(
        "-m mark ! --mark {ALLOWED} -m limit --limit 10/min --limit-burst 10 -j NFLOG --nflog-group 100"
    ));
    rule(&format!("-m mark ! --mark {ALLOWED} -j REJECT --reject-with icmp-port-unreachable"));
    rule("-j MARK --set-xmark 0x0/0x10000");
}

/// Does the chain hold the rules of policies for IPv4?
pub(crate) fn is_policy_set(name: &ChainName) -> bool {
    let name = name.as_str();
    name.starts_with("i4_") || name.starts_with("e4_")
}

/// The rules of a policy set: what it accepts is marked, and the rest comes back unmarked.
pub(crate) fn write_policy_set(text: &mut String, name: &ChainName, chain: &Chain) {
    for rule in &chain.rules {
        let accepts = rule.effect.outcome == Outcome::Verdict(Verdict::Return);
        let hairpin = rule.matches.iter().any(|m| matches!(m, Match::In(Lookup::Pair(_), _)));
        if accepts && !hairpin {
            let matches: String = rule.matches.iter().map(question).collect();
            let _ = writeln!(text, "-A {name} {matches}-j MARK --set-xmark {ALLOWED}");
            let _ = writeln!(text, "-A {name} {matches}-m mark --mark {ALLOWED} -j RETURN");
        }
    }
}

/// What a policy can ask, in iptables' words; all others are never asked by a policy without cluster tiers.
fn question(question: &Match) -> String {
    match question {
        Match::In(Lookup::Address(_, side), set) => format!("-m set --match-set {set} {} ", flag(*side)),
        Match::In(Lookup::Endpoint(_, side), set) => {
            format!("-m set --match-set {set} {},dst ", flag(*side))
        }
        Match::Prefix(Side::Source, network) => format!("-s {network} "),
        Match::Prefix(Side::Destination, network) => format!("-d {network} "),
        Match::Protocol(protocol) => format!("-p {protocol} "),
        Match::Port(protocol, ports) => format!("-p {protocol} -m {protocol} --dport {} ", range(*ports)),
        Match::In(Lookup::Pair(_) | Lookup::Service | Lookup::InputLink | Lookup::OutputLink, _)
        | Match::SourcePort(..)
        | Match::Local
        | Match::Family(_)
        | Match::Icmpv6Type(..)
        | Match::State(_)
        | Match::OriginalDirection
        | Match::Translated
        | Match::TcpNotOpening
        | Match::SctpNotOpening
        | Match::InputLink(_)
        | Match::HopLimit(_)
        | Match::Broadcast
        | Match::ReversePathMissing => String::new(),
    }
}

const fn flag(side: Side) -> &'static str {
    match side {
        Side::Source => "src",
        Side::Destination => "dst",
    }
}

fn range(ports: PortRange) -> String {
    format!("{}:{}", ports.first(), ports.last())
}

/// The ipset type of a set policies look at; `None` for sets iptables has no use for.
pub(crate) fn ipset_type(name: &SetName, shape: Shape) -> Option<&'static str> {
    let of_policy = ["s4_", "r4_", "ep4_"].iter().any(|prefix| name.as_str().starts_with(prefix));
    match shape {
        Shape::Addresses(Family::V4) if of_policy => Some("hash:ip"),
        Shape::Ranges(Family::V4) if of_policy => Some("hash:net"),
        Shape::Endpoints(Family::V4) if of_policy => Some("hash:ip,port"),
        Shape::Addresses(_)
        | Shape::Ranges(_)
        | Shape::Endpoints(_)
        | Shape::Pairs(_)
        | Shape::Services
        | Shape::Links
        | Shape::Verdicts(_)
        | Shape::Banned(_)
        | Shape::BannedRanges(_)
        | Shape::Learned(_)
        | Shape::Meter(_) => None,
    }
}

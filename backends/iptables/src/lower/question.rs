//! The questions of a rule as matches of iptables, in the order iptables-save prints them.
use std::fmt;

use ipnetwork::IpNetwork;
use podwall_ruleset::{
    ConnState, Family, Key, LinkName, Lookup, Match, PortRange, Protocol, Rule, Ruleset, Set, SetName, Shape,
    Side,
};

use super::Unsuited;
use crate::{names, spelling};

/// Source equals destination, as `xt_bpf` compares it (classic BPF over the packet from its network header).
const SAME_ENDS_V4: &str = "6,32 0 0 12,7 0 0 0,32 0 0 16,29 0 1 0,6 0 0 65535,6 0 0 0";
const SAME_ENDS_V6: &str = "18,32 0 0 8,7 0 0 0,32 0 0 24,29 0 13 0,32 0 0 12,7 0 0 0,32 0 0 28,29 0 9 0,\
                            32 0 0 16,7 0 0 0,32 0 0 32,29 0 5 0,32 0 0 20,7 0 0 0,32 0 0 36,29 0 1 0,\
                            6 0 0 65535,6 0 0 0";

/// One conjunction of matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Form {
    source: Option<String>,
    destination: Option<String>,
    link: Option<String>,
    out: Option<String>,
    protocol: Option<String>,
    modules: Vec<String>,
}

impl fmt::Display for Form {
    /// Every match followed by a space.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = [
            ("-s", &self.source),
            ("-d", &self.destination),
            ("-i", &self.link),
            ("-o", &self.out),
            ("-p", &self.protocol),
        ];
        for (option, value) in slots {
            if let Some(value) = value {
                write!(f, "{option} {value} ")?;
            }
        }
        self.modules.iter().try_for_each(|module| write!(f, "{module} "))
    }
}

/// Every way to match a rule; links are left to [`links`].
pub(super) fn forms(ruleset: &Ruleset, rule: &Rule) -> Result<Vec<Form>, Unsuited> {
    let mut forms = vec![Form::default()];
    for question in &rule.matches {
        let answers = answers(ruleset, question)?;
        let mut more = Vec::new();
        for form in &forms {
            for answer in &answers {
                more.push(form.joined(answer)?);
            }
        }
        forms = more;
    }
    Ok(forms)
}

/// The set of links a rule asks for, and the option that asks for one.
pub(super) fn links(rule: &Rule) -> Option<(&SetName, &'static str)> {
    rule.matches.iter().find_map(|question| match question {
        Match::In(Lookup::InputLink, set) => Some((set, "-i")),
        Match::In(Lookup::OutputLink, set) => Some((set, "-o")),
        Match::In(Lookup::Address(..) | Lookup::Pair(_) | Lookup::Endpoint(..) | Lookup::Service, _)
        | Match::Family(_)
        | Match::Prefix(..)
        | Match::Protocol(_)
        | Match::Port(..)
        | Match::SourcePort(..)
        | Match::Local
        | Match::Icmpv6Type(..)
        | Match::HopLimit(_)
        | Match::Broadcast
        | Match::State(_)
        | Match::OriginalDirection
        | Match::Translated
        | Match::TcpNotOpening
        | Match::SctpNotOpening
        | Match::InputLink(_)
        | Match::ReversePathMissing => None,
    })
}

/// A set that must be there.
pub(super) fn held<'a>(ruleset: &'a Ruleset, name: &SetName) -> Result<&'a Set, Unsuited> {
    let found = ruleset.sets.get(name).map(AsRef::as_ref);
    found.ok_or_else(|| Unsuited::new(format!("there is no set {name}")))
}

/// An interface name that iptables takes as it is: a final `+` would be a wildcard.
pub(super) fn link_name(link: &LinkName) -> Result<&str, Unsuited> {
    let name = link.as_str();
    if name.ends_with('+') || name.starts_with(['!', '-']) || name.contains(['"', '\\', '\'']) {
        return Err(Unsuited::new(format!("iptables cannot name the interface {name}")));
    }
    Ok(name)
}

impl Form {
    fn module(text: impl Into<String>) -> Self {
        Self { modules: vec![text.into()], ..Self::default() }
    }

    fn joined(&self, other: &Self) -> Result<Self, Unsuited> {
        let slot = |mine: &Option<String>, theirs: &Option<String>| match (mine, theirs) {
            (Some(mine), Some(theirs)) if mine != theirs => {
                Err(Unsuited::new(format!("one packet cannot be {mine} and {theirs} in one rule")))
            }
            (Some(one), _) | (None, Some(one)) => Ok(Some(one.clone())),
            (None, None) => Ok(None),
        };
        Ok(Self {
            source: slot(&self.source, &other.source)?,
            destination: slot(&self.destination, &other.destination)?,
            link: slot(&self.link, &other.link)?,
            protocol: slot(&self.protocol, &other.protocol)?,
            out: slot(&self.out, &other.out)?,
            modules: merged(&self.modules, &other.modules),
        })
    }
}

fn answers(ruleset: &Ruleset, question: &Match) -> Result<Vec<Form>, Unsuited> {
    let one = |form| Ok(vec![form]);
    match question {
        Match::Family(_) | Match::In(Lookup::InputLink | Lookup::OutputLink, _) => one(Form::default()),
        // To iptables this number is every protocol; no packet is delivered under it.
        Match::Protocol(Protocol(0)) => Ok(Vec::new()),
        Match::In(Lookup::Service, set) => services(held(ruleset, set)?),
        Match::In(lookup, set) => one(Form::module(in_set(ruleset, *lookup, set)?)),
        Match::Prefix(_, network) if network.prefix() == 0 => one(Form::default()),
        Match::Prefix(Side::Source, network) => {
            one(Form { source: Some(spelled(*network)), ..Form::default() })
        }
        Match::Prefix(Side::Destination, network) => {
            one(Form { destination: Some(spelled(*network)), ..Form::default() })
        }
        Match::Protocol(protocol) => one(Form { protocol: Some(protocol.to_string()), ..Form::default() }),
        Match::Port(protocol, ports) => Ok(vec![port(*protocol, Port::Destination, *ports)?]),
        Match::SourcePort(protocol, ports) => Ok(vec![port(*protocol, Port::Source, *ports)?]),
        Match::Local => one(Form::module("-m addrtype --dst-type LOCAL")),
        Match::Icmpv6Type(first, last) => Ok((*first..=*last)
            .map(|kind| Form {
                protocol: Some("ipv6-icmp".to_owned()),
                ..Form::module(format!("-m icmp6 --icmpv6-type {kind}"))
            })
            .collect()),
        Match::HopLimit(limit) => one(Form::module(format!("-m hl --hl-eq {limit}"))),
        Match::Broadcast => one(Form::module("-m addrtype --dst-type BROADCAST")),
        Match::State(states) => one(Form::module(format!("-m conntrack --ctstate {}", state_list(states)))),
        Match::OriginalDirection => one(Form::module("-m conntrack --ctdir ORIGINAL")),
        // No state of its own there, but the same bit (`xt_conntrack`, XT_CONNTRACK_STATE_DNAT).
        Match::Translated => one(Form::module("-m conntrack --ctstate DNAT")),
        Match::TcpNotOpening => one(Form {
            protocol: Some("tcp".to_owned()),
            ..Form::module("-m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN")
        }),
        // An INIT is alone in its packet (RFC 9260, 3.3.2): one with company opens nothing here either.
        Match::SctpNotOpening => one(Form {
            protocol: Some("sctp".to_owned()),
            ..Form::module("-m sctp ! --chunk-types only INIT")
        }),
        Match::InputLink(link) => one(Form { link: Some(link_name(link)?.to_owned()), ..Form::default() }),
        Match::ReversePathMissing => one(Form::module("-m rpfilter --invert")),
    }
}

fn spelled(network: IpNetwork) -> String {
    format!("{}/{}", spelling::address(network.ip()), network.prefix())
}

/// Ports stand in rules: ipset has no set of protocols with ranges of ports that does not list every port.
fn services(set: &Set) -> Result<Vec<Form>, Unsuited> {
    let keys = set.iter().filter_map(|(key, _)| match key {
        Key::Service(protocol, ports) => Some(port(*protocol, Port::Destination, *ports)),
        Key::Address(_) | Key::Range(..) | Key::Pair(..) | Key::Endpoint(..) | Key::Link(_) => None,
    });
    keys.collect()
}

/// Which of the two ports.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Source,
    Destination,
}

/// `IPPROTO_DCCP`, `IPPROTO_UDPLITE`: their ports are asked for by a match that serves all protocols with ports.
const BY_MULTIPORT: [Protocol; 2] = [Protocol(33), Protocol(136)];

fn port(protocol: Protocol, which: Port, ports: PortRange) -> Result<Form, Unsuited> {
    let several = BY_MULTIPORT.contains(&protocol);
    if !several && ![Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol) {
        return Err(Unsuited::new(format!("ports of protocol {protocol}")));
    }
    let form = Form { protocol: Some(protocol.to_string()), ..Form::default() };
    if ports == PortRange::ALL {
        return Ok(form);
    }
    let range = if ports.first() == ports.last() {
        ports.first().to_string()
    } else {
        format!("{}:{}", ports.first(), ports.last())
    };
    let module = match (several, which) {
        (false, Port::Source) => format!("-m {protocol} --sport {range}"),
        (false, Port::Destination) => format!("-m {protocol} --dport {range}"),
        (true, Port::Source) => format!("-m multiport --sports {range}"),
        (true, Port::Destination) => format!("-m multiport --dports {range}"),
    };
    Ok(Form { modules: vec![module], ..form })
}

/// Both ports of a protocol are one match, the source first, as iptables-save prints them.
fn merged(mine: &[String], theirs: &[String]) -> Vec<String> {
    let mut all = mine.to_vec();
    for module in theirs {
        let joined = module.split_once(" --dport ").and_then(|(name, range)| {
            let source = all.iter_mut().find(|other| other.starts_with(&format!("{name} --sport ")))?;
            source.push_str(&format!(" --dport {range}"));
            Some(())
        });
        if joined.is_none() {
            all.push(module.clone());
        }
    }
    all
}

fn in_set(ruleset: &Ruleset, lookup: Lookup, set: &SetName) -> Result<String, Unsuited> {
    let shape = held(ruleset, set)?.spec.shape;
    let Some(name) = names::ipset(set, shape) else {
        return Err(Unsuited::new(format!("set {set} is not one to look addresses up in")));
    };
    let name = name?;
    let flags = match lookup {
        Lookup::Address(_, Side::Source) => "src",
        Lookup::Address(_, Side::Destination) => "dst",
        Lookup::Endpoint(_, Side::Source) => "src,dst",
        Lookup::Endpoint(_, Side::Destination) => "dst,dst",
        Lookup::Pair(_) if matches!(shape, Shape::Learned(_)) => "src,dst",
        Lookup::Pair(family) => {
            let program = match family {
                Family::V4 => SAME_ENDS_V4,
                Family::V6 => SAME_ENDS_V6,
            };
            return Ok(format!("-m bpf --bytecode \"{program}\" -m set --match-set {name} src"));
        }
        Lookup::Service | Lookup::InputLink | Lookup::OutputLink => {
            return Err(Unsuited::new(format!("set {set} as an ipset")));
        }
    };
    Ok(format!("-m set --match-set {name} {flags}"))
}

/// In the order iptables-save prints them.
fn state_list(states: &[ConnState]) -> String {
    let all = [
        (ConnState::Invalid, "INVALID"),
        (ConnState::New, "NEW"),
        (ConnState::Related, "RELATED"),
        (ConnState::Established, "ESTABLISHED"),
        (ConnState::Untracked, "UNTRACKED"),
    ];
    let named: Vec<_> =
        all.iter().filter(|(state, _)| states.contains(state)).map(|(_, name)| *name).collect();
    named.join(",")
}

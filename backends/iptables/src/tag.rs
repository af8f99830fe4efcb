//! What a kernel rule came from, in its comment: place in the chain, id, and the neutral rule in short.
//!
//! At most 255 characters (`XT_MAX_COMMENT_LEN`); no quotes and no backslashes, so that iptables-save prints a tag
//! as it was written. Words are separated by single spaces; a log's prefix comes last and may hold spaces.
use podwall_ruleset::{
    Answer, ChainName, ConnState, Count, Digest, Effect, Family, LinkName, Log, Lookup, Match, Meter,
    Outcome, PortRange, Protocol, Rule, RuleId, SetName, Side, Verdict,
};

/// Longest comment the kernel keeps.
pub(crate) const LIMIT: usize = 255;

/// The tag of a rule.
pub(crate) fn write(index: usize, rule: &Rule) -> String {
    let mut words = vec![index.to_string(), rule.id.to_string()];
    words.extend(rule.matches.iter().map(question));
    if rule.effect.count == Count::Yes {
        words.push("c".to_owned());
    }
    words.push(match &rule.effect.outcome {
        Outcome::Continue => "=".to_owned(),
        Outcome::Verdict(found) => verdict(found),
        Outcome::Map(key, set) => format!("M{}:{set}", lookup(*key)),
    });
    if let Some(log) = &rule.effect.log {
        let Meter { set, key, rate, burst } = &log.meter;
        words.push(format!(
            "*{},{},{rate},{burst},{},{set}:{}",
            log.group,
            log.snaplen,
            lookup(*key),
            log.prefix
        ));
    }
    words.join(" ")
}

/// A verdict in short.
pub(crate) fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "A".to_owned(),
        Verdict::Drop => "X".to_owned(),
        Verdict::Reject(Answer::Reset) => "Xr".to_owned(),
        Verdict::Reject(Answer::Prohibited) => "Xp".to_owned(),
        Verdict::Return => "R".to_owned(),
        Verdict::Jump(chain) => format!("J{chain}"),
        Verdict::Goto(chain) => format!("G{chain}"),
    }
}

/// A verdict from its short form.
pub(crate) fn read_verdict(word: &str) -> Option<Verdict> {
    let chain = |name: &str| ChainName::new(name).ok();
    match word.split_at_checked(1)? {
        ("A", "") => Some(Verdict::Accept),
        ("X", "") => Some(Verdict::Drop),
        ("X", "r") => Some(Verdict::Reject(Answer::Reset)),
        ("X", "p") => Some(Verdict::Reject(Answer::Prohibited)),
        ("R", "") => Some(Verdict::Return),
        ("J", name) => Some(Verdict::Jump(chain(name)?)),
        ("G", name) => Some(Verdict::Goto(chain(name)?)),
        _ => None,
    }
}

/// Place and rule of a tag.
pub(crate) fn read(tag: &str) -> Option<(usize, Rule)> {
    let (head, log) = match tag.find(" *") {
        Some(at) => (tag.get(..at)?, Some(read_log(tag.get(at + 2..)?)?)),
        None => (tag, None),
    };
    let mut words = head.split(' ');
    let index = words.next()?.parse().ok()?;
    let id = read_id(words.next()?)?;
    let (mut matches, mut count, mut outcome) = (Vec::new(), Count::No, None);
    for word in words {
        if outcome.is_some() {
            return None;
        }
        if word == "c" {
            count = Count::Yes;
        } else if let Some(found) = read_outcome(word) {
            outcome = Some(found);
        } else {
            matches.push(read_question(word)?);
        }
    }
    Some((index, Rule { id, matches, effect: Effect { count, log, outcome: outcome? } }))
}

fn read_id(word: &str) -> Option<RuleId> {
    // Twenty characters of five bits are twelve and a half bytes; the missing half is zero.
    let mut spec = data_encoding::Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    let decoded = spec.encoding().ok()?.decode(format!("{word}aaaa").as_bytes()).ok()?;
    let bytes: [u8; 13] = decoded.get(..13)?.try_into().ok()?;
    (word.len() == 20).then_some(RuleId(Digest::from_bytes(bytes)))
}

fn read_outcome(word: &str) -> Option<Outcome> {
    if word == "=" {
        return Some(Outcome::Continue);
    }
    if let Some(map) = word.strip_prefix('M') {
        let (key, set) = map.split_once(':')?;
        return Some(Outcome::Map(read_lookup(key)?, SetName::new(set).ok()?));
    }
    read_verdict(word).map(Outcome::Verdict)
}

fn read_log(text: &str) -> Option<Log> {
    let (numbers, prefix) = text.split_once(':')?;
    let mut fields = numbers.split(',');
    let group = fields.next()?.parse().ok()?;
    let snaplen = fields.next()?.parse().ok()?;
    let rate = fields.next()?.parse().ok()?;
    let burst = fields.next()?.parse().ok()?;
    let key = read_lookup(fields.next()?)?;
    let set = SetName::new(fields.next()?).ok()?;
    Some(Log { group, prefix: prefix.to_owned(), snaplen, meter: Meter { set, key, rate, burst } })
}

fn question(question: &Match) -> String {
    match question {
        Match::Family(family) => format!("f{}", family.digit()),
        Match::In(key, set) => format!("{}:{set}", lookup(*key)),
        Match::Prefix(side, network) => format!("n{}{network}", letter(*side)),
        Match::Protocol(Protocol(number)) => format!("q{number}"),
        Match::Port(Protocol(number), ports) => format!("d{number}:{}:{}", ports.first(), ports.last()),
        Match::SourcePort(Protocol(number), ports) => format!("u{number}:{}:{}", ports.first(), ports.last()),
        Match::Local => "k".to_owned(),
        Match::Icmpv6Type(first, last) => format!("y{first}:{last}"),
        Match::HopLimit(limit) => format!("h{limit}"),
        Match::Broadcast => "b".to_owned(),
        Match::State(states) => {
            format!("z{}", states.iter().map(|state| state_letter(*state)).collect::<String>())
        }
        Match::OriginalDirection => "o".to_owned(),
        Match::Translated => "x".to_owned(),
        Match::TcpNotOpening => "t".to_owned(),
        Match::SctpNotOpening => "s".to_owned(),
        Match::InputLink(link) => format!("w{link}"),
        Match::ReversePathMissing => "r".to_owned(),
    }
}

fn read_question(word: &str) -> Option<Match> {
    let (kind, rest) = word.split_at_checked(1)?;
    Some(match kind {
        "f" => Match::Family(read_family(rest)?),
        "n" => {
            let (side, network) = rest.split_at_checked(1)?;
            Match::Prefix(read_side(side)?, network.parse().ok()?)
        }
        "q" => Match::Protocol(Protocol(rest.parse().ok()?)),
        "d" => {
            let (protocol, ports) = read_ports(rest)?;
            Match::Port(protocol, ports)
        }
        "u" => {
            let (protocol, ports) = read_ports(rest)?;
            Match::SourcePort(protocol, ports)
        }
        "k" if rest.is_empty() => Match::Local,
        "y" => {
            let (first, last) = rest.split_once(':')?;
            Match::Icmpv6Type(first.parse().ok()?, last.parse().ok()?)
        }
        "h" => Match::HopLimit(rest.parse().ok()?),
        "b" => Match::Broadcast,
        "z" => Match::State(rest.chars().map(read_state).collect::<Option<_>>()?),
        "o" => Match::OriginalDirection,
        "x" => Match::Translated,
        "t" => Match::TcpNotOpening,
        "w" => Match::InputLink(LinkName::new(rest).ok()?),
        "s" => Match::SctpNotOpening,
        "r" => Match::ReversePathMissing,
        _ => {
            let (key, set) = word.split_once(':')?;
            Match::In(read_lookup(key)?, SetName::new(set).ok()?)
        }
    })
}

fn read_ports(text: &str) -> Option<(Protocol, PortRange)> {
    let mut numbers = text.split(':');
    let protocol = Protocol(numbers.next()?.parse().ok()?);
    let ports = PortRange::new(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?)?;
    Some((protocol, ports))
}

fn lookup(lookup: Lookup) -> String {
    match lookup {
        Lookup::Address(family, side) => format!("a{}{}", family.digit(), letter(side)),
        Lookup::Pair(family) => format!("p{}", family.digit()),
        Lookup::Endpoint(family, side) => format!("e{}{}", family.digit(), letter(side)),
        Lookup::Service => "v".to_owned(),
        Lookup::InputLink => "l".to_owned(),
        Lookup::OutputLink => "g".to_owned(),
    }
}

fn read_lookup(text: &str) -> Option<Lookup> {
    let sided = |rest: &str| {
        let (family, side) = rest.split_at_checked(1)?;
        Some((read_family(family)?, read_side(side)?))
    };
    match text.split_at_checked(1)? {
        ("a", rest) => sided(rest).map(|(family, side)| Lookup::Address(family, side)),
        ("e", rest) => sided(rest).map(|(family, side)| Lookup::Endpoint(family, side)),
        ("p", rest) => read_family(rest).map(Lookup::Pair),
        ("v", "") => Some(Lookup::Service),
        ("l", "") => Some(Lookup::InputLink),
        ("g", "") => Some(Lookup::OutputLink),
        _ => None,
    }
}

const fn letter(side: Side) -> char {
    match side {
        Side::Source => 's',
        Side::Destination => 'd',
    }
}

fn read_side(text: &str) -> Option<Side> {
    [Side::Source, Side::Destination].into_iter().find(|side| text == letter(*side).to_string())
}

fn read_family(text: &str) -> Option<Family> {
    Family::BOTH.into_iter().find(|family| text == family.digit().to_string())
}

const fn state_letter(state: ConnState) -> char {
    match state {
        ConnState::New => 'n',
        ConnState::Established => 'e',
        ConnState::Related => 'r',
        ConnState::Invalid => 'i',
        ConnState::Untracked => 'u',
    }
}

fn read_state(letter: char) -> Option<ConnState> {
    let all = [
        ConnState::New,
        ConnState::Established,
        ConnState::Related,
        ConnState::Invalid,
        ConnState::Untracked,
    ];
    all.into_iter().find(|state| state_letter(*state) == letter)
}

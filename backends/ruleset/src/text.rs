//! How operations and rulesets read in the language of nft(8).
//!
//! Owns every word of it: `podwall render`, error messages and the tests print through here, and what is printed
//! can be loaded with `nft -f` (held by a test against nft itself). The native backend does not use this text;
//! both lower the same values. Kernel objects without a word here (table owner, user data) are left out.
//! Sources: nft(8) of nftables 1.0.6, `scanner.l`/`parser_bison.y` for what may stand unquoted.
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use crate::ids::{ChainName, SetName};
use crate::ruleset::Base;
use crate::set::{Deadline, Key, SetSpec, Shape, Value};
use crate::transaction::{Op, Transaction};
use crate::verdict::Answer;

mod listing;
mod rule;

pub use listing::nft_listing;
use rule::rule_lines;

/// Family and name of our table, as every command names it.
pub const TABLE: &str = "inet podwall";

impl Display for Transaction {
    /// One command a line, in order: a file for `nft -f`, which is one transaction too.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.ops().iter().try_for_each(|op| writeln!(f, "{op}"))
    }
}

impl Display for Op {
    /// The nft command, without a final newline; one line for each rule of [`Op::AddRules`].
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable => write!(f, "add table {TABLE}"),
            Self::DeleteTable => write!(f, "delete table {TABLE}"),
            Self::AddSet(name, spec) => {
                write!(f, "add {} {TABLE} {name} {{ {} }}", noun(*spec), Declared(*spec))
            }
            Self::DeleteSet(name) => write!(f, "delete set {TABLE} {name}"),
            Self::AddChain(name, None) => write!(f, "add chain {TABLE} {name}"),
            Self::AddChain(name, Some(base)) => write!(f, "add chain {TABLE} {name} {{ {base} }}"),
            Self::AddRules(name, chain) => {
                let lines = chain.rules.iter().flat_map(rule_lines);
                joined(f, "\n", lines, |f, line| write!(f, "add rule {TABLE} {name} {line}"))
            }
            Self::FlushChain(name) => write!(f, "flush chain {TABLE} {name}"),
            Self::DeleteChain(name) => write!(f, "delete chain {TABLE} {name}"),
            Self::AddElements(name, elements) => {
                fmt_elements(f, "add", name, elements.iter().map(Element::from))
            }
            Self::RemoveElements(name, keys) => {
                fmt_elements(f, "delete", name, keys.iter().map(Element::bare))
            }
        }
    }
}

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let hook = match self.hook {
            crate::Hook::Prerouting => "prerouting",
            crate::Hook::Input => "input",
            crate::Hook::Forward => "forward",
            crate::Hook::Output => "output",
            crate::Hook::Postrouting => "postrouting",
        };
        write!(f, "type filter hook {hook} priority {}; policy accept;", self.priority)
    }
}

fn fmt_elements<'a>(
    f: &mut Formatter<'_>,
    verb: &str,
    set: &SetName,
    elements: impl Iterator<Item = Element<'a>>,
) -> fmt::Result {
    write!(f, "{verb} element {TABLE} {set} {{ ")?;
    joined(f, ", ", elements, |f, element| write!(f, "{element}"))?;
    f.write_str(" }")
}

/// Writes items with a separator between them.
fn joined<T>(
    f: &mut Formatter<'_>,
    separator: &str,
    items: impl Iterator<Item = T>,
    mut each: impl FnMut(&mut Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        each(f, item)?;
    }
    Ok(())
}

/// What nft calls the object.
const fn noun(spec: SetSpec) -> &'static str {
    match spec.shape {
        Shape::Verdicts(_) => "map",
        Shape::Addresses(_)
        | Shape::Ranges(_)
        | Shape::Pairs(_)
        | Shape::Endpoints(_)
        | Shape::Services
        | Shape::Links
        | Shape::Banned(_)
        | Shape::BannedRanges(_)
        | Shape::Learned(_)
        | Shape::Meter(_) => "set",
    }
}

/// A spec as the statements between the braces of its declaration.
struct Declared(SetSpec);

impl Declared {
    /// Each statement, without semicolon.
    fn statements(&self) -> Vec<String> {
        let mut all = vec![format!("type {}", KeyType(self.0.shape))];
        let meter = matches!(self.0.shape, Shape::Meter(_));
        let size = self.0.size.or(meter.then_some(crate::set::METER_SIZE));
        all.extend(size.map(|size| format!("size {size}")));
        match self.0.shape {
            Shape::Ranges(_) | Shape::Services => all.push("flags interval".to_owned()),
            Shape::BannedRanges(_) => all.extend(["flags interval", "counter"].map(str::to_owned)),
            Shape::Banned(_) | Shape::Learned(_) => {
                all.extend(["flags timeout", "counter"].map(str::to_owned))
            }
            Shape::Meter(_) => {
                all.push("flags dynamic,timeout".to_owned());
                all.push(format!("timeout {}s", crate::set::METER_TIMEOUT.as_secs()));
            }
            Shape::Addresses(_)
            | Shape::Pairs(_)
            | Shape::Endpoints(_)
            | Shape::Links
            | Shape::Verdicts(_) => {}
        }
        all
    }
}

impl Display for Declared {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        joined(f, " ", self.statements().into_iter(), |f, statement| write!(f, "{statement};"))
    }
}

struct KeyType(Shape);

impl Display for KeyType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let address = match self.0.family() {
            Some(crate::Family::V6) => "ipv6_addr",
            Some(crate::Family::V4) | None => "ipv4_addr",
        };
        match self.0 {
            Shape::Addresses(_)
            | Shape::Ranges(_)
            | Shape::Banned(_)
            | Shape::BannedRanges(_)
            | Shape::Meter(_) => f.write_str(address),
            Shape::Pairs(_) | Shape::Learned(_) => write!(f, "{address} . {address}"),
            Shape::Endpoints(_) => write!(f, "{address} . inet_proto . inet_service"),
            Shape::Services => f.write_str("inet_proto . inet_service"),
            Shape::Links => f.write_str("ifname"),
            Shape::Verdicts(_) => write!(f, "{address} : verdict"),
        }
    }
}

/// An element as a set lists it.
struct Element<'a> {
    key: &'a Key,
    value: Option<&'a Value>,
}

impl<'a> Element<'a> {
    const fn bare(key: &'a Key) -> Self {
        Self { key, value: None }
    }
}

impl<'a> From<&'a (Key, Value)> for Element<'a> {
    fn from((key, value): &'a (Key, Value)) -> Self {
        Self { key, value: Some(value) }
    }
}

impl Display for Element<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        match self.value {
            Some(Value::Verdict(verdict)) => write!(f, " : {verdict}"),
            // How long that is from now, only the one who loads it knows.
            Some(Value::Until(Deadline(end))) => write!(f, " comment \"until {end}\""),
            Some(Value::Member) | None => Ok(()),
        }
    }
}

impl Display for Key {
    /// As nft writes an element.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Range(first, last) => match prefix_length(*first, *last) {
                Some(_) if first == last => write!(f, "{first}"),
                Some(length) => write!(f, "{first}/{length}"),
                None => write!(f, "{first}-{last}"),
            },
            Self::Pair(source, destination) => write!(f, "{source} . {destination}"),
            Self::Endpoint(address, protocol, port) => write!(f, "{address} . {protocol} . {port}"),
            Self::Service(protocol, ports) => write!(f, "{protocol} . {ports}"),
            Self::Link(link) => write!(f, "\"{link}\""),
        }
    }
}

impl Display for crate::Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let into = |f: &mut Formatter<'_>, word: &str, chain: &ChainName| write!(f, "{word} {chain}");
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Reject(Answer::Reset) => f.write_str("reject with tcp reset"),
            Self::Reject(Answer::Prohibited) => f.write_str("reject with icmpx admin-prohibited"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => into(f, "jump", chain),
            Self::Goto(chain) => into(f, "goto", chain),
        }
    }
}

/// The length of the prefix that is exactly this range, if one is.
fn prefix_length(first: IpAddr, last: IpAddr) -> Option<u32> {
    let (low, high, bits) = match (first, last) {
        (IpAddr::V4(low), IpAddr::V4(high)) => (u128::from(low.to_bits()), u128::from(high.to_bits()), 32),
        (IpAddr::V6(low), IpAddr::V6(high)) => (low.to_bits(), high.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let host = low ^ high;
    let free = host.trailing_ones();
    let aligned = host.checked_shr(free).unwrap_or(0) == 0 && low & host == 0;
    aligned.then(|| bits - free)
}

#[cfg(test)]
mod tests;

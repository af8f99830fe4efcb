//! What kernel objects are called. Owns the prefixes; refuses names the kernel could not carry.
//!
//! Limits: 28 characters for a chain (`XT_EXTENSION_MAXNAMELEN` less the final zero), 31 for a set
//! (`IPSET_MAXNAMELEN`). Neutral names are 25 at most where they are made from content.
use podwall_ruleset::{ChainName, Digest, Family, SetName, Shape};

/// The chain of reverse path checks, which the kernel offers only before routing (`xt_rpfilter`).
pub(crate) const REVERSE_PATH: &str = "PWR";

/// The chain kernel features are tried in; nobody enters it.
pub(crate) const TRIAL_CHAIN: &str = "PWT";
/// The set they are tried with.
pub(crate) const TRIAL_SET: &str = "pwt4";
/// The set of pairs that is tried beside.
pub(crate) const TRIAL_PAIRS: &str = "pwtp";

/// What takes the place of a set of networks, for a moment.
const SWAP_SETS: [&str; 2] = ["pws4", "pws6"];

/// The set that is filled beside one of that family, and swapped with it.
pub(crate) const fn swap_set(family: Family) -> &'static str {
    let [four, six] = SWAP_SETS;
    match family {
        Family::V4 => four,
        Family::V6 => six,
    }
}

const CHAIN_LIMIT: usize = 28;
const SET_LIMIT: usize = 31;

/// A name is too long for the kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name {0} is too long for iptables")]
pub(crate) struct TooLong(String);

fn within(name: String, limit: usize) -> Result<String, TooLong> {
    if name.len() <= limit { Ok(name) } else { Err(TooLong(name)) }
}

/// The chain of a neutral chain, or its continuation after so many maps were asked.
pub(crate) fn chain(name: &ChainName, segment: usize) -> Result<String, TooLong> {
    match segment {
        0 => within(format!("PW-{name}"), CHAIN_LIMIT),
        later => within(format!("PW-{name}.{later}"), CHAIN_LIMIT),
    }
}

/// Where the map's tree starts, or the node that such low digits of the address lead to.
pub(crate) fn node(map: &SetName, digits: &str) -> Result<String, TooLong> {
    within(if digits.is_empty() { format!("PWM-{map}") } else { format!("PWM-{map}-{digits}") }, CHAIN_LIMIT)
}

/// The chain that says what a set is which is no ipset; for a map it is also where packets go that it does not hold.
pub(crate) fn register(set: &SetName) -> Result<String, TooLong> {
    within(format!("PWS-{set}"), CHAIN_LIMIT)
}

/// The list of interfaces a rule goes through.
pub(crate) fn links(chain: &ChainName, rule: usize) -> String {
    format!("PWL-{}", Digest::of([chain.as_str(), &rule.to_string()]))
}

/// Behind the prefix, what kind of set it is: addresses, ranges, pairs, endpoints, banned addresses and networks,
/// learned addresses.
const SET_LETTERS: [&str; 7] = ["a", "r", "p", "e", "b", "n", "l"];

/// The ipset of a set, if its shape is one.
pub(crate) fn ipset(set: &SetName, shape: Shape) -> Option<Result<String, TooLong>> {
    let letter = match shape {
        Shape::Addresses(_) => 'a',
        Shape::Ranges(_) => 'r',
        Shape::Pairs(_) => 'p',
        Shape::Endpoints(_) => 'e',
        Shape::Banned(_) => 'b',
        Shape::BannedRanges(_) => 'n',
        Shape::Learned(_) => 'l',
        Shape::Services | Shape::Links | Shape::Verdicts(_) | Shape::Meter(_) => return None,
    };
    Some(within(format!("pw{letter}_{set}"), SET_LIMIT))
}

/// Is the name of a chain one of those above? Somebody else's may begin with the same two letters.
pub(crate) fn is_chain_of_ours(name: &str) -> bool {
    ["PW-", "PWM-", "PWS-", "PWL-"].iter().any(|prefix| name.starts_with(prefix))
        || [REVERSE_PATH, TRIAL_CHAIN].contains(&name)
}

/// Is the name of an ipset one of ours?
pub(crate) fn is_set_of_ours(name: &str) -> bool {
    let letter = |rest: &str| rest.split_once('_').is_some_and(|(letter, _)| SET_LETTERS.contains(&letter));
    name == TRIAL_SET || SWAP_SETS.contains(&name) || name.strip_prefix("pw").is_some_and(letter)
}

/// Is a line of iptables-save, `-A chain rule`, in one of our chains, or does it lead to one?
pub(crate) fn is_rule_of_ours(line: &str) -> bool {
    let mut words = line.split(' ');
    words.nth(1).is_some_and(is_chain_of_ours) || target(line).is_some_and(is_chain_of_ours)
}

/// Where a line of iptables-save leads. A target's options follow its name, and comments may hold anything, so only
/// the last such word counts; a chain has no options.
fn target(line: &str) -> Option<&str> {
    let (rest, name) = line.rsplit_once(' ')?;
    ["-j", "-g"].iter().any(|word| rest.ends_with(word)).then_some(name)
}

/// The families in which a chain exists. Like [`Growth::of`](podwall_ruleset::Growth::of) it goes by the name:
/// `i4_...` and `ai4_...` are never entered by an IPv6 packet.
pub(crate) fn families(name: &ChainName) -> &'static [Family] {
    let prefix = name.as_str().split_once('_').map_or("", |(prefix, _)| prefix);
    let of = |digit| prefix.strip_suffix(digit).is_some_and(|letters| matches!(letters.len(), 1..=3));
    match (of('4'), of('6')) {
        (true, _) => &[Family::V4],
        (_, true) => &[Family::V6],
        (false, false) => &Family::BOTH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ipset_we_make_is_known_for_ours_and_others_are_not() {
        let set = SetName::new("c_x").unwrap();
        let made: Vec<String> = Family::BOTH
            .into_iter()
            .flat_map(|family| {
                [
                    Shape::Addresses(family),
                    Shape::Ranges(family),
                    Shape::Pairs(family),
                    Shape::Endpoints(family),
                    Shape::Banned(family),
                    Shape::BannedRanges(family),
                    Shape::Learned(family),
                    Shape::Services,
                    Shape::Links,
                    Shape::Verdicts(family),
                    Shape::Meter(family),
                ]
            })
            .filter_map(|shape| ipset(&set, shape)?.ok())
            .collect();
        assert_eq!(made.len(), 14);
        assert_eq!(made.iter().find(|name| !is_set_of_ours(name)), None);
        let others = ["pwx_c", "pwab_c", "pw_c", "pwa", "kube_a", "pwt44"];
        assert_eq!(others.iter().find(|name| is_set_of_ours(name)), None);
    }
}

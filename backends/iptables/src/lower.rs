//! Neutral objects to kernel objects. Pure: the same object gives the same text, which `observe` relies on.
//!
//! - A chain becomes `PW-name` in the families its name allows. A rule that asks a verdict map leaves for the map's
//!   tree by `goto`, so that a RETURN found there leaves the chain; what follows it stands in `PW-name.1`.
//! - A verdict map becomes a tree over the low ten bits of the address ([`dispatch`]).
//! - Addresses, ranges, endpoints and pairs become ipsets. A pair's two ends are equal (hairpin): its ipset holds
//!   one address, and `xt_bpf` compares the ends.
//! - Services become one rule for each entry, links a list of interfaces.
//! - `xt_rpfilter` is only allowed before routing: such a rule is carried out in `PWR` ([`reverse_path`]), and holds
//!   its place in its chain by a rule that does nothing.
//! - Accept is RETURN in base chains, so that other rules of the mangle table still run (MSS clamping).
use podwall_ruleset::{
    Base, Chain, ChainName, Count, Digest, Family, Hook, Key, Log, Lookup, Match, Meter, Outcome, Rule,
    Ruleset, SetName, Shape, Side, Verdict,
};

use crate::image::{Image, Jump, hook_name};
use crate::names::{self, REVERSE_PATH, TooLong};
use crate::tag;

pub(crate) mod dispatch;
mod question;
pub(crate) mod set;

use question::forms;

/// Longest name of a hash table of `xt_hashlimit` (`IFNAMSIZ` less the final zero).
const METER_NAME: usize = 15;
/// Rules a chain may become. Every port of a service list times every peer is a rule here, and a program that restores
/// or saves half a million of them takes longer than we wait for it.
const CHAIN_RULES: usize = 16_384;
/// Longest prefix NFLOG takes (`nf_log` of xtables).
const PREFIX: usize = 63;

/// Something iptables has no words for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsuited {
    /// A name.
    #[error(transparent)]
    Name(#[from] TooLong),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Unsuited {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self::Other(what.into())
    }
}

/// A chain with all that belongs to it, but for the reverse path checks.
pub(crate) fn chain(ruleset: &Ruleset, name: &ChainName, chain: &Chain) -> Result<Image, Unsuited> {
    let mut image = Image::default();
    let families = names::families(name);
    for family in families {
        let (mut segment, mut lines) = (0, Vec::new());
        for (index, rule) in chain.rules.iter().enumerate() {
            let here = applies(rule, *family);
            let nowhere = !families.iter().any(|family| applies(rule, *family));
            if !here {
                if nowhere && families.first() == Some(family) {
                    lines.push(placeholder(&comment(tag::write(index, rule))?));
                }
                continue;
            }
            let at = Place { ruleset, family: *family, chain: name, base: chain.base.is_some(), index };
            if let Outcome::Map(_, map) = &rule.effect.outcome {
                lines.extend(at.map(rule, map)?);
                image.chains.insert((*family, names::chain(name, segment)?), std::mem::take(&mut lines));
                segment += 1;
            } else {
                lines.extend(at.rule(rule, &mut image)?);
            }
            if lines.len() > CHAIN_RULES {
                let what =
                    format!("chain {name} would be more than {CHAIN_RULES} rules: name fewer ports or peers");
                return Err(Unsuited::new(what));
            }
        }
        image.chains.insert((*family, names::chain(name, segment)?), lines);
        if let Some(base) = chain.base {
            image.jumps.insert((*family, jump(name, base)?));
        }
    }
    Ok(image)
}

/// The way from a hook into a base chain.
pub(crate) fn jump(name: &ChainName, base: Base) -> Result<Jump, Unsuited> {
    let words = comment(format!("podwall {name} {}", base.priority))?;
    Ok(Jump { hook: hook_name(base.hook), line: format!("{words} -j {}", names::chain(name, 0)?) })
}

/// The way to the reverse path checks.
pub(crate) fn reverse_path_jump() -> Result<Jump, Unsuited> {
    let words = comment("podwall reverse path".to_owned())?;
    Ok(Jump { hook: hook_name(Hook::Prerouting), line: format!("{words} -j {REVERSE_PATH}") })
}

/// Does the rule go through a list of interfaces?
pub(crate) fn asks_links(rule: &Rule) -> bool {
    question::links(rule).is_some()
}

/// The reverse path checks of all chains, before routing: what the forward chain accepts, or leaves for good, on its
/// way to the check passes there too.
pub(crate) fn reverse_path(ruleset: &Ruleset) -> Result<Image, Unsuited> {
    let mut image = Image::default();
    let checks = ruleset.chains.iter().flat_map(|(name, chain)| {
        chain
            .rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| checks_reverse_path(rule))
            .map(move |found| (name, found))
    });
    for (name, (index, rule)) in checks {
        for family in names::families(name).iter().filter(|family| applies(rule, **family)) {
            let at = Place { ruleset, family: *family, chain: name, base: true, index };
            let mut lines = Vec::new();
            for passing in before(ruleset, name).filter(|passing| applies(passing, *family)) {
                for form in forms(ruleset, passing)? {
                    lines.push(format!("{form}-j RETURN"));
                }
            }
            lines.extend(at.check(rule, &mut image)?);
            image.jumps.insert((*family, reverse_path_jump()?));
            image.chains.entry((*family, REVERSE_PATH.to_owned())).or_default().extend(lines);
        }
    }
    Ok(image)
}

/// Does the rule ask for the way back?
pub(crate) fn checks_reverse_path(rule: &Rule) -> bool {
    rule.matches.contains(&Match::ReversePathMissing)
}

/// What base chains of the forward hook are done with before they enter a chain.
fn before<'a>(ruleset: &'a Ruleset, target: &'a ChainName) -> impl Iterator<Item = &'a Rule> {
    let bases =
        ruleset.chains.values().filter(|chain| chain.base.is_some_and(|base| base.hook == Hook::Forward));
    let enters = |rule: &Rule| matches!(&rule.effect.outcome, Outcome::Verdict(verdict) if verdict.target() == Some(target));
    let rules = bases.flat_map(move |chain| {
        let end = chain.rules.iter().position(enters).unwrap_or(0);
        chain.rules.iter().take(end)
    });
    let leaves = |rule: &&Rule| match &rule.effect.outcome {
        Outcome::Verdict(Verdict::Accept | Verdict::Reject(_)) => true,
        Outcome::Verdict(Verdict::Goto(_)) => !asks_links(rule),
        Outcome::Verdict(Verdict::Drop | Verdict::Return | Verdict::Jump(_))
        | Outcome::Continue
        | Outcome::Map(..) => false,
    };
    rules.filter(leaves)
}

/// Can packets of the family match the rule?
pub(crate) fn applies(rule: &Rule, family: Family) -> bool {
    let asked = rule.matches.iter().filter_map(|question| match question {
        Match::Family(family) => Some(*family),
        Match::In(lookup, _) => of_lookup(*lookup),
        Match::Prefix(_, network) => Some(Family::of(&network.ip())),
        Match::Icmpv6Type(..) | Match::HopLimit(_) => Some(Family::V6),
        Match::Broadcast => Some(Family::V4),
        Match::Protocol(_)
        | Match::Port(..)
        | Match::SourcePort(..)
        | Match::Local
        | Match::State(_)
        | Match::OriginalDirection
        | Match::Translated
        | Match::TcpNotOpening
        | Match::InputLink(_)
        | Match::SctpNotOpening
        | Match::ReversePathMissing => None,
    });
    let mapped = match &rule.effect.outcome {
        Outcome::Map(lookup, _) => of_lookup(*lookup),
        Outcome::Continue | Outcome::Verdict(_) => None,
    };
    let logged = rule.effect.log.as_ref().and_then(|log| of_lookup(log.meter.key));
    asked.chain(mapped).chain(logged).all(|only| only == family)
}

const fn of_lookup(lookup: Lookup) -> Option<Family> {
    match lookup {
        Lookup::Address(family, _) | Lookup::Pair(family) | Lookup::Endpoint(family, _) => Some(family),
        Lookup::Service | Lookup::InputLink | Lookup::OutputLink => None,
    }
}

/// A comment match.
pub(crate) fn comment(text: String) -> Result<String, Unsuited> {
    if text.len() > tag::LIMIT || text.contains(['"', '\\', '\'']) {
        return Err(Unsuited::new(format!("a comment cannot hold: {text}")));
    }
    Ok(format!("-m comment --comment \"{text}\""))
}

fn placeholder(comment: &str) -> String {
    comment.to_owned()
}

/// The target of a verdict for packets of a family.
pub(crate) fn target(verdict: &Verdict, family: Family, base: bool) -> Result<String, Unsuited> {
    let into = |word: &str, chain: &ChainName| {
        // A chain of the other family: no packet of this one gets here, and none shall get on.
        if names::families(chain).contains(&family) {
            Ok(format!("{word} {}", names::chain(chain, 0)?))
        } else {
            Ok("-j DROP".to_owned())
        }
    };
    match verdict {
        Verdict::Accept if base => Ok("-j RETURN".to_owned()),
        Verdict::Accept => Ok("-j ACCEPT".to_owned()),
        // REJECT is not allowed in table mangle (`xt_REJECT`, decision L10); the capabilities say so.
        Verdict::Drop | Verdict::Reject(_) => Ok("-j DROP".to_owned()),
        Verdict::Return => Ok("-j RETURN".to_owned()),
        Verdict::Jump(chain) => into("-j", chain),
        Verdict::Goto(chain) => into("-g", chain),
    }
}

/// Where a rule stands.
struct Place<'a> {
    ruleset: &'a Ruleset,
    family: Family,
    chain: &'a ChainName,
    base: bool,
    index: usize,
}

impl Place<'_> {
    /// The first line carries the whole tag, the others only the place.
    fn comments(&self, rule: &Rule) -> Result<impl FnMut() -> String + use<>, Unsuited> {
        let (mut first, rest) =
            (Some(comment(tag::write(self.index, rule))?), comment(format!("{} +", self.index))?);
        Ok(move || first.take().unwrap_or_else(|| rest.clone()))
    }

    fn map(&self, rule: &Rule, map: &SetName) -> Result<Vec<String>, Unsuited> {
        if !rule.matches.is_empty() || rule.effect.log.is_some() {
            return Err(Unsuited::new(format!("map {map} is asked under conditions")));
        }
        let mut comments = self.comments(rule)?;
        Ok(vec![format!("{} -g {}", comments(), names::node(map, "")?)])
    }

    fn rule(&self, rule: &Rule, image: &mut Image) -> Result<Vec<String>, Unsuited> {
        let mut comments = self.comments(rule)?;
        if checks_reverse_path(rule) {
            return Ok(vec![placeholder(&comments())]);
        }
        let forms = forms(self.ruleset, rule)?;
        if let Some(links) = question::links(rule) {
            let list = self.links(rule, links, image)?;
            let lines = forms.iter().map(|form| format!("{form}{} -j {list}", comments())).collect();
            return Ok(lines);
        }
        let mut lines = Vec::new();
        if rule.effect.log.is_some() && rule.effect.count == Count::Yes {
            lines.extend(forms.iter().map(|form| format!("{form}{}", comments())));
        }
        if let Some(log) = &rule.effect.log {
            let (meter, record) = (self.meter(log)?, record(log)?);
            lines.extend(forms.iter().map(|form| format!("{form}{meter}{} {record}", comments())));
        }
        match &rule.effect.outcome {
            Outcome::Verdict(verdict) => {
                let target = target(verdict, self.family, self.base)?;
                lines.extend(forms.iter().map(|form| format!("{form}{} {target}", comments())));
            }
            Outcome::Continue if rule.effect.log.is_none() => {
                lines.extend(forms.iter().map(|form| format!("{form}{}", comments())));
            }
            Outcome::Continue | Outcome::Map(..) => {}
        }
        if lines.is_empty() {
            lines.push(placeholder(&comments()));
        }
        Ok(lines)
    }

    /// The check itself, before routing.
    fn check(&self, rule: &Rule, image: &mut Image) -> Result<Vec<String>, Unsuited> {
        let forms = forms(self.ruleset, rule)?;
        let target = match (question::links(rule), &rule.effect.outcome) {
            (Some(links), _) => format!("-j {}", self.links(rule, links, image)?),
            (None, Outcome::Verdict(verdict)) => target(verdict, self.family, false)?,
            (None, Outcome::Continue | Outcome::Map(..)) => {
                return Err(Unsuited::new("a reverse path check without a verdict"));
            }
        };
        Ok(forms.iter().map(|form| format!("{form}{target}")).collect())
    }

    /// The list of a rule's interfaces, each with the rule's verdict; answers its name.
    fn links(
        &self,
        rule: &Rule,
        (links, option): (&SetName, &str),
        image: &mut Image,
    ) -> Result<String, Unsuited> {
        let Outcome::Verdict(verdict @ (Verdict::Drop | Verdict::Goto(_) | Verdict::Jump(_))) =
            &rule.effect.outcome
        else {
            return Err(Unsuited::new(format!("interfaces of {links} lead to no chain")));
        };
        if rule.effect.log.is_some() {
            return Err(Unsuited::new(format!("a log of interfaces {links}")));
        }
        let target = target(verdict, self.family, false)?;
        let set = question::held(self.ruleset, links)?;
        let lines = set.iter().filter_map(|(key, _)| match key {
            Key::Link(link) => {
                Some(question::link_name(link).map(|link| format!("{option} {link} {target}")))
            }
            Key::Address(_) | Key::Range(..) | Key::Pair(..) | Key::Endpoint(..) | Key::Service(..) => None,
        });
        let name = names::links(self.chain, self.index);
        image.chains.insert((self.family, name.clone()), lines.collect::<Result<_, _>>()?);
        Ok(name)
    }

    /// One hash table of rates for each meter: rules that name the same share it.
    fn meter(&self, log: &Log) -> Result<String, Unsuited> {
        let meter = &log.meter;
        let mode = match meter.key {
            Lookup::Address(_, Side::Source) => "srcip",
            Lookup::Address(_, Side::Destination) => "dstip",
            Lookup::Pair(_)
            | Lookup::Endpoint(..)
            | Lookup::Service
            | Lookup::InputLink
            | Lookup::OutputLink => {
                return Err(Unsuited::new(format!("the key of meter {}", meter.set)));
            }
        };
        let size =
            question::held(self.ruleset, &meter.set)?.spec.size.unwrap_or(podwall_ruleset::set::METER_SIZE);
        let expire = podwall_ruleset::set::METER_TIMEOUT.as_millis();
        let name = table_of_rates(meter, size)?;
        Ok(format!(
            "-m hashlimit --hashlimit-upto {}/sec --hashlimit-burst {} --hashlimit-mode {mode} --hashlimit-name {name} \
             --hashlimit-htable-max {size} --hashlimit-htable-expire {expire} ",
            meter.rate, meter.burst
        ))
    }
}

/// The kernel keeps the first settings it hears for a name as long as any rule has it (`xt_hashlimit`), so other
/// settings need another name.
fn table_of_rates(meter: &Meter, size: u32) -> Result<String, Unsuited> {
    let settings =
        Digest::of([meter.rate.to_string(), meter.burst.to_string(), size.to_string()]).to_string();
    let name = format!("{}-{}", meter.set, settings.get(..6).unwrap_or(&settings));
    if name.len() > METER_NAME {
        return Err(Unsuited::new(format!("the name of meter {} is too long", meter.set)));
    }
    Ok(name)
}

fn record(log: &Log) -> Result<String, Unsuited> {
    let Log { group, prefix, snaplen, .. } = log;
    if prefix.len() > PREFIX || prefix.contains(['"', '\\', '\'']) {
        return Err(Unsuited::new(format!("NFLOG cannot carry the prefix {prefix}")));
    }
    Ok(format!("-j NFLOG --nflog-prefix {} --nflog-group {group} --nflog-size {snaplen}", quoted(prefix)))
}

/// As iptables-save prints a string (`xtables_save_string`).
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("\"{text}\"") }
}

/// Is the set's content part of rules rather than an ipset?
pub(crate) const fn in_rules(shape: Shape) -> bool {
    match shape {
        Shape::Services | Shape::Links => true,
        Shape::Addresses(_)
        | Shape::Ranges(_)
        | Shape::Pairs(_)
        | Shape::Endpoints(_)
        | Shape::Banned(_)
        | Shape::BannedRanges(_)
        | Shape::Learned(_)
        | Shape::Verdicts(_)
        | Shape::Meter(_) => false,
    }
}

#[cfg(test)]
mod tests;

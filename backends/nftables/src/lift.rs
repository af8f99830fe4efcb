//! Expressions back to neutral rules: the exact inverse of [`crate::lower`].
//!
//! What cannot have come from us is not guessed at. It is reported, and a rule that no compiler of ours can want
//! stands in its place, so that a comparison with what is wanted always sees the difference.
use podwall_ruleset::{
    Count, Digest, Effect, Family, Log, Lookup, Match, Meter, Outcome, Rule, RuleId, SetName, Side, Verdict,
};

use crate::data::{Register, Unread};
use crate::expr::{Dynset, Expr, Header, Immediate, Meta, MetaKey, Payload, Reject, Yields};
use crate::lower::parts::{DESTINATION_PORT, register_width};
use crate::object::rule::{Comment, KernelRule, Part};

mod question;

/// The id of rules that are none of ours.
const NOBODY: RuleId = RuleId(Digest::from_bytes([0; 13]));

/// The rules of one chain, in order, and what about them cannot have come from us.
pub(crate) fn lift(rules: &[KernelRule]) -> (Vec<Rule>, Vec<String>) {
    let (mut lifted, mut alien) = (Vec::with_capacity(rules.len()), Vec::new());
    let mut rest = rules;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let (comment, body) = match lift_one(first) {
            Ok(one) => one,
            Err(unread) => {
                alien.push(unread.to_string());
                lifted.push(stranger());
                continue;
            }
        };
        let both = comment.and_then(|Comment { id, part }| match part {
            Part::Last => Some((body.clone().with(id), after)),
            Part::Continued => body.joined(id, after),
        });
        match both {
            Some((rule, after)) => {
                lifted.push(rule);
                rest = after;
            }
            None => {
                alien.push(match comment {
                    Some(Comment { id, .. }) => format!("rule {id} without its second part"),
                    None => "a rule without an id of ours".to_owned(),
                });
                lifted.push(body.with(NOBODY));
            }
        }
    }
    (lifted, alien)
}

/// A rule nobody wants: what it stands in for differs from anything that could be there instead.
pub(crate) fn stranger() -> Rule {
    Body::empty().with(NOBODY)
}

/// A rule without its id.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    matches: Vec<Match>,
    effect: Effect,
}

impl Body {
    const fn empty() -> Self {
        let effect = Effect { count: Count::No, log: None, outcome: Outcome::Continue };
        Self { matches: Vec::new(), effect }
    }

    fn with(self, id: RuleId) -> Rule {
        Rule { id, matches: self.matches, effect: self.effect }
    }

    /// The neutral rule of which this is the first kernel rule, the other being next, and what follows it.
    fn joined<'a>(&self, id: RuleId, next: &'a [KernelRule]) -> Option<(Rule, &'a [KernelRule])> {
        let (second, after) = next.split_first()?;
        let (comment, other) = lift_one(second).ok()?;
        let mine = &self.effect;
        let fits = comment == Some(Comment { id, part: Part::Last })
            && self.matches == other.matches
            && (mine.log.is_some() && mine.outcome == Outcome::Continue)
            && (other.effect.log.is_none() && other.effect.count == Count::No)
            && other.effect.outcome != Outcome::Continue;
        let effect = Effect { outcome: other.effect.outcome, ..mine.clone() };
        fits.then_some((Rule { id, matches: other.matches, effect }, after))
    }
}

fn lift_one(rule: &KernelRule) -> Result<(Option<Comment>, Body), Unread> {
    let exprs = rule.exprs.as_deref().map_err(Unread::clone)?;
    let body = Lifting { rest: exprs, family: None }.body()?;
    Ok((rule.comment, body))
}

/// What one run of expressions says.
enum Step {
    Question(Match),
    Count,
    Log(Log),
    Outcome(Outcome),
}

struct Lifting<'a> {
    rest: &'a [Expr],
    family: Option<Family>,
}

impl Lifting<'_> {
    fn body(mut self) -> Result<Body, Unread> {
        let mut body = Body::empty();
        // Each may come once, in this order, after all questions.
        let (mut counted, mut logged, mut ended) = (false, false, false);
        while !self.rest.is_empty() {
            let too_late = match self.step()? {
                Step::Question(question) => {
                    body.matches.push(question);
                    counted || logged || ended
                }
                Step::Count => {
                    body.effect.count = Count::Yes;
                    std::mem::replace(&mut counted, true) || logged || ended
                }
                Step::Log(log) => {
                    body.effect.log = Some(log);
                    std::mem::replace(&mut logged, true) || ended
                }
                Step::Outcome(outcome) => {
                    body.effect.outcome = outcome;
                    std::mem::replace(&mut ended, true)
                }
            };
            if too_late {
                return Err(Unread::foreign("expressions in an order that is not ours"));
            }
        }
        Ok(body)
    }

    fn step(&mut self) -> Result<Step, Unread> {
        if let Some(family) = self.family_question() {
            return Ok(Step::Question(Match::Family(family)));
        }
        if let Some(question) = self.question() {
            return Ok(Step::Question(question));
        }
        if let Some(lookup) = self.key() {
            return self.use_of(lookup);
        }
        match self.rest {
            [Expr::Counter(_), rest @ ..] => {
                self.rest = rest;
                Ok(Step::Count)
            }
            [Expr::Immediate(Immediate(verdict)), rest @ ..] => {
                self.rest = rest;
                Ok(Step::Outcome(Outcome::Verdict(verdict.clone())))
            }
            [Expr::Reject(Reject(answer)), rest @ ..] => {
                self.rest = rest;
                Ok(Step::Outcome(Outcome::Verdict(Verdict::Reject(*answer))))
            }
            [other, ..] => Err(Unread::Foreign(format!("{other:?} where we would not put it"))),
            [] => Err(Unread::foreign("a rule that ends in the middle")),
        }
    }

    /// What is done with the key that was just loaded.
    fn use_of(&mut self, key: Lookup) -> Result<Step, Unread> {
        match self.rest {
            [Expr::Lookup(lookup), rest @ ..] => {
                self.rest = rest;
                Ok(match lookup.yields {
                    Yields::Membership => Step::Question(Match::In(key, lookup.set.clone())),
                    Yields::Verdict => Step::Outcome(Outcome::Map(key, lookup.set.clone())),
                })
            }
            [Expr::Dynset(Dynset { set, limit }), Expr::Log(log), rest @ ..] => {
                self.rest = rest;
                let rate = u32::try_from(limit.rate).map_err(Unread::foreign)?;
                let meter = Meter { set: SetName::clone(set), key, rate, burst: limit.burst };
                let (group, snaplen) = (log.group, log.snaplen);
                Ok(Step::Log(Log { group, prefix: log.prefix.clone(), snaplen, meter }))
            }
            _ => Err(Unread::foreign("a key that is loaded and not used")),
        }
    }

    /// A question for the family that stands for itself. One that only prepares the next question is noted.
    fn family_question(&mut self) -> Option<Family> {
        let [Expr::Meta(Meta { key: MetaKey::Family, into: Register::FIRST }), Expr::Cmp(cmp), rest @ ..] =
            self.rest
        else {
            return None;
        };
        let family = question::family(cmp)?;
        self.rest = rest;
        let prepares = self.family != Some(family)
            && match rest {
                [Expr::Payload(Payload { header: Header::Network, .. }), ..] => true,
                _ => family == Family::V6 && question::icmpv6(rest).is_some(),
            };
        self.family = prepares.then_some(family);
        (!prepares).then_some(family)
    }

    /// The loads of a lookup key, whatever the lookup is for.
    fn key(&mut self) -> Option<Lookup> {
        let (lookup, rest) = match self.rest {
            [Expr::Meta(Meta { key: MetaKey::InputLink, into: Register::FIRST }), rest @ ..] => {
                (Lookup::InputLink, rest)
            }
            [Expr::Meta(Meta { key: MetaKey::OutputLink, into: Register::FIRST }), rest @ ..] => {
                (Lookup::OutputLink, rest)
            }
            // The second form is nft's.
            [
                Expr::Meta(Meta { key: MetaKey::Protocol, into: Register::FIRST }),
                Expr::Payload(port),
                rest @ ..,
            ]
            | [
                Expr::Meta(Meta { key: MetaKey::Protocol, into: Register::FIRST }),
                Expr::Byteorder(_),
                Expr::Payload(port),
                rest @ ..,
            ] if *port == (Payload { into: Register::behind(4), ..DESTINATION_PORT }) => {
                (Lookup::Service, rest)
            }
            [Expr::Payload(first), rest @ ..] => {
                let family = self.family?;
                let side = address(first, family, Register::FIRST)?;
                more_of_key(family, side, rest)
            }
            _ => return None,
        };
        self.rest = rest;
        Some(lookup)
    }
}

/// After an address in the first register, there may be another, or a protocol and a port.
fn more_of_key(family: Family, side: Side, rest: &[Expr]) -> (Lookup, &[Expr]) {
    let length = register_width(family);
    match rest {
        [Expr::Payload(second), rest @ ..]
            if side == Side::Source
                && address(second, family, Register::behind(length)) == Some(Side::Destination) =>
        {
            (Lookup::Pair(family), rest)
        }
        [Expr::Meta(Meta { key: MetaKey::Protocol, into }), Expr::Payload(port), rest @ ..]
            if *into == Register::behind(length)
                && *port == (Payload { into: Register::behind(length + 4), ..DESTINATION_PORT }) =>
        {
            (Lookup::Endpoint(family, side), rest)
        }
        rest => (Lookup::Address(family, side), rest),
    }
}

/// Which address a load of a whole address means.
fn address(payload: &Payload, family: Family, into: Register) -> Option<Side> {
    if payload.length != register_width(family) || payload.into != into {
        return None;
    }
    question::side(payload, family)
}

#[cfg(test)]
mod tests;

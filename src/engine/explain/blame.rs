//! Why a packet was dropped, from the name of the chain that its record carries.
//!
//! The same words as an explanation, the other way round: the verdict has been given, what is looked for is who is
//! behind it, and what would have allowed it.
use std::net::IpAddr;

use podwall_ruleset::packet::Transport;
use podwall_ruleset::{Counter, Family};

use crate::compile::names;
use crate::engine::Engine;
use crate::model::ban::{Mode, Way};
use crate::model::{Action, BanId, Direction, Named, Pod, PolicyId, Tier};
use crate::plan;
use crate::resolve::Governing;

use super::{Decided, Nearest, describe_rule, nearest, words};

/// Which kind of chain ends in a drop and a record of it, as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tail {
    /// The policies of a pod, one way.
    Policies(Direction),
    /// A ban.
    Ban,
    /// A guarded door of a Service.
    Door,
    /// An address without a verdict.
    Pending,
    /// A forged source.
    Forged,
    /// An address that is no pod's own.
    Nameless,
    /// A pod whose chain the kernel refused.
    Refused,
    /// What fits no flow. It is only counted.
    Strays,
}

impl Tail {
    /// Of a chain's name; `None`: no such chain drops.
    pub fn of(chain: &str) -> Option<Self> {
        let fixed = [
            (names::pending(), Self::Pending),
            (names::forged(), Self::Forged),
            (names::nameless(), Self::Nameless),
            (names::refused(), Self::Refused),
            (names::strays(), Self::Strays),
            (names::revived(Way::In), Self::Ban),
            (names::revived(Way::Out), Self::Ban),
        ];
        if let Some((_, tail)) = fixed.into_iter().find(|(name, _)| name.as_str() == chain) {
            return Some(tail);
        }
        let (prefix, _) = chain.split_once('_')?;
        match prefix.strip_suffix(['4', '6'])? {
            "i" | "ai" | "asi" => Some(Self::Policies(Direction::Ingress)),
            "e" | "ae" | "ase" => Some(Self::Policies(Direction::Egress)),
            "b" => Some(Self::Ban),
            "d" => Some(Self::Door),
            _ => None,
        }
    }

    /// Which way the packet was going for the pod whose verdict it is.
    pub const fn direction(self) -> Option<Direction> {
        match self {
            Self::Policies(direction) => Some(direction),
            Self::Forged => Some(Direction::Egress),
            Self::Ban | Self::Door | Self::Pending | Self::Nameless | Self::Refused | Self::Strays => None,
        }
    }

    /// One word, for labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policies(_) => "policy",
            Self::Ban => "ban",
            Self::Door => "exposure",
            Self::Pending => "pending",
            Self::Forged => "forged",
            Self::Nameless => "nameless",
            Self::Refused => "refused",
            Self::Strays => "stray",
        }
    }
}

/// Who is behind a drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blame {
    /// Policies that govern one end.
    Policies {
        /// Whether they refused it, or would have.
        mode: Mode,
        /// Seen from that end.
        direction: Direction,
        /// All of them, in the order they are asked; empty when they went before anybody could ask.
        policies: Vec<PolicyId>,
        /// The rule that denies, if one does; else nothing allows.
        decided: Option<Decided>,
        /// The rule that came closest to allowing it.
        nearest: Option<Nearest>,
    },
    /// Bans of one of the ends.
    Bans(Mode, Vec<BanId>),
    /// Services whose door is guarded.
    Doors(Mode, Vec<Named>),
    /// Something that is always there.
    Fixed(Tail),
}

impl Blame {
    /// Did the packet pass, and is only told of?
    pub const fn is_audit(&self) -> bool {
        match self {
            Self::Policies { mode, .. } | Self::Bans(mode, _) | Self::Doors(mode, _) => {
                matches!(mode, Mode::Audit)
            }
            Self::Fixed(_) => false,
        }
    }
}

/// A dropped packet, with the pods behind its addresses when it was dropped.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The chain that dropped it.
    pub chain: &'a str,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// What it carried.
    pub transport: Transport,
    /// The pod at the source.
    pub from: Option<&'a Pod>,
    /// The pod at the destination.
    pub to: Option<&'a Pod>,
}

/// A rule's counter, if what it counts was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// What kind of chain it stands in.
    pub tail: Tail,
    /// The policies that isolate, where it is theirs.
    pub policies: Vec<PolicyId>,
    /// Whether it counts what passes.
    pub mode: Mode,
}

impl Engine {
    /// Who dropped it; `None`: no chain of ours drops under that name.
    pub fn blame(&self, asked: &Asked<'_>) -> Option<Blame> {
        Some(match Tail::of(asked.chain)? {
            Tail::Policies(direction) => self.blame_policies(asked, direction),
            Tail::Ban => {
                let known = self.banned_at(asked.chain, asked.source, asked.destination);
                known.map_or(Blame::Bans(Mode::Enforce, Vec::new()), |(mode, bans)| Blame::Bans(mode, bans))
            }
            Tail::Door => {
                let at = (asked.transport.protocol(), asked.transport.port().unwrap_or_default());
                let known = self.guarded_at(asked.chain, asked.destination, at);
                known.map_or(Blame::Doors(Mode::Enforce, Vec::new()), |(mode, doors)| {
                    Blame::Doors(mode, doors)
                })
            }
            fixed @ (Tail::Pending | Tail::Forged | Tail::Nameless | Tail::Refused | Tail::Strays) => {
                Blame::Fixed(fixed)
            }
        })
    }

    /// What a rule's counter counts, if that is drops.
    pub fn counted(&self, counter: &Counter) -> Option<Counted> {
        let chain = counter.chain.as_str();
        let tail = Tail::of(chain)?;
        let own = |purposes: &[&str]| {
            let all = purposes
                .iter()
                .flat_map(|purpose| Family::BOTH.map(|family| format!("{purpose}{}", family.digit())));
            all.chain(purposes.iter().map(|&purpose| purpose.to_owned()))
                .any(|purpose| names::own_rule(&counter.chain, &purpose) == counter.rule)
        };
        let audited = own(&["audited"]);
        let drops = match tail {
            // All that is counted there is dropped.
            Tail::Strays => true,
            Tail::Ban if [Way::In, Way::Out].iter().any(|way| names::revived(*way) == counter.chain) => true,
            Tail::Policies(_)
            | Tail::Ban
            | Tail::Door
            | Tail::Pending
            | Tail::Forged
            | Tail::Nameless
            | Tail::Refused => own(&["deny", "reset", "prohibited"]),
        };
        let policies = self.chain_origin(chain).map(|origin| origin.policies.clone()).unwrap_or_default();
        let mode = if audited { Mode::Audit } else { Mode::Enforce };
        (drops || audited).then_some(Counted { tail, policies, mode })
    }

    fn blame_policies(&self, asked: &Asked<'_>, direction: Direction) -> Blame {
        let (subject, peer) = match direction {
            Direction::Ingress => (asked.to, nearest::Asked::of(asked.from, asked.source, asked.transport)),
            Direction::Egress => {
                (asked.from, nearest::Asked::of(asked.to, asked.destination, asked.transport))
            }
        };
        let origin = self.chain_origin(asked.chain);
        let governing = match origin {
            Some(origin) => self.governing(&origin.policies),
            None => subject
                .and_then(|pod| plan::governed(self.cluster(), pod, direction))
                .map(|(governing, _)| governing)
                .unwrap_or_default(),
        };
        // Those that went meanwhile are named all the same.
        let policies = match origin {
            Some(origin) => origin.policies.clone(),
            None => governing.policies().map(|policy| policy.id.clone()).collect(),
        };
        let decided = subject.and_then(|subject| self.denied(&governing, direction, subject, peer));
        let nearest = subject
            .filter(|_| decided.is_none())
            .and_then(|subject| nearest::nearest(self.cluster(), &governing, direction, subject, peer));
        // The names of those that only audit begin so (`names::audit_prefix`).
        let unknown = if asked.chain.starts_with('a') { Mode::Audit } else { Mode::Enforce };
        let mode = origin.map_or(unknown, |origin| origin.mode);
        Blame::Policies { mode, direction, policies, decided, nearest }
    }

    fn governing(&self, policies: &[PolicyId]) -> Governing {
        let mut governing = Governing::default();
        for policy in policies.iter().filter_map(|id| self.cluster().policy(id)) {
            let tier = match policy.id.tier {
                Tier::Admin => &mut governing.admin,
                Tier::Namespace => &mut governing.namespace,
                Tier::Baseline => &mut governing.baseline,
            };
            tier.push(policy.clone());
        }
        governing
    }

    /// The first rule of a tier with an order that speaks of it, if it denies (C11).
    fn denied(
        &self,
        governing: &Governing,
        direction: Direction,
        subject: &Pod,
        peer: nearest::Asked<'_>,
    ) -> Option<Decided> {
        let first = |tier: &[std::sync::Arc<crate::model::Policy>]| {
            tier.iter().find_map(|policy| {
                let mut rules = policy.rules(direction).unwrap_or_default().iter();
                let rule =
                    rules.find(|rule| nearest::fits(self.cluster(), rule, direction, subject, peer))?;
                let decided = Decided {
                    policy: policy.id.to_string(),
                    rule: words::place(policy, direction, rule.index),
                    text: describe_rule(rule, direction),
                };
                Some((rule.action, decided))
            })
        };
        let admin = first(&governing.admin).filter(|(action, _)| *action != Action::Pass);
        let found = match admin {
            Some(found) => Some(found),
            None if governing.namespace.is_empty() => first(&governing.baseline),
            None => None,
        };
        found.filter(|(action, _)| *action == Action::Deny).map(|(_, decided)| decided)
    }
}

#[cfg(test)]
mod tests;

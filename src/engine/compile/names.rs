//! Every fixed name of the layout, in one place. Their first letters carry meaning: see `Growth::of`.
use podwall_ruleset::{ChainName, Digest, Family, Rule, RuleId, SetName, Verdict};

use crate::model::Direction;
use crate::model::ban::Way;

/// NFLOG and nft(8) both show it; leads from a drop record back to us.
pub const LOG_PREFIX: &str = "podwall";

/// A fixed chain name. They are literals of this file; the test below proves each of them legal.
fn fixed_chain(name: &str) -> ChainName {
    ChainName::new(name).unwrap_or_else(|_| ChainName::of_content("bad", Digest::of([name])))
}

fn fixed_set(name: &str) -> SetName {
    SetName::new(name).unwrap_or_else(|_| SetName::of_content("bad", Digest::of([name])))
}

macro_rules! chains {
    ($($(#[$doc:meta])* $function:ident = $name:literal;)*) => {
        $($(#[$doc])*
        pub fn $function() -> ChainName {
            fixed_chain($name)
        })*

        #[cfg(test)]
        const CHAINS: &[&str] = &[$($name),*];
    };
}

chains! {
    /// Base chain of everything that passes through the node.
    forward = "forward";
    /// Base chain of everything that ends on the node.
    input = "input";
    /// Judges established flows again while some are being cut; else empty.
    recheck = "recheck";
    /// What IPv6 is asked beside, of what passes through the node.
    forward_v6 = "forwardsix";
    /// What IPv6 is asked beside, of what ends on the node.
    input_v6 = "inputsix";
    /// What passes of ICMPv6 unjudged.
    icmp_v6 = "icmpsix";
    /// Both directions, for `recheck`.
    judge = "judge";
    /// Refuses forged sources.
    guard = "guard";
    /// By source address to the policies of the sender.
    egress = "egress";
    /// By destination address to the policies of the receiver.
    ingress = "ingress";
    /// Packets that fit no flow, for isolated pods.
    strays = "strays";
    /// Drop: an address of this node no verdict is known for.
    pending = "pending";
    /// Drop: a source the interface does not own.
    forged = "forged";
    /// What comes over a bridge of isolated pods and is to or from nobody by name.
    shared = "shared";
    /// Drop: an address that is no pod's own.
    nameless = "nameless";
    /// Base chain of everything that arrives, before any destination NAT; only while something is asked there.
    arriving = "arriving";
    /// Base chain of what the node itself sends; only while something is asked there.
    leaving = "leaving";
    /// Bans by source address.
    arrivals = "arrivals";
    /// Bans by destination address.
    departures = "departures";
    /// What looks like the revival, by who was banned, of a flow that a ban of what goes out cut.
    returning = "returning";
    /// What looks like the revival, by us, of a flow that a ban of what comes in cut.
    resumed = "resumed";
    /// Doors of Services, by who may come in.
    exposed = "exposed";
    /// Drop: whoever's own chain the kernel refused.
    refused = "refused";
}

/// Addresses of one family kept on one page.
macro_rules! family_sets {
    ($($(#[$doc:meta])* $function:ident = $v4:literal, $v6:literal;)*) => {
        $($(#[$doc])*
        pub fn $function(family: Family) -> SetName {
            match family {
                Family::V4 => fixed_set($v4),
                Family::V6 => fixed_set($v6),
            }
        })*

        #[cfg(test)]
        const SETS: &[&str] = &[$($v4, $v6),*];
    };
}

family_sets! {
    /// Local pod . itself.
    hairpin = "self4", "self6";
    /// Ranges in which an address without a verdict is dropped.
    local = "c_local4", "c_local6";
    /// Pods whose established flows are judged again just now.
    recheck_set = "n_recheck4", "n_recheck6";
    /// Addresses of nodes; only while a door is guarded.
    nodes = "nodes4", "nodes6";
    /// Log rate of each source.
    meter = "n_meter4", "n_meter6";
}

/// Interfaces pods sit on.
pub fn pod_links() -> SetName {
    fixed_set("c_podlinks")
}

/// Interfaces of isolated pods.
pub fn guarded_links() -> SetName {
    fixed_set("c_links")
}

/// Bridges that carry an isolated pod.
pub fn shared_links() -> SetName {
    fixed_set("c_shared")
}

/// The chain that asks for bans.
pub fn bans(way: Way) -> ChainName {
    match way {
        Way::In => arrivals(),
        Way::Out => departures(),
    }
}

/// The chain that asks what comes that way whether it revives a flow that a ban of the other way cut.
pub fn revived(way: Way) -> ChainName {
    match way {
        Way::In => returning(),
        Way::Out => resumed(),
    }
}

/// The verdict map of a direction, family and size.
pub fn verdicts(direction: Direction, family: Family, size: u32) -> SetName {
    let prefix = match direction {
        Direction::Ingress => "in",
        Direction::Egress => "eg",
    };
    fixed_set(&format!("{prefix}{}_{size}", family.digit()))
}

/// How the chains begin that record what the policies of a direction would refuse; the family's digit follows. The
/// stager knows them ([`ChainName::only_audits`]).
pub const fn audit_prefix(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ai",
        Direction::Egress => "ae",
    }
}

/// The same, of those that drop packets of no connection first.
pub const fn strict_audit_prefix(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "asi",
        Direction::Egress => "ase",
    }
}

/// Does the chain only record what policies would refuse?
pub fn is_audit(chain: &ChainName) -> bool {
    let prefix = chain.as_str().split_once('_').map(|(prefix, _)| prefix);
    chain.only_audits() || matches!(prefix, Some("asi4" | "asi6" | "ase4" | "ase6"))
}

/// Is it a chain of a ban or of a guarded door? All else does without it, should the kernel refuse it: such bans are not
/// asked, such doors are shut.
pub fn is_optional(chain: &ChainName) -> bool {
    let prefix = chain.as_str().split_once('_').map(|(prefix, _)| prefix);
    matches!(prefix, Some("b4" | "b6" | "w4" | "w6" | "d4" | "d6"))
}

/// The rule that drops packets of no connection before anything else.
pub fn strays_first(at: &ChainName) -> Rule {
    Rule { id: own_rule(at, "strays"), matches: Vec::new(), effect: Verdict::Jump(strays()).plain() }
}

/// The id of a rule that belongs to podwall itself: chain and what it is for.
pub fn own_rule(chain: &ChainName, purpose: &str) -> RuleId {
    RuleId(Digest::of(["podwall", chain.as_str(), purpose]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_that_only_audit_are_told_by_their_names() {
        for direction in Direction::BOTH {
            for digit in ['4', '6'] {
                let named =
                    |prefix: &str| ChainName::of_content(&format!("{prefix}{digit}"), Digest::of([""]));
                let (audit, strict) = (named(audit_prefix(direction)), named(strict_audit_prefix(direction)));
                assert!(is_audit(&audit) && audit.only_audits(), "{audit}");
                assert!(is_audit(&strict) && !strict.only_audits(), "{strict}");
                assert!(!is_audit(&named("i")) && !is_audit(&named("e")));
            }
        }
        assert!(!CHAINS.iter().any(|name| is_audit(&fixed_chain(name))));
    }

    #[test]
    fn every_fixed_name_is_legal() {
        for name in CHAINS {
            assert!(ChainName::new(name).is_ok(), "{name}");
        }
        for name in SETS.iter().chain(&["c_podlinks", "c_links", "c_shared", "in4_1024", "eg6_65536"]) {
            assert!(SetName::new(name).is_ok(), "{name}");
        }
    }
}

//! Reading our table back: chains, rules, sets and elements of `inet podwall`, and nothing else.
//!
//! A dump is cut into parts, and what it reads may change between two of them. The kernel flags that for chains
//! and rules, never for elements (200 of 200 tries), so whoever does not own the table compares the generation
//! before and after as well ([`crate::backend`]).
use std::collections::BTreeMap;
use std::sync::Arc;

use podwall_netlink::{
    Attributes, Consistency, Errno, Error, Flags, Malformed, Message, Socket, Subsystem, Writer,
};
use podwall_ruleset::{Chain, ChainName, Counter, Hit, Ruleset};

use crate::data::Unread;
use crate::lift::{lift, stranger};
use crate::object::rule::KernelRule;
use crate::object::table::Table;
use crate::object::{TABLE, chain, header, rule, table};
use crate::uapi::{
    NFT_MSG_GETCHAIN, NFT_MSG_GETGEN, NFT_MSG_GETRULE, NFT_MSG_GETTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWGEN,
    NFT_MSG_NEWRULE, NFT_MSG_NEWTABLE, NFTA_ANY_TABLE, NFTA_GEN_ID,
};

mod contents;

/// What stands, and what of it cannot have come from us.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) ruleset: Ruleset,
    pub(crate) alien: Vec<String>,
}

/// The generation of the whole network namespace's rules.
pub(crate) fn generation(socket: &mut Socket) -> Result<u32, Error> {
    let doing = "reading the generation";
    let mut found = None;
    socket.request(
        doing,
        header(NFT_MSG_GETGEN, Flags::NONE),
        |_| {},
        |message| {
            if let Some(attributes) = of_kind(message, NFT_MSG_NEWGEN)? {
                for attribute in attributes {
                    let attribute = attribute?;
                    if attribute.kind == NFTA_GEN_ID {
                        found = Some(attribute.be32()?);
                    }
                }
            }
            Ok(())
        },
    )?;
    found.ok_or(Error::Malformed { doing, source: Malformed })
}

/// Our table, if there is one.
pub(crate) fn table(socket: &mut Socket) -> Result<Option<Table>, Error> {
    let mut found = None;
    let header = header(NFT_MSG_GETTABLE, Flags::NONE);
    let asked = socket.request("looking for the table", header, table::write_name, |message| {
        if let Some(attributes) = of_kind(message, NFT_MSG_NEWTABLE)? {
            found = Some(table::read(attributes)?);
        }
        Ok(())
    });
    match asked {
        Ok(()) => Ok(found),
        Err(error) if error.refusal().is_some_and(|refusal| refusal.errno == Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Everything in our table; `None` when something changed meanwhile.
pub(crate) fn read(socket: &mut Socket) -> Result<Option<Reading>, Error> {
    let mut reading = Reading::default();
    let Some(chains) = chains(socket, &mut reading.alien)? else { return Ok(None) };
    let Some(mut rules) = rules(socket)? else { return Ok(None) };
    for (chain, foreign) in chains {
        let (mut lifted, mut alien) = lift(&rules.remove(chain.name.as_str()).unwrap_or_default());
        if let Some(reason) = foreign {
            alien.push(reason.to_string());
            lifted.push(stranger());
        }
        reading.alien.extend(alien.into_iter().map(|what| format!("chain {}: {what}", chain.name)));
        reading.ruleset.chains.insert(chain.name, Arc::new(Chain { base: chain.base, rules: lifted }));
    }
    let Some(sets) = contents::sets(socket, &mut reading.alien)? else { return Ok(None) };
    reading.ruleset.sets = sets;
    Ok(Some(reading))
}

/// Counters of all rules with an id of ours; `None` when something changed meanwhile.
pub(crate) fn counters(socket: &mut Socket) -> Result<Option<Vec<Counter>>, Error> {
    let Some(rules) = rules(socket)? else { return Ok(None) };
    let counter = |rule: &KernelRule| {
        let (comment, counter) = (rule.comment?, rule.counter()?);
        let chain = ChainName::new(&rule.chain).ok()?;
        Some(Counter { chain, rule: comment.id, packets: counter.packets, bytes: counter.bytes })
    };
    Ok(Some(rules.values().flatten().filter_map(counter).collect()))
}

/// Packets that met elements of bans; `None` when something changed meanwhile.
pub(crate) fn hits(socket: &mut Socket) -> Result<Option<Vec<Hit>>, Error> {
    contents::hits(socket)
}

type Chains = Vec<(chain::Chain, Option<Unread>)>;

fn chains(socket: &mut Socket, alien: &mut Vec<String>) -> Result<Option<Chains>, Error> {
    let mut found = Vec::new();
    let doing = "reading chains";
    // Chains cannot be asked for by table: those of other inet tables come along and are passed over.
    let whole = ours(
        socket,
        (doing, NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN),
        |_| {},
        |attributes| {
            match chain::read(attributes) {
                Ok(chain) => found.push(chain),
                Err(reason) => alien.push(format!("a chain: {}", foreign(reason)?)),
            }
            Ok(())
        },
    )?;
    Ok(whole.then_some(found))
}

fn rules(socket: &mut Socket) -> Result<Option<BTreeMap<String, Vec<KernelRule>>>, Error> {
    let mut found = BTreeMap::<String, Vec<KernelRule>>::new();
    let what = ("reading rules", NFT_MSG_GETRULE, NFT_MSG_NEWRULE);
    let whole = ours(
        socket,
        what,
        |w| w.put_text(NFTA_ANY_TABLE, TABLE),
        |attributes| {
            let rule = rule::read(attributes)?;
            match found.get_mut(&rule.chain) {
                Some(rules) => rules.push(rule),
                None => drop(found.insert(rule.chain.clone(), vec![rule])),
            }
            Ok(())
        },
    )?;
    Ok(whole.then_some(found))
}

/// Dumps objects of our table; false when something changed meanwhile.
pub(crate) fn ours(
    socket: &mut Socket,
    (doing, ask, answer): (&'static str, u8, u8),
    fill: impl FnOnce(&mut Writer),
    mut visit: impl FnMut(Attributes<'_>) -> Result<(), Malformed>,
) -> Result<bool, Error> {
    let dumped =
        socket.dump(doing, header(ask, Flags::NONE), fill, |message| match of_kind(message, answer)? {
            Some(attributes) if names_our_table(attributes)? => visit(attributes),
            _ => Ok(()),
        })?;
    Ok(dumped == Consistency::Whole)
}

fn of_kind<'a>(message: &Message<'a>, kind: u8) -> Result<Option<Attributes<'a>>, Malformed> {
    if message.kind.within(Subsystem::Nftables) != Some(kind) {
        return Ok(None);
    }
    message.netfilter().map(|(_, attributes)| Some(attributes))
}

/// Is this object in our table? The caller knows the family to be inet.
pub(crate) fn names_our_table(attributes: Attributes<'_>) -> Result<bool, Malformed> {
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == NFTA_ANY_TABLE {
            return Ok(attribute.word() == TABLE.as_bytes());
        }
    }
    Ok(false)
}

/// Foreign things are put into words; malformed ones end the reading.
fn foreign(unread: Unread) -> Result<String, Malformed> {
    match unread {
        Unread::Foreign(what) => Ok(what),
        Unread::Malformed(malformed) => Err(malformed),
    }
}

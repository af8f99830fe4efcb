//! Foreign objects in our table whose names no ruleset can express: found, and taken out.
//!
//! They can only drop, or be in the way: no rule of ours leads to them, and an accept in a foreign base chain does
//! not undo a drop in ours. Anonymous sets go with their rules.
use std::fmt;

use podwall_netlink::{Attribute, Attributes, Batch, Error, Flags, Malformed, Socket};
use podwall_ruleset::{ChainName, SetName};

use crate::object::{TABLE, header};
use crate::observe::ours;
use crate::uapi::{
    NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_GETCHAIN, NFT_MSG_GETSET, NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWSET, NFT_SET_ANONYMOUS, NFTA_ANY_TABLE, NFTA_CHAIN_NAME, NFTA_RULE_CHAIN, NFTA_SET_FLAGS,
    NFTA_SET_NAME,
};

/// What is to go, by the names others gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Strangers {
    chains: Vec<Vec<u8>>,
    sets: Vec<Vec<u8>>,
}

/// Reads the names; `None` when something changed meanwhile.
pub(crate) fn strangers(socket: &mut Socket) -> Result<Option<Strangers>, Error> {
    let mut found = Strangers::default();
    let chains = ours(
        socket,
        ("reading chains", NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN),
        |_| {},
        |attributes| {
            let name = name(attributes, NFTA_CHAIN_NAME)?;
            if ChainName::new(&name.text()).is_err() {
                found.chains.push(name.word().to_owned());
            }
            Ok(())
        },
    )?;
    let sets = ours(
        socket,
        ("reading sets", NFT_MSG_GETSET, NFT_MSG_NEWSET),
        |writer| writer.put_text(NFTA_ANY_TABLE, TABLE),
        |attributes| {
            let name = name(attributes, NFTA_SET_NAME)?;
            let named = flags(attributes)? & NFT_SET_ANONYMOUS == 0;
            if named && SetName::new(&name.text()).is_err() {
                found.sets.push(name.word().to_owned());
            }
            Ok(())
        },
    )?;
    Ok((chains && sets).then_some(found))
}

impl Strangers {
    pub(crate) const fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty()
    }

    /// Rules first, since they hold on to sets and chains; then sets, which may hold on to chains.
    pub(crate) fn write(&self, batch: &mut Batch) {
        let deletions = self.chains.iter().map(|name| (NFT_MSG_DELRULE, NFTA_RULE_CHAIN, name));
        let deletions = deletions.chain(self.sets.iter().map(|name| (NFT_MSG_DELSET, NFTA_SET_NAME, name)));
        let deletions =
            deletions.chain(self.chains.iter().map(|name| (NFT_MSG_DELCHAIN, NFTA_CHAIN_NAME, name)));
        for (message, attribute, name) in deletions {
            batch.message(header(message, Flags::NONE), |writer| {
                writer.put_text(NFTA_ANY_TABLE, TABLE);
                writer.put(attribute, &[name.as_slice(), b"\0"].concat());
            });
        }
    }
}

impl fmt::Display for Strangers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |kind: &str, name: &[u8]| format!("{kind} {}", name.escape_ascii());
        let chains = self.chains.iter().map(|name| word("chain", name));
        let words: Vec<String> = chains.chain(self.sets.iter().map(|name| word("set", name))).collect();
        f.write_str(&words.join(", "))
    }
}

fn name(attributes: Attributes<'_>, kind: u16) -> Result<Attribute<'_>, Malformed> {
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == kind {
            return Ok(attribute);
        }
    }
    Err(Malformed)
}

fn flags(attributes: Attributes<'_>) -> Result<u32, Malformed> {
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == NFTA_SET_FLAGS {
            return attribute.be32();
        }
    }
    Ok(0)
}

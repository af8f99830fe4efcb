//! Foreign objects in our table whose names no ruleset can express: found, and taken out.
//!
//! They can only drop, or be in the way: no rule of ours leads to them, and an accept in a foreign base chain does
//! not undo a drop in ours. Anonymous sets go with their rules.
use std::fmt;

use podwall_netlink::{Attributes, Batch, Error, Flags, Malformed, Socket};
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
    chains: Vec<String>,
    sets: Vec<String>,
}

/// Reads the names; `None` when something changed meanwhile.
pub(crate) fn strangers(socket: &mut Socket) -> Result<Option<Strangers>, Error> {
    let mut found = Strangers::default();
    let chains = ours(
        socket,
        ("reading chains", NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN),
        |_| {},
        |attributes| {
            let name = text(attributes, NFTA_CHAIN_NAME)?;
            found.chains.extend(Some(name).filter(|name| ChainName::new(name).is_err()));
            Ok(())
        },
    )?;
    let sets = ours(
        socket,
        ("reading sets", NFT_MSG_GETSET, NFT_MSG_NEWSET),
        |writer| writer.put_text(NFTA_ANY_TABLE, TABLE),
        |attributes| {
            let name = text(attributes, NFTA_SET_NAME)?;
            let named = flags(attributes)? & NFT_SET_ANONYMOUS == 0;
            found.sets.extend(Some(name).filter(|name| named && SetName::new(name).is_err()));
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
                writer.put_text(attribute, name);
            });
        }
    }
}

impl fmt::Display for Strangers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chains = self.chains.iter().map(|name| format!("chain {name}"));
        let words: Vec<String> = chains.chain(self.sets.iter().map(|name| format!("set {name}"))).collect();
        f.write_str(&words.join(", "))
    }
}

fn text(attributes: Attributes<'_>, kind: u16) -> Result<String, Malformed> {
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == kind {
            return attribute.text().map(str::to_owned);
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

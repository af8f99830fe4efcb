//! Chains (`enum nft_chain_attributes`).
use podwall_netlink::{Attribute, Attributes, Malformed, Writer};
use podwall_ruleset::{Base, ChainName, Hook};

use super::TABLE;
use crate::data::Unread;
use crate::uapi::{
    NF_ACCEPT, NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE,
    NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY,
};

/// The only type of chain we make.
const FILTER: &str = "filter";

/// A chain read back, without its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: ChainName,
    pub(crate) base: Option<Base>,
}

/// What makes a chain. A base chain's policy is accept: what we do not judge is not ours to drop.
pub(crate) fn write(name: &ChainName, base: Option<&Base>, writer: &mut Writer) {
    write_name(name, writer);
    if let Some(base) = base {
        writer.nest(NFTA_CHAIN_HOOK, |hook| {
            hook.put_be32(NFTA_HOOK_HOOKNUM, hook_number(base.hook));
            hook.put(NFTA_HOOK_PRIORITY, &base.priority.to_be_bytes());
        });
        writer.put(NFTA_CHAIN_POLICY, &NF_ACCEPT.to_be_bytes());
        writer.put_text(NFTA_CHAIN_TYPE, FILTER);
    }
}

/// What names a chain.
pub(crate) fn write_name(name: &ChainName, writer: &mut Writer) {
    writer.put_text(NFTA_CHAIN_TABLE, TABLE);
    writer.put_text(NFTA_CHAIN_NAME, name.as_str());
}

/// A chain read back, with the reason why it is not ours if it is not: it counts as a chain without hook then.
pub(crate) fn read(attributes: Attributes<'_>) -> Result<(Chain, Option<Unread>), Unread> {
    let (mut name, mut base, mut foreign) = (None, None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_CHAIN_NAME => name = Some(attribute.text()),
            NFTA_CHAIN_HOOK => match read_base(&attribute) {
                Ok(read) => base = Some(read),
                Err(reason) => foreign = Some(reason),
            },
            NFTA_CHAIN_POLICY if attribute.array().map(i32::from_be_bytes)? != NF_ACCEPT => {
                foreign = Some(Unread::foreign("a policy other than accept"));
            }
            NFTA_CHAIN_TYPE if attribute.text() != FILTER => {
                foreign = Some(Unread::Foreign(format!("chain type {}", attribute.text())));
            }
            _ => {}
        }
    }
    let name = ChainName::new(&name.ok_or(Malformed)?).map_err(Unread::foreign)?;
    let base = base.filter(|_| foreign.is_none());
    Ok((Chain { name, base }, foreign))
}

fn read_base(hook: &Attribute<'_>) -> Result<Base, Unread> {
    let (mut number, mut priority) = (None, None);
    for attribute in hook.nested() {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_HOOK_HOOKNUM => number = Some(attribute.be32()?),
            NFTA_HOOK_PRIORITY => priority = Some(attribute.array().map(i32::from_be_bytes)?),
            _ => {}
        }
    }
    Ok(Base { hook: read_hook(number.ok_or(Malformed)?)?, priority: priority.ok_or(Malformed)? })
}

/// `enum nf_inet_hooks` (linux/netfilter.h).
const fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

fn read_hook(number: u32) -> Result<Hook, Unread> {
    match number {
        0 => Ok(Hook::Prerouting),
        1 => Ok(Hook::Input),
        2 => Ok(Hook::Forward),
        3 => Ok(Hook::Output),
        4 => Ok(Hook::Postrouting),
        other => Err(Unread::Foreign(format!("hook {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn a_base_chain_is_table_name_hook_policy_and_type() {
        let name = ChainName::new("forward").unwrap();
        let base = Base { hook: Hook::Forward, priority: -1 };
        #[rustfmt::skip]
        let bytes = [
            12, 0, 1, 0, b'p', b'o', b'd', b'w', b'a', b'l', b'l', 0,
            12, 0, 3, 0, b'f', b'o', b'r', b'w', b'a', b'r', b'd', 0,
            20, 0, 4, 0x80, 8, 0, 1, 0, 0, 0, 0, 2, 8, 0, 2, 0, 255, 255, 255, 255,
            8, 0, 5, 0, 0, 0, 0, 1,
            11, 0, 7, 0, b'f', b'i', b'l', b't', b'e', b'r', 0, 0,
        ];
        let attributes = golden::check(|writer| write(&name, Some(&base), writer), &bytes);
        assert_eq!(read(attributes), Ok((Chain { name, base: Some(base) }, None)));
    }

    #[test]
    fn every_hook_reads_back_as_written() {
        for hook in [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting] {
            assert_eq!(read_hook(hook_number(hook)), Ok(hook));
        }
        assert!(read_hook(5).is_err());
    }

    #[test]
    fn a_base_chain_that_drops_by_default_is_foreign() {
        let bytes = [6, 0, 3, 0, b'f', 0, 0, 0, 8, 0, 5, 0, 0, 0, 0, 0];
        let (chain, foreign) = read(Attributes::new(&bytes)).unwrap();
        assert_eq!(chain.base, None);
        assert_eq!(foreign, Some(Unread::foreign("a policy other than accept")));
    }
}

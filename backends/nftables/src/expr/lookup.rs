//! `lookup`: the key in the first registers against a set or a verdict map.
use podwall_netlink::{Attributes, Malformed, Writer};
use podwall_ruleset::SetName;

use super::Expression;
use crate::data::{Register, Unread};

const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_LOOKUP_FLAGS: u16 = 5;

/// What a hit gives. A miss ends the rule either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Yields {
    /// The rule goes on.
    Membership,
    /// The verdict of the element.
    Verdict,
}

/// `@set` or `vmap @set`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lookup {
    pub(crate) set: SetName,
    pub(crate) yields: Yields,
}

impl Expression for Lookup {
    const NAME: &'static str = "lookup";

    fn write(&self, writer: &mut Writer) {
        writer.put_text(NFTA_LOOKUP_SET, self.set.as_str());
        writer.put_be32(NFTA_LOOKUP_SREG, Register::FIRST.0);
        match self.yields {
            Yields::Membership => {}
            Yields::Verdict => writer.put_be32(NFTA_LOOKUP_DREG, Register::VERDICT.0),
        }
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let (mut set, mut yields) = (None, Yields::Membership);
        for attribute in attributes {
            let attribute = attribute?;
            let ours = match attribute.kind {
                NFTA_LOOKUP_SET => {
                    set = Some(SetName::new(&attribute.text()).map_err(Unread::foreign)?);
                    true
                }
                NFTA_LOOKUP_SREG => attribute.be32()? == Register::FIRST.0,
                NFTA_LOOKUP_DREG => {
                    yields = Yields::Verdict;
                    attribute.be32()? == Register::VERDICT.0
                }
                NFTA_LOOKUP_FLAGS => attribute.be32()? == 0,
                _ => true,
            };
            if !ours {
                return Err(Unread::foreign("lookup that is inverted or uses other registers"));
            }
        }
        Ok(Self { set: set.ok_or(Malformed)?, yields })
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    fn lookup(yields: Yields) -> Lookup {
        Lookup { set: SetName::new("s4").unwrap(), yields }
    }

    #[test]
    fn membership_is_set_and_register() {
        check(lookup(Yields::Membership), &[7, 0, 1, 0, b's', b'4', 0, 0, 8, 0, 2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn a_verdict_map_targets_the_verdict_register() {
        check(
            lookup(Yields::Verdict),
            &[7, 0, 1, 0, b's', b'4', 0, 0, 8, 0, 2, 0, 0, 0, 0, 1, 8, 0, 3, 0, 0, 0, 0, 0],
        );
    }

    #[test]
    fn an_inverted_lookup_is_foreign() {
        check_foreign("lookup", &[7, 0, 1, 0, b's', b'4', 0, 0, 8, 0, 5, 0, 0, 0, 0, 1]);
    }
}

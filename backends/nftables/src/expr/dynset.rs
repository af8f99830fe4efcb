//! `dynset`: the packet puts its own key into a set, and the element's expression decides whether the rule goes on.
use podwall_netlink::{Attributes, Malformed, Writer};
use podwall_ruleset::SetName;

use super::{Expr, Expression, Limit};
use crate::data::{Register, Unread};
use crate::uapi::NFTA_LIST_ELEM;

const NFTA_DYNSET_SET_NAME: u16 = 1;
const NFTA_DYNSET_OP: u16 = 3;
const NFTA_DYNSET_SREG_KEY: u16 = 4;
const NFTA_DYNSET_SREG_DATA: u16 = 5;
const NFTA_DYNSET_TIMEOUT: u16 = 6;
const NFTA_DYNSET_EXPR: u16 = 7;
const NFTA_DYNSET_FLAGS: u16 = 9;
const NFTA_DYNSET_EXPRESSIONS: u16 = 10;
/// `NFT_DYNSET_OP_UPDATE`: adds, or refreshes the timeout of what is there.
const NFT_DYNSET_OP_UPDATE: u32 = 1;
/// `NFT_DYNSET_F_EXPR` goes with `NFTA_DYNSET_EXPRESSIONS`, the newer form of the same; the other flag inverts.
const NFT_DYNSET_F_EXPR: u32 = 2;

/// `update @set { <reg1> limit ... }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dynset {
    pub(crate) set: SetName,
    /// Kept with each element.
    pub(crate) limit: Limit,
}

impl Expression for Dynset {
    const NAME: &'static str = "dynset";

    fn write(&self, writer: &mut Writer) {
        writer.put_be32(NFTA_DYNSET_SREG_KEY, Register::FIRST.0);
        writer.put_be32(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
        writer.put_text(NFTA_DYNSET_SET_NAME, self.set.as_str());
        super::write(&self.limit, NFTA_DYNSET_EXPR, writer);
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let (mut set, mut limit, mut foreign) = (None, None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_DYNSET_SET_NAME => set = Some(SetName::new(&attribute.text()).map_err(Unread::foreign)?),
                NFTA_DYNSET_EXPR => limit = Some(read_limit(Expr::read(&attribute)?)?),
                NFTA_DYNSET_EXPRESSIONS => {
                    for element in attribute.nested() {
                        let element = element?;
                        if element.kind == NFTA_LIST_ELEM && limit.is_none() {
                            limit = Some(read_limit(Expr::read(&element)?)?);
                        } else {
                            foreign = Some("several expressions");
                        }
                    }
                }
                NFTA_DYNSET_OP if attribute.be32()? != NFT_DYNSET_OP_UPDATE => foreign = Some("no update"),
                NFTA_DYNSET_SREG_KEY if attribute.be32()? != Register::FIRST.0 => foreign = Some("register"),
                NFTA_DYNSET_FLAGS if attribute.be32()? & !NFT_DYNSET_F_EXPR != 0 => foreign = Some("flags"),
                NFTA_DYNSET_SREG_DATA => foreign = Some("data"),
                NFTA_DYNSET_TIMEOUT if attribute.be64()? != 0 => foreign = Some("a timeout of its own"),
                _ => {}
            }
        }
        if let Some(what) = foreign {
            return Err(Unread::Foreign(format!("dynset with {what}")));
        }
        let limit = limit.ok_or_else(|| Unread::foreign("dynset without a limit"))?;
        Ok(Self { set: set.ok_or(Malformed)?, limit })
    }
}

fn read_limit(expr: Expr) -> Result<Limit, Unread> {
    match expr {
        Expr::Limit(limit) => Ok(limit),
        other => Err(Unread::Foreign(format!("dynset with {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn a_meter_is_key_update_set_and_limit() {
        #[rustfmt::skip]
        let golden = [
            8, 0, 4, 0, 0, 0, 0, 1, 8, 0, 3, 0, 0, 0, 0, 1, 6, 0, 1, 0, b'n', 0, 0, 0,
            68, 0, 7, 0x80, 10, 0, 1, 0, b'l', b'i', b'm', b'i', b't', 0, 0, 0,
              52, 0, 2, 0x80, 12, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 10, 12, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1,
              8, 0, 3, 0, 0, 0, 0, 5, 8, 0, 4, 0, 0, 0, 0, 0, 8, 0, 5, 0, 0, 0, 0, 0,
        ];
        let set = SetName::new("n").unwrap();
        check(Dynset { set, limit: Limit { rate: 10, burst: 5 } }, &golden);
    }

    #[test]
    fn an_inverted_meter_is_foreign() {
        check_foreign("dynset", &[8, 0, 9, 0, 0, 0, 0, 3]);
    }
}

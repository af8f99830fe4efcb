//! `ct`: what conntrack says of the packet, into the first register.
use podwall_netlink::{Attributes, Malformed, Writer};

use super::Expression;
use crate::data::{Register, Unread};

const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_CT_DIRECTION: u16 = 3;
const NFTA_CT_SREG: u16 = 4;

/// `enum nft_ct_keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum CtKey {
    /// `NFT_CT_STATE`: four bytes of bits, in the byte order of the machine.
    State = 0,
    /// `NFT_CT_DIRECTION`: one byte.
    Direction = 1,
    /// `NFT_CT_STATUS`: four bytes of bits, in the byte order of the machine.
    Status = 2,
}

/// Loads a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ct(pub(crate) CtKey);

impl Expression for Ct {
    const NAME: &'static str = "ct";

    fn write(&self, writer: &mut Writer) {
        writer.put_be32(NFTA_CT_KEY, self.0 as u32);
        writer.put_be32(NFTA_CT_DREG, Register::FIRST.0);
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let mut key = None;
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_CT_KEY => {
                    key = Some(match attribute.be32()? {
                        0 => CtKey::State,
                        1 => CtKey::Direction,
                        2 => CtKey::Status,
                        other => return Err(Unread::Foreign(format!("ct key {other}"))),
                    });
                }
                NFTA_CT_DREG if attribute.be32()? == Register::FIRST.0 => {}
                NFTA_CT_DREG | NFTA_CT_DIRECTION | NFTA_CT_SREG => {
                    return Err(Unread::foreign("ct other than a load into the first register"));
                }
                _ => {}
            }
        }
        key.map(Self).ok_or_else(|| Malformed.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn a_ct_load_is_key_then_register() {
        check(Ct(CtKey::State), &[8, 0, 2, 0, 0, 0, 0, 0, 8, 0, 1, 0, 0, 0, 0, 1]);
        check(Ct(CtKey::Direction), &[8, 0, 2, 0, 0, 0, 0, 1, 8, 0, 1, 0, 0, 0, 0, 1]);
        check(Ct(CtKey::Status), &[8, 0, 2, 0, 0, 0, 0, 2, 8, 0, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn setting_a_mark_is_foreign() {
        check_foreign("ct", &[8, 0, 2, 0, 0, 0, 0, 3]);
    }
}

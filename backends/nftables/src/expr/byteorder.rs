//! `byteorder`: only in the one form in which it does nothing.
//!
//! We never write it. nft(8) 1.0.6 puts it after a protocol number at the start of a concatenation of intervals,
//! as a 16-bit swap of a value of one byte, which the kernel carries out zero times (`nft_byteorder_eval`).
use podwall_netlink::{Attributes, Writer};

use super::Expression;
use crate::data::Unread;

const NFTA_BYTEORDER_LEN: u16 = 4;
const NFTA_BYTEORDER_SIZE: u16 = 5;

/// A swap of nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Byteorder;

impl Expression for Byteorder {
    const NAME: &'static str = "byteorder";

    fn write(&self, writer: &mut Writer) {
        writer.put_be32(NFTA_BYTEORDER_LEN, 1);
        writer.put_be32(NFTA_BYTEORDER_SIZE, 2);
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let (mut length, mut size) = (0, 0);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_BYTEORDER_LEN => length = attribute.be32()?,
                NFTA_BYTEORDER_SIZE => size = attribute.be32()?,
                _ => {}
            }
        }
        if length < size { Ok(Self) } else { Err(Unread::foreign("a change of byte order")) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn a_swap_of_less_than_one_value_does_nothing() {
        check(Byteorder, &[8, 0, 4, 0, 0, 0, 0, 1, 8, 0, 5, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn any_other_swap_is_foreign() {
        check_foreign("byteorder", &[8, 0, 4, 0, 0, 0, 0, 2, 8, 0, 5, 0, 0, 0, 0, 2]);
    }
}

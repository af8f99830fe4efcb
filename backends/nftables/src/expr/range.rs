//! `range`: the first register between two constants, both inclusive.
use podwall_netlink::{Attributes, Malformed, Writer};

use super::Expression;
use crate::data::{Data, Register, Unread};

const NFTA_RANGE_SREG: u16 = 1;
const NFTA_RANGE_OP: u16 = 2;
const NFTA_RANGE_FROM_DATA: u16 = 3;
const NFTA_RANGE_TO_DATA: u16 = 4;
/// `NFT_RANGE_EQ`.
const NFT_RANGE_EQ: u32 = 0;

/// `first..=last`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: Data,
    pub(crate) last: Data,
}

impl Expression for Range {
    const NAME: &'static str = "range";

    fn write(&self, writer: &mut Writer) {
        writer.put_be32(NFTA_RANGE_SREG, Register::FIRST.0);
        writer.put_be32(NFTA_RANGE_OP, NFT_RANGE_EQ);
        self.first.write(NFTA_RANGE_FROM_DATA, writer);
        self.last.write(NFTA_RANGE_TO_DATA, writer);
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let (mut first, mut last) = (None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_RANGE_SREG if attribute.be32()? != Register::FIRST.0 => {
                    return Err(Unread::foreign("range of another register than the first"));
                }
                NFTA_RANGE_OP if attribute.be32()? != NFT_RANGE_EQ => {
                    return Err(Unread::foreign("inverted range"));
                }
                NFTA_RANGE_FROM_DATA => first = Some(Data::read(&attribute)?),
                NFTA_RANGE_TO_DATA => last = Some(Data::read(&attribute)?),
                _ => {}
            }
        }
        Ok(Self { first: first.ok_or(Malformed)?, last: last.ok_or(Malformed)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn a_range_is_register_operation_and_both_ends() {
        #[rustfmt::skip]
        let golden = [
            8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 0,
            12, 0, 3, 0x80, 6, 0, 1, 0, 0, 80, 0, 0, 12, 0, 4, 0x80, 6, 0, 1, 0, 0, 90, 0, 0,
        ];
        check(Range { first: Data::of([0, 80]), last: Data::of([0, 90]) }, &golden);
    }

    #[test]
    fn outside_a_range_is_foreign() {
        check_foreign("range", &[8, 0, 2, 0, 0, 0, 0, 1]);
    }
}

//! `fib`: is there a route back to the source by the interface of arrival? One when there is, into register 1.
use podwall_netlink::{Attributes, Writer};

use super::Expression;
use crate::data::{Register, Unread};

const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
/// `NFT_FIB_RESULT_OIF`.
const NFT_FIB_RESULT_OIF: u32 = 1;
/// `NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT`: existence is all that is asked.
const SOURCE_BY_INPUT_LINK: u32 = 1 | 1 << 3 | 1 << 5;

/// `fib saddr . iif oif`, as existence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fib;

impl Expression for Fib {
    const NAME: &'static str = "fib";

    fn write(&self, writer: &mut Writer) {
        writer.put_be32(NFTA_FIB_FLAGS, SOURCE_BY_INPUT_LINK);
        writer.put_be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_OIF);
        writer.put_be32(NFTA_FIB_DREG, Register::FIRST.0);
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let mut seen = [None; 3];
        for attribute in attributes {
            let attribute = attribute?;
            if let Some(slot) = usize::from(attribute.kind).checked_sub(1).and_then(|at| seen.get_mut(at)) {
                *slot = Some(attribute.be32()?);
            }
        }
        if seen == [Some(Register::FIRST.0), Some(NFT_FIB_RESULT_OIF), Some(SOURCE_BY_INPUT_LINK)] {
            Ok(Self)
        } else {
            Err(Unread::foreign("fib other than the reverse path check"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn the_reverse_path_check_asks_for_existence_only() {
        check(Fib, &[8, 0, 3, 0, 0, 0, 0, 0x29, 8, 0, 2, 0, 0, 0, 0, 1, 8, 0, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn any_other_lookup_is_foreign() {
        check_foreign("fib", &[8, 0, 3, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 3, 8, 0, 1, 0, 0, 0, 0, 1]);
    }
}

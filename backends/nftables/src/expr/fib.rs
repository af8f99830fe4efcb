//! `fib`: what the routing tables say of a packet, into register 1. Two questions: is there a route back to the source
//! by the interface of arrival (one when there is), and what kind of address is the destination (`RTN_*`)?
use podwall_netlink::{Attributes, Writer};

use super::Expression;
use crate::data::{Register, Unread};

const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
/// `NFT_FIB_RESULT_OIF`.
const NFT_FIB_RESULT_OIF: u32 = 1;
/// `NFT_FIB_RESULT_ADDRTYPE`.
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
/// `NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT`: existence is all that is asked.
const SOURCE_BY_INPUT_LINK: u32 = 1 | 1 << 3 | 1 << 5;

/// `NFTA_FIB_F_DADDR`.
const DESTINATION: u32 = 1 << 1;

/// A question to the routing tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fib {
    /// `fib saddr . iif oif`, as existence.
    ReversePath,
    /// `fib daddr type`.
    DestinationType,
}

impl Fib {
    const ALL: [Self; 2] = [Self::ReversePath, Self::DestinationType];

    const fn parts(self) -> (u32, u32) {
        match self {
            Self::ReversePath => (SOURCE_BY_INPUT_LINK, NFT_FIB_RESULT_OIF),
            Self::DestinationType => (DESTINATION, NFT_FIB_RESULT_ADDRTYPE),
        }
    }
}

impl Expression for Fib {
    const NAME: &'static str = "fib";

    fn write(&self, writer: &mut Writer) {
        let (flags, result) = self.parts();
        writer.put_be32(NFTA_FIB_FLAGS, flags);
        writer.put_be32(NFTA_FIB_RESULT, result);
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
        let asks = |fib: &Self| {
            let (flags, result) = fib.parts();
            seen == [Some(Register::FIRST.0), Some(result), Some(flags)]
        };
        Self::ALL
            .into_iter()
            .find(asks)
            .ok_or_else(|| Unread::foreign("fib other than the reverse path or the destination's type"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn the_reverse_path_check_asks_for_existence_only() {
        check(Fib::ReversePath, &[8, 0, 3, 0, 0, 0, 0, 0x29, 8, 0, 2, 0, 0, 0, 0, 1, 8, 0, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn the_type_of_the_destination_needs_no_interface() {
        let bytes = [8, 0, 3, 0, 0, 0, 0, 2, 8, 0, 2, 0, 0, 0, 0, 3, 8, 0, 1, 0, 0, 0, 0, 1];
        check(Fib::DestinationType, &bytes);
    }

    #[test]
    fn any_other_lookup_is_foreign() {
        check_foreign("fib", &[8, 0, 3, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 3, 8, 0, 1, 0, 0, 0, 0, 1]);
    }
}

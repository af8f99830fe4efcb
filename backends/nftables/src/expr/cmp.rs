//! `cmp`: the first register against a constant; the rule ends when it does not hold.
use podwall_netlink::{Attributes, Malformed, Writer};

use super::Expression;
use crate::data::{Data, Register, Unread};

const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;

/// `enum nft_cmp_ops`. We write the first two; nft(8) writes a range as the other two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Order {
    /// `NFT_CMP_EQ`.
    Equal = 0,
    /// `NFT_CMP_NEQ`.
    Unequal = 1,
    /// `NFT_CMP_LTE`.
    AtMost = 3,
    /// `NFT_CMP_GTE`.
    AtLeast = 5,
}

/// `reg1 <order> data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cmp {
    /// How.
    pub(crate) order: Order,
    /// With what.
    pub(crate) data: Data,
}

impl Cmp {
    /// The register holds exactly this.
    pub(crate) fn equal<const N: usize>(value: [u8; N]) -> Self {
        Self { order: Order::Equal, data: Data::of(value) }
    }
}

impl Expression for Cmp {
    const NAME: &'static str = "cmp";

    fn write(&self, writer: &mut Writer) {
        writer.put_be32(NFTA_CMP_SREG, Register::FIRST.0);
        writer.put_be32(NFTA_CMP_OP, self.order as u32);
        self.data.write(NFTA_CMP_DATA, writer);
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let (mut order, mut data) = (None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_CMP_SREG if attribute.be32()? != Register::FIRST.0 => {
                    return Err(Unread::foreign("cmp of another register than the first"));
                }
                NFTA_CMP_OP => order = Some(read_order(attribute.be32()?)?),
                NFTA_CMP_DATA => data = Some(Data::read(&attribute)?),
                _ => {}
            }
        }
        Ok(Self { order: order.ok_or(Malformed)?, data: data.ok_or(Malformed)? })
    }
}

fn read_order(number: u32) -> Result<Order, Unread> {
    match number {
        0 => Ok(Order::Equal),
        1 => Ok(Order::Unequal),
        3 => Ok(Order::AtMost),
        5 => Ok(Order::AtLeast),
        other => Err(Unread::Foreign(format!("cmp operation {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn a_comparison_is_register_operation_and_value() {
        check(
            Cmp { order: Order::Unequal, data: Data::of([6]) },
            &[8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 1, 12, 0, 3, 0x80, 5, 0, 1, 0, 6, 0, 0, 0],
        );
    }

    #[test]
    fn less_than_is_foreign() {
        check_foreign("cmp", &[8, 0, 2, 0, 0, 0, 0, 2]);
    }
}

//! `bitwise`: the first register masked, back into the first register.
use podwall_netlink::{Attributes, Malformed, Writer};

use super::Expression;
use crate::data::{Data, Register, Unread};

const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_BITWISE_OP: u16 = 6;
/// `NFT_BITWISE_MASK_XOR`, also meant where the kernel gives no operation (before 5.6).
const NFT_BITWISE_MASK_XOR: u32 = 0;

/// `reg1 & mask`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bitwise {
    /// As long as the value in the register.
    pub(crate) mask: Data,
}

impl Expression for Bitwise {
    const NAME: &'static str = "bitwise";

    fn write(&self, writer: &mut Writer) {
        let length = self.mask.bytes().len();
        writer.put_be32(NFTA_BITWISE_SREG, Register::FIRST.0);
        writer.put_be32(NFTA_BITWISE_DREG, Register::FIRST.0);
        writer.put_be32(NFTA_BITWISE_LEN, u32::try_from(length).unwrap_or_default());
        self.mask.write(NFTA_BITWISE_MASK, writer);
        if let Some(zeros) = [0; 16].get(..length).and_then(Data::new) {
            zeros.write(NFTA_BITWISE_XOR, writer);
        }
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let mut mask = None;
        for attribute in attributes {
            let attribute = attribute?;
            let ours = match attribute.kind {
                NFTA_BITWISE_SREG | NFTA_BITWISE_DREG => attribute.be32()? == Register::FIRST.0,
                NFTA_BITWISE_OP => attribute.be32()? == NFT_BITWISE_MASK_XOR,
                NFTA_BITWISE_XOR => Data::read(&attribute)?.bytes().iter().all(|byte| *byte == 0),
                NFTA_BITWISE_MASK => {
                    mask = Some(Data::read(&attribute)?);
                    true
                }
                _ => true,
            };
            if !ours {
                return Err(Unread::foreign("bitwise other than a mask of the first register"));
            }
        }
        Ok(Self { mask: mask.ok_or(Malformed)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn a_mask_is_source_target_length_mask_and_no_xor() {
        #[rustfmt::skip]
        let golden = [
            8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 1, 8, 0, 3, 0, 0, 0, 0, 4,
            12, 0, 4, 0x80, 8, 0, 1, 0, 255, 128, 0, 0, 12, 0, 5, 0x80, 8, 0, 1, 0, 0, 0, 0, 0,
        ];
        check(Bitwise { mask: Data::of([255, 128, 0, 0]) }, &golden);
    }

    #[test]
    fn a_shift_is_foreign() {
        check_foreign("bitwise", &[8, 0, 6, 0, 0, 0, 0, 1]);
    }
}

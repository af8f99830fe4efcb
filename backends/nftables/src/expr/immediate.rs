//! `immediate`: a verdict, at once.
use podwall_netlink::{Attributes, Malformed, Writer};
use podwall_ruleset::Verdict;

use super::Expression;
use crate::data::{Register, Unread};
use crate::object::verdict;

const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Immediate(pub(crate) Verdict);

impl Expression for Immediate {
    const NAME: &'static str = "immediate";

    fn write(&self, writer: &mut Writer) {
        writer.put_be32(NFTA_IMMEDIATE_DREG, Register::VERDICT.0);
        verdict::write(&self.0, NFTA_IMMEDIATE_DATA, writer);
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let mut given = None;
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_IMMEDIATE_DREG if attribute.be32()? != Register::VERDICT.0 => {
                    return Err(Unread::foreign("immediate into another register than the verdict"));
                }
                NFTA_IMMEDIATE_DATA => given = Some(attribute),
                _ => {}
            }
        }
        verdict::read(&given.ok_or(Malformed)?).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use podwall_ruleset::ChainName;

    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn a_jump_carries_code_and_chain() {
        #[rustfmt::skip]
        let golden = [
            8, 0, 1, 0, 0, 0, 0, 0,
            24, 0, 2, 0x80, 20, 0, 2, 0x80, 8, 0, 1, 0, 255, 255, 255, 253, 7, 0, 2, 0, b'e', b'g', 0, 0,
        ];
        check(Immediate(Verdict::Jump(ChainName::new("eg").unwrap())), &golden);
    }

    #[test]
    fn a_drop_is_zero() {
        check(
            Immediate(Verdict::Drop),
            &[8, 0, 1, 0, 0, 0, 0, 0, 16, 0, 2, 0x80, 12, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0],
        );
    }

    #[test]
    fn a_constant_for_a_register_is_foreign() {
        check_foreign("immediate", &[8, 0, 1, 0, 0, 0, 0, 1]);
    }
}

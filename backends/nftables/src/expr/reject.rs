//! `reject`: drop, and tell the sender. In the inet family the kernel picks the ICMP of the packet's family itself.
use podwall_netlink::{Attributes, Malformed, Writer};
use podwall_ruleset::Answer;

use super::Expression;
use crate::data::Unread;

const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;
/// `NFT_REJECT_TCP_RST`.
const TCP_RESET: u32 = 1;
/// `NFT_REJECT_ICMPX_UNREACH`.
const ICMPX_UNREACHABLE: u32 = 2;
/// `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`.
const ADMIN_PROHIBITED: u8 = 3;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reject(pub(crate) Answer);

impl Expression for Reject {
    const NAME: &'static str = "reject";

    fn write(&self, writer: &mut Writer) {
        match self.0 {
            Answer::Reset => writer.put_be32(NFTA_REJECT_TYPE, TCP_RESET),
            Answer::Prohibited => {
                writer.put_be32(NFTA_REJECT_TYPE, ICMPX_UNREACHABLE);
                writer.put(NFTA_REJECT_ICMP_CODE, &[ADMIN_PROHIBITED]);
            }
        }
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let (mut kind, mut code) = (None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_REJECT_TYPE => kind = Some(attribute.be32()?),
                NFTA_REJECT_ICMP_CODE => code = Some(attribute.u8()?),
                _ => {}
            }
        }
        match (kind.ok_or(Malformed)?, code) {
            (TCP_RESET, _) => Ok(Self(Answer::Reset)),
            (ICMPX_UNREACHABLE, Some(ADMIN_PROHIBITED)) => Ok(Self(Answer::Prohibited)),
            (kind, code) => Err(Unread::Foreign(format!("reject type {kind}, code {code:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn a_reset_has_no_code() {
        check(Reject(Answer::Reset), &[8, 0, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn prohibited_is_a_code_of_either_family() {
        check(Reject(Answer::Prohibited), &[8, 0, 1, 0, 0, 0, 0, 2, 5, 0, 2, 0, 3, 0, 0, 0]);
    }

    #[test]
    fn no_route_is_foreign() {
        check_foreign("reject", &[8, 0, 1, 0, 0, 0, 0, 2, 5, 0, 2, 0, 0, 0, 0, 0]);
    }
}

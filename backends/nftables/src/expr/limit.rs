//! `limit`: goes on while the rate is kept. Only ever inside a [`Dynset`](super::Dynset).
use podwall_netlink::{Attributes, Malformed, Writer};

use super::Expression;
use crate::data::Unread;

const NFTA_LIMIT_RATE: u16 = 1;
const NFTA_LIMIT_UNIT: u16 = 2;
const NFTA_LIMIT_BURST: u16 = 3;
const NFTA_LIMIT_TYPE: u16 = 4;
const NFTA_LIMIT_FLAGS: u16 = 5;
/// Seconds.
const EACH_SECOND: u64 = 1;
/// `NFT_LIMIT_PKTS`.
const NFT_LIMIT_PKTS: u32 = 0;

/// Packets a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Never 0: the kernel refuses it.
    pub(crate) rate: u64,
    /// 0 means 5 to the kernel.
    pub(crate) burst: u32,
}

impl Expression for Limit {
    const NAME: &'static str = "limit";

    fn write(&self, writer: &mut Writer) {
        writer.put_be64(NFTA_LIMIT_RATE, self.rate);
        writer.put_be64(NFTA_LIMIT_UNIT, EACH_SECOND);
        writer.put_be32(NFTA_LIMIT_BURST, self.burst);
        writer.put_be32(NFTA_LIMIT_TYPE, NFT_LIMIT_PKTS);
        writer.put_be32(NFTA_LIMIT_FLAGS, 0);
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let (mut rate, mut burst) = (None, 0);
        for attribute in attributes {
            let attribute = attribute?;
            let ours = match attribute.kind {
                NFTA_LIMIT_RATE => {
                    rate = Some(attribute.be64()?);
                    true
                }
                NFTA_LIMIT_BURST => {
                    burst = attribute.be32()?;
                    true
                }
                NFTA_LIMIT_UNIT => attribute.be64()? == EACH_SECOND,
                NFTA_LIMIT_TYPE => attribute.be32()? == NFT_LIMIT_PKTS,
                NFTA_LIMIT_FLAGS => attribute.be32()? == 0,
                _ => true,
            };
            if !ours {
                return Err(Unread::foreign("limit other than packets a second"));
            }
        }
        Ok(Self { rate: rate.ok_or(Malformed)?, burst })
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn a_limit_is_rate_unit_burst_type_and_flags() {
        #[rustfmt::skip]
        let golden = [
            12, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 10, 12, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            8, 0, 3, 0, 0, 0, 0, 5, 8, 0, 4, 0, 0, 0, 0, 0, 8, 0, 5, 0, 0, 0, 0, 0,
        ];
        check(Limit { rate: 10, burst: 5 }, &golden);
    }

    #[test]
    fn bytes_an_hour_are_foreign() {
        check_foreign("limit", &[12, 0, 2, 0, 0, 0, 0, 0, 0, 0, 14, 16]);
    }
}

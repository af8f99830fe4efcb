//! `payload`: bytes of the packet.
use podwall_netlink::{Attributes, Malformed, Writer};

use super::Expression;
use crate::data::{Register, Unread};

const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_PAYLOAD_SREG: u16 = 5;

/// `enum nft_payload_bases`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Header {
    /// `NFT_PAYLOAD_NETWORK_HEADER`.
    Network = 1,
    /// `NFT_PAYLOAD_TRANSPORT_HEADER`.
    Transport = 2,
}

/// Loads bytes into a register; a packet too short, or a fragment without the header, ends the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) header: Header,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) into: Register,
}

impl Expression for Payload {
    const NAME: &'static str = "payload";

    fn write(&self, writer: &mut Writer) {
        writer.put_be32(NFTA_PAYLOAD_DREG, self.into.0);
        writer.put_be32(NFTA_PAYLOAD_BASE, self.header as u32);
        writer.put_be32(NFTA_PAYLOAD_OFFSET, self.offset);
        writer.put_be32(NFTA_PAYLOAD_LEN, self.length);
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let (mut header, mut offset, mut length, mut into) = (None, None, None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_PAYLOAD_DREG => into = Some(Register(attribute.be32()?)),
                NFTA_PAYLOAD_BASE => {
                    header = Some(match attribute.be32()? {
                        1 => Header::Network,
                        2 => Header::Transport,
                        other => return Err(Unread::Foreign(format!("payload base {other}"))),
                    });
                }
                NFTA_PAYLOAD_OFFSET => offset = Some(attribute.be32()?),
                NFTA_PAYLOAD_LEN => length = Some(attribute.be32()?),
                NFTA_PAYLOAD_SREG => return Err(Unread::foreign("payload set")),
                _ => {}
            }
        }
        Ok(Self {
            header: header.ok_or(Malformed)?,
            offset: offset.ok_or(Malformed)?,
            length: length.ok_or(Malformed)?,
            into: into.ok_or(Malformed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn a_load_is_register_base_offset_and_length() {
        #[rustfmt::skip]
        let golden = [
            8, 0, 1, 0, 0, 0, 0, 9, 8, 0, 2, 0, 0, 0, 0, 2, 8, 0, 3, 0, 0, 0, 0, 2, 8, 0, 4, 0, 0, 0, 0, 2,
        ];
        check(Payload { header: Header::Transport, offset: 2, length: 2, into: Register(9) }, &golden);
    }

    #[test]
    fn writing_into_a_packet_is_foreign() {
        check_foreign("payload", &[8, 0, 5, 0, 0, 0, 0, 1]);
    }
}

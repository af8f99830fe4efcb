//! `meta`: what the kernel knows of a packet beyond its bytes.
use podwall_netlink::{Attributes, Malformed, Writer};

use super::Expression;
use crate::data::{Register, Unread};

const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_META_SREG: u16 = 3;

/// `enum nft_meta_keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum MetaKey {
    /// `NFT_META_IIFNAME`: 16 bytes, padded with zeros.
    InputLink = 6,
    /// `NFT_META_OIFNAME`: 16 bytes, padded with zeros.
    OutputLink = 7,
    /// `NFT_META_NFPROTO`: one byte.
    Family = 15,
    /// `NFT_META_L4PROTO`: one byte, IPv6 extension headers skipped.
    Protocol = 16,
}

/// Loads a key into a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) key: MetaKey,
    pub(crate) into: Register,
}

impl Meta {
    /// Into the first register.
    pub(crate) const fn first(key: MetaKey) -> Self {
        Self { key, into: Register::FIRST }
    }
}

impl Expression for Meta {
    const NAME: &'static str = "meta";

    fn write(&self, writer: &mut Writer) {
        writer.put_be32(NFTA_META_KEY, self.key as u32);
        writer.put_be32(NFTA_META_DREG, self.into.0);
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let (mut key, mut into) = (None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_META_KEY => {
                    key = Some(match attribute.be32()? {
                        6 => MetaKey::InputLink,
                        7 => MetaKey::OutputLink,
                        15 => MetaKey::Family,
                        16 => MetaKey::Protocol,
                        other => return Err(Unread::Foreign(format!("meta key {other}"))),
                    });
                }
                NFTA_META_DREG => into = Some(Register(attribute.be32()?)),
                NFTA_META_SREG => return Err(Unread::foreign("meta set")),
                _ => {}
            }
        }
        Ok(Self { key: key.ok_or(Malformed)?, into: into.ok_or(Malformed)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn a_meta_load_is_key_then_register() {
        check(Meta::first(MetaKey::Family), &[8, 0, 2, 0, 0, 0, 0, 15, 8, 0, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn setting_a_mark_is_foreign() {
        check_foreign("meta", &[8, 0, 3, 0, 0, 0, 0, 1]);
    }
}

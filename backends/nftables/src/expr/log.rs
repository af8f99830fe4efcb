//! `log`: a record of the packet to a group of user-space listeners (nfnetlink_log).
use podwall_netlink::{Attributes, Malformed, Writer};

use super::Expression;
use crate::data::Unread;

const NFTA_LOG_GROUP: u16 = 1;
const NFTA_LOG_PREFIX: u16 = 2;
const NFTA_LOG_SNAPLEN: u16 = 3;
const NFTA_LOG_QTHRESHOLD: u16 = 4;
const NFTA_LOG_LEVEL: u16 = 5;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) group: u16,
    /// At most 127 bytes.
    pub(crate) prefix: String,
    /// Bytes of the packet.
    pub(crate) snaplen: u32,
}

impl Expression for Log {
    const NAME: &'static str = "log";

    fn write(&self, writer: &mut Writer) {
        writer.put_be16(NFTA_LOG_GROUP, self.group);
        if !self.prefix.is_empty() {
            writer.put_text(NFTA_LOG_PREFIX, &self.prefix);
        }
        writer.put_be32(NFTA_LOG_SNAPLEN, self.snaplen);
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let (mut group, mut prefix, mut snaplen) = (None, String::new(), 0);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_LOG_GROUP => group = Some(attribute.be16()?),
                NFTA_LOG_PREFIX => prefix = attribute.text().into_owned(),
                NFTA_LOG_SNAPLEN => snaplen = attribute.be32()?,
                NFTA_LOG_QTHRESHOLD if attribute.be16()? == 0 => {}
                NFTA_LOG_QTHRESHOLD | NFTA_LOG_LEVEL => {
                    return Err(Unread::foreign("log with a level or a queue threshold"));
                }
                _ => {}
            }
        }
        Ok(Self { group: group.ok_or(Malformed)?, prefix, snaplen })
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{check, check_foreign};
    use super::*;

    #[test]
    fn a_record_is_group_prefix_and_length() {
        check(
            Log { group: 64, prefix: "in".into(), snaplen: 96 },
            &[6, 0, 1, 0, 0, 64, 0, 0, 7, 0, 2, 0, b'i', b'n', 0, 0, 8, 0, 3, 0, 0, 0, 0, 96],
        );
    }

    #[test]
    fn the_kernel_log_is_foreign() {
        check_foreign("log", &[8, 0, 5, 0, 0, 0, 0, 4]);
    }
}

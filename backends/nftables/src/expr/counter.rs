//! `counter`: packets and bytes that came this far.
use podwall_netlink::{Attributes, Writer};

use super::Expression;
use crate::data::Unread;

const NFTA_COUNTER_BYTES: u16 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;

/// Written as zero, read as the kernel counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counter {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Expression for Counter {
    const NAME: &'static str = "counter";

    fn write(&self, writer: &mut Writer) {
        writer.put_be64(NFTA_COUNTER_BYTES, self.bytes);
        writer.put_be64(NFTA_COUNTER_PACKETS, self.packets);
    }

    fn read(attributes: Attributes<'_>) -> Result<Self, Unread> {
        let mut counter = Self::default();
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_COUNTER_BYTES => counter.bytes = attribute.be64()?,
                NFTA_COUNTER_PACKETS => counter.packets = attribute.be64()?,
                _ => {}
            }
        }
        Ok(counter)
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::check;
    use super::*;

    #[test]
    fn a_counter_is_bytes_then_packets() {
        check(
            Counter { packets: 2, bytes: 300 },
            &[12, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 44, 12, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        );
    }
}

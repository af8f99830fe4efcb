//! Attributes of a logged packet (`enum nfulnl_attr_type`) and of a group's settings (`enum nfulnl_attr_config`).
use std::borrow::Cow;

use super::{GATHER, GATHER_BYTES, GATHER_PACKETS, Logged};
use crate::attribute::{Attributes, Writer};
use crate::error::Malformed;

const NFULA_IFINDEX_INDEV: u16 = 4;
const NFULA_IFINDEX_OUTDEV: u16 = 5;
const NFULA_IFINDEX_PHYSINDEV: u16 = 6;
const NFULA_IFINDEX_PHYSOUTDEV: u16 = 7;
const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;
const NFULA_SEQ: u16 = 12;

const NFULA_CFG_CMD: u16 = 1;
const NFULA_CFG_MODE: u16 = 2;
const NFULA_CFG_NLBUFSIZ: u16 = 3;
const NFULA_CFG_TIMEOUT: u16 = 4;
const NFULA_CFG_QTHRESH: u16 = 5;
const NFULA_CFG_FLAGS: u16 = 6;

/// `NFULNL_CFG_CMD_BIND`.
const BIND: u8 = 1;
/// `NFULNL_COPY_PACKET`.
const COPY_PACKET: u8 = 2;
/// `NFULNL_CFG_F_SEQ`.
const NUMBERED: u16 = 1;

/// Binds the group and sets how it is read.
pub(super) fn write_config(copy: u32, writer: &mut Writer) {
    writer.put_u8(NFULA_CFG_CMD, BIND);
    // `struct nfulnl_msg_config_mode` is packed: range, mode, padding.
    let [r0, r1, r2, r3] = copy.to_be_bytes();
    writer.put(NFULA_CFG_MODE, &[r0, r1, r2, r3, COPY_PACKET, 0]);
    writer.put_be32(NFULA_CFG_NLBUFSIZ, GATHER_BYTES);
    writer.put_be32(NFULA_CFG_TIMEOUT, GATHER);
    writer.put_be32(NFULA_CFG_QTHRESH, GATHER_PACKETS);
    writer.put_be16(NFULA_CFG_FLAGS, NUMBERED);
}

/// A packet; one without a copy of itself is of no use.
pub(super) fn read(attributes: Attributes<'_>) -> Result<Logged<'_>, Malformed> {
    let mut logged =
        Logged { prefix: Cow::Borrowed(""), arrived_by: None, leaving_by: None, packet: &[], sequence: None };
    let (mut port_in, mut port_out) = (None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFULA_IFINDEX_INDEV => logged.arrived_by = Some(attribute.be32()?),
            NFULA_IFINDEX_OUTDEV => logged.leaving_by = Some(attribute.be32()?),
            NFULA_IFINDEX_PHYSINDEV => port_in = Some(attribute.be32()?),
            NFULA_IFINDEX_PHYSOUTDEV => port_out = Some(attribute.be32()?),
            NFULA_PAYLOAD => logged.packet = attribute.value,
            NFULA_PREFIX => logged.prefix = attribute.text(),
            NFULA_SEQ => logged.sequence = Some(attribute.be32()?),
            _ => {}
        }
    }
    logged.arrived_by = port_in.or(logged.arrived_by);
    logged.leaving_by = port_out.or(logged.leaving_by);
    if logged.packet.is_empty() { Err(Malformed) } else { Ok(logged) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_group_is_bound_with_copies_of_packets_and_numbers() {
        let mut writer = Writer::default();
        write_config(96, &mut writer);
        #[rustfmt::skip]
        let golden = [
            5, 0, 1, 0, 1, 0, 0, 0,
            10, 0, 2, 0, 0, 0, 0, 96, 2, 0, 0, 0,
            8, 0, 3, 0, 0, 1, 0, 0,
            8, 0, 4, 0, 0, 0, 0, 5,
            8, 0, 5, 0, 0, 0, 0, 128,
            6, 0, 6, 0, 0, 1, 0, 0,
        ];
        assert_eq!(writer.bytes(), golden);
    }

    #[test]
    fn the_port_of_a_bridge_tells_more_than_the_bridge() {
        let mut writer = Writer::default();
        writer.put_be32(NFULA_IFINDEX_INDEV, 3);
        writer.put_be32(NFULA_IFINDEX_OUTDEV, 4);
        writer.put_be32(NFULA_IFINDEX_PHYSINDEV, 7);
        writer.put(NFULA_PAYLOAD, &[0x45, 0, 0, 20]);
        writer.put_text(NFULA_PREFIX, "podwall:i4_x:");
        writer.put_be32(NFULA_SEQ, 9);
        let wanted = Logged {
            prefix: "podwall:i4_x:".into(),
            arrived_by: Some(7),
            leaving_by: Some(4),
            packet: &[0x45, 0, 0, 20],
            sequence: Some(9),
        };
        assert_eq!(read(Attributes::new(writer.bytes())), Ok(wanted));
        assert_eq!(read(Attributes::new(&[])), Err(Malformed), "no packet");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(Attributes::new(&bytes));
        }
    }
}

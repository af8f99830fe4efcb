//! Attributes of a flow (`enum ctattr_type` and below, linux/netfilter/nfnetlink_conntrack.h).
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Flow, Layer3, Layer4, Status, Tuple};
use crate::attribute::{Attribute, Attributes, Writer};
use crate::error::Malformed;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_TIMEOUT: u16 = 7;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;

const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;

const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_PROTO_ICMPV6_CODE: u16 = 9;

/// `None`: a family that is neither IPv4 nor IPv6.
pub(super) fn read(family: u8, attributes: Attributes<'_>) -> Result<Option<Flow>, Malformed> {
    let layer3 = match family {
        2 => Layer3::V4,
        10 => Layer3::V6,
        _ => return Ok(None),
    };
    let (mut original, mut reply, mut id) = (None, None, None);
    let (mut zone, mut status, mut timeout, mut mark) = (None, Status::default(), None, 0);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            CTA_TUPLE_ORIG => original = Some(read_tuple(&attribute)?),
            CTA_TUPLE_REPLY => reply = Some(read_tuple(&attribute)?),
            CTA_STATUS => status = Status(attribute.be32()?),
            CTA_TIMEOUT => timeout = Some(attribute.be32()?),
            CTA_MARK => mark = attribute.be32()?,
            CTA_ID => id = Some(attribute.be32()?),
            CTA_ZONE => zone = Some(attribute.be16()?),
            _ => {}
        }
    }
    let (original, reply) = (original.ok_or(Malformed)?, reply.ok_or(Malformed)?);
    Ok(Some(Flow { layer3, zone, id: id.ok_or(Malformed)?, original, reply, status, timeout, mark }))
}

/// Original tuple, zone and id: all three together name one entry.
pub(super) fn write_name(flow: &Flow, writer: &mut Writer) {
    writer.nest(CTA_TUPLE_ORIG, |tuple| write_tuple(&flow.original, flow.layer3, tuple));
    if let Some(zone) = flow.zone {
        writer.put_be16(CTA_ZONE, zone);
    }
    writer.put_be32(CTA_ID, flow.id);
}

fn read_tuple(tuple: &Attribute<'_>) -> Result<Tuple, Malformed> {
    let (mut ends, mut inner, mut zone) = (None, None, None);
    for attribute in tuple.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_TUPLE_IP => ends = Some(read_ends(&attribute)?),
            CTA_TUPLE_PROTO => inner = Some(read_protocol(&attribute)?),
            CTA_TUPLE_ZONE => zone = Some(attribute.be16()?),
            _ => {}
        }
    }
    let ((source, destination), (protocol, layer4)) = (ends.ok_or(Malformed)?, inner.ok_or(Malformed)?);
    Ok(Tuple { source, destination, protocol, layer4, zone })
}

fn read_ends(ends: &Attribute<'_>) -> Result<(IpAddr, IpAddr), Malformed> {
    let (mut source, mut destination) = (None, None);
    for attribute in ends.nested() {
        let attribute = attribute?;
        let v4 = || attribute.array().map(|bytes: [u8; 4]| Some(IpAddr::V4(Ipv4Addr::from(bytes))));
        let v6 = || attribute.array().map(|bytes: [u8; 16]| Some(IpAddr::V6(Ipv6Addr::from(bytes))));
        match attribute.kind {
            CTA_IP_V4_SRC => source = v4()?,
            CTA_IP_V4_DST => destination = v4()?,
            CTA_IP_V6_SRC => source = v6()?,
            CTA_IP_V6_DST => destination = v6()?,
            _ => {}
        }
    }
    Ok((source.ok_or(Malformed)?, destination.ok_or(Malformed)?))
}

fn read_protocol(fields: &Attribute<'_>) -> Result<(u8, Layer4), Malformed> {
    let (mut protocol, mut source, mut destination) = (None, None, None);
    let (mut kind, mut code, mut id) = (None, None, None);
    for attribute in fields.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_PROTO_NUM => protocol = Some(attribute.u8()?),
            CTA_PROTO_SRC_PORT => source = Some(attribute.be16()?),
            CTA_PROTO_DST_PORT => destination = Some(attribute.be16()?),
            CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => id = Some(attribute.be16()?),
            CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => kind = Some(attribute.u8()?),
            CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE => code = Some(attribute.u8()?),
            _ => {}
        }
    }
    let layer4 = match (source, destination, kind, code, id) {
        (Some(source), Some(destination), ..) => Layer4::Ports { source, destination },
        (_, _, Some(kind), Some(code), Some(id)) => Layer4::Icmp { kind, code, id },
        _ => Layer4::None,
    };
    Ok((protocol.ok_or(Malformed)?, layer4))
}

fn write_tuple(tuple: &Tuple, layer3: Layer3, writer: &mut Writer) {
    writer.nest(CTA_TUPLE_IP, |ends| {
        let (source, destination) = match layer3 {
            Layer3::V4 => (CTA_IP_V4_SRC, CTA_IP_V4_DST),
            Layer3::V6 => (CTA_IP_V6_SRC, CTA_IP_V6_DST),
        };
        write_address(source, tuple.source, ends);
        write_address(destination, tuple.destination, ends);
    });
    writer.nest(CTA_TUPLE_PROTO, |fields| {
        fields.put_u8(CTA_PROTO_NUM, tuple.protocol);
        match tuple.layer4 {
            Layer4::Ports { source, destination } => {
                fields.put_be16(CTA_PROTO_SRC_PORT, source);
                fields.put_be16(CTA_PROTO_DST_PORT, destination);
            }
            Layer4::Icmp { kind, code, id } => write_icmp((kind, code, id), layer3, fields),
            Layer4::None => {}
        }
    });
    if let Some(zone) = tuple.zone {
        writer.put_be16(CTA_TUPLE_ZONE, zone);
    }
}

fn write_icmp((kind, code, id): (u8, u8, u16), layer3: Layer3, writer: &mut Writer) {
    let (id_kind, type_kind, code_kind) = match layer3 {
        Layer3::V4 => (CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE),
        Layer3::V6 => (CTA_PROTO_ICMPV6_ID, CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_ICMPV6_CODE),
    };
    writer.put_be16(id_kind, id);
    writer.put_u8(type_kind, kind);
    writer.put_u8(code_kind, code);
}

fn write_address(kind: u16, address: IpAddr, writer: &mut Writer) {
    match address {
        IpAddr::V4(address) => writer.put(kind, &address.octets()),
        IpAddr::V6(address) => writer.put(kind, &address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tuple(layer4: Layer4, protocol: u8, zone: Option<u16>) -> Tuple {
        let [source, destination] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        Tuple { source, destination, protocol, layer4, zone }
    }

    #[test]
    fn a_flow_is_named_by_original_tuple_zone_and_id() {
        let original = tuple(Layer4::Ports { source: 0x1234, destination: 53 }, 17, None);
        let flow = Flow {
            layer3: Layer3::V4,
            zone: Some(5),
            id: 0xdead_beef,
            original,
            reply: original,
            status: Status::default(),
            timeout: None,
            mark: 0,
        };
        let mut writer = Writer::default();
        write_name(&flow, &mut writer);
        #[rustfmt::skip]
        let golden = [
            52, 0, 1, 0x80,
              20, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, 1, 8, 0, 2, 0, 10, 0, 0, 2,
              28, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0, 6, 0, 2, 0, 0x12, 0x34, 0, 0, 6, 0, 3, 0, 0, 53, 0, 0,
            6, 0, 18, 0, 0, 5, 0, 0,
            8, 0, 12, 0, 0xde, 0xad, 0xbe, 0xef,
        ];
        assert_eq!(writer.bytes(), golden);
    }

    #[test]
    fn tuples_of_every_layer4_read_back_as_written() {
        for (layer4, zone) in [
            (Layer4::Ports { source: 1, destination: 65535 }, None),
            (Layer4::Icmp { kind: 8, code: 0, id: 77 }, Some(3)),
            (Layer4::None, Some(0)),
        ] {
            let mut writer = Writer::default();
            let written = tuple(layer4, 47, zone);
            writer.nest(CTA_TUPLE_ORIG, |inner| write_tuple(&written, Layer3::V4, inner));
            let nest = Attributes::new(writer.bytes()).next().unwrap().unwrap();
            assert_eq!(read_tuple(&nest), Ok(written));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(2, Attributes::new(&bytes));
        }
    }
}

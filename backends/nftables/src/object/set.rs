//! Sets (`enum nft_set_attributes`): which shape is which data structure of the kernel.
use podwall_netlink::{Attribute, Attributes, Malformed, Writer};
use podwall_ruleset::{Family, SetName, SetSpec, Shape};

use super::TABLE;
use crate::data::Unread;
use crate::expr::{Counter, Expr};
use crate::uapi::{
    NFT_DATA_VERDICT, NFT_SET_CONCAT, NFT_SET_EVAL, NFT_SET_EXPR, NFT_SET_INTERVAL, NFT_SET_MAP,
    NFT_SET_TIMEOUT, NFTA_LIST_ELEM, NFTA_SET_COUNT, NFTA_SET_DATA_LEN, NFTA_SET_DATA_TYPE, NFTA_SET_DESC,
    NFTA_SET_DESC_CONCAT, NFTA_SET_DESC_SIZE, NFTA_SET_EXPR, NFTA_SET_FIELD_LEN, NFTA_SET_FLAGS, NFTA_SET_ID,
    NFTA_SET_KEY_LEN, NFTA_SET_KEY_TYPE, NFTA_SET_NAME, NFTA_SET_TABLE, NFTA_SET_TIMEOUT, NFTA_SET_USERDATA,
    datatype,
};

/// How long a meter remembers a source that fell silent, in milliseconds.
const METER_MEMORY: u64 = 60_000;
/// `NFTNL_UDATA_SET_KEYBYTEORDER` (libnftnl/udata.h).
const KEY_BYTE_ORDER: u8 = 0;
/// `BYTEORDER_HOST_ENDIAN` (nftables `include/datatype.h`).
const HOST_ENDIAN: u32 = 1;
/// The size the kernel gives a set that packets fill, where none is declared (`nft_dynset_init`).
const METER_SIZE: u32 = 65_535;

/// A set read back, without its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelSet {
    pub(crate) name: SetName,
    pub(crate) spec: Result<SetSpec, Unread>,
    /// Number of elements, where the kernel tells.
    pub(crate) count: Option<u32>,
}

/// What the kernel is told of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    flags: u32,
    key_type: u32,
    key_length: u32,
}

/// What makes a set; `id` is any number unique in its batch.
pub(crate) fn write(name: &SetName, spec: &SetSpec, id: u32, writer: &mut Writer) {
    write_name(name, writer);
    write_spec(spec, id, writer);
}

/// What makes a set, without what names it.
pub(crate) fn write_spec(spec: &SetSpec, id: u32, writer: &mut Writer) {
    let form = form(spec.shape);
    writer.put_be32(NFTA_SET_FLAGS, form.flags);
    writer.put_be32(NFTA_SET_KEY_TYPE, form.key_type);
    writer.put_be32(NFTA_SET_KEY_LEN, form.key_length);
    if form.flags & NFT_SET_MAP != 0 {
        writer.put_be32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT);
        writer.put_be32(NFTA_SET_DATA_LEN, 0);
    }
    if form.flags & NFT_SET_EXPR != 0 {
        Expr::from(Counter::default()).write(NFTA_SET_EXPR, writer);
    }
    if let Shape::Meter(_) = spec.shape {
        writer.put_be64(NFTA_SET_TIMEOUT, METER_MEMORY);
    }
    writer.put_be32(NFTA_SET_ID, id);
    if spec.shape == Shape::Links {
        // A note for nft(8), which prints names of interfaces as "" without it; the kernel only keeps it.
        let [a, b, c, d] = HOST_ENDIAN.to_ne_bytes();
        writer.put(NFTA_SET_USERDATA, &[KEY_BYTE_ORDER, 4, a, b, c, d]);
    }
    write_description(spec, writer);
}

/// What names a set.
pub(crate) fn write_name(name: &SetName, writer: &mut Writer) {
    writer.put_text(NFTA_SET_TABLE, TABLE);
    writer.put_text(NFTA_SET_NAME, name.as_str());
}

pub(crate) fn read(attributes: Attributes<'_>) -> Result<KernelSet, Unread> {
    let (mut name, mut size, mut timeout, mut count, mut counted) = (None, None, 0, None, false);
    let mut form = Form { flags: 0, key_type: 0, key_length: 0 };
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_SET_NAME => name = Some(attribute.text()),
            NFTA_SET_FLAGS => form.flags = attribute.be32()?,
            NFTA_SET_KEY_TYPE => form.key_type = attribute.be32()?,
            NFTA_SET_KEY_LEN => form.key_length = attribute.be32()?,
            NFTA_SET_TIMEOUT => timeout = attribute.be64()?,
            NFTA_SET_COUNT => count = Some(attribute.be32()?),
            NFTA_SET_EXPR => counted = matches!(Expr::read(&attribute)?, Expr::Counter(_)),
            NFTA_SET_DESC => size = read_size(&attribute)?,
            _ => {}
        }
    }
    let name = SetName::new(&name.ok_or(Malformed)?).map_err(Unread::foreign)?;
    if counted {
        // Not every kernel repeats the flag that asked for the counter.
        form.flags |= NFT_SET_EXPR;
    }
    Ok(KernelSet { name, spec: read_spec(form, size, timeout), count })
}

fn read_spec(seen: Form, size: Option<u32>, timeout: u64) -> Result<SetSpec, Unread> {
    let shape = shapes()
        .find(|shape| form(*shape) == seen)
        .ok_or_else(|| Unread::Foreign(format!("set type {:#x}, flags {:#x}", seen.key_type, seen.flags)))?;
    let (memory, size) = match shape {
        Shape::Meter(_) => (METER_MEMORY, size.filter(|size| *size != METER_SIZE)),
        _ => (0, size),
    };
    if timeout != memory {
        return Err(Unread::Foreign(format!("a set whose elements end after {timeout} ms")));
    }
    Ok(SetSpec { shape, size })
}

fn shapes() -> impl Iterator<Item = Shape> {
    let of_family = |family| {
        [
            Shape::Addresses(family),
            Shape::Ranges(family),
            Shape::Pairs(family),
            Shape::Endpoints(family),
            Shape::Verdicts(family),
            Shape::Meter(family),
            Shape::Banned(family),
            Shape::BannedRanges(family),
            Shape::Learned(family),
        ]
    };
    [Shape::Services, Shape::Links].into_iter().chain(Family::BOTH.into_iter().flat_map(of_family))
}

/// A concatenation in a hash must not be flagged as one: the flag asks for intervals in every field.
const fn form(shape: Shape) -> Form {
    let (flags, key_type, key_length) = match shape {
        Shape::Addresses(family) => (0, address_type(family), address_length(family)),
        Shape::Ranges(family) => (NFT_SET_INTERVAL, address_type(family), address_length(family)),
        Shape::Banned(family) => {
            (NFT_SET_TIMEOUT | NFT_SET_EXPR, address_type(family), address_length(family))
        }
        Shape::BannedRanges(family) => {
            (NFT_SET_INTERVAL | NFT_SET_EXPR, address_type(family), address_length(family))
        }
        Shape::Verdicts(family) => (NFT_SET_MAP, address_type(family), address_length(family)),
        Shape::Meter(family) => {
            (NFT_SET_TIMEOUT | NFT_SET_EVAL, address_type(family), address_length(family))
        }
        Shape::Pairs(family) => {
            let address = address_type(family);
            (0, datatype::concat(address, address), 2 * address_length(family))
        }
        Shape::Learned(family) => {
            let address = address_type(family);
            let pair = datatype::concat(address, address);
            (NFT_SET_TIMEOUT | NFT_SET_EXPR, pair, 2 * address_length(family))
        }
        Shape::Endpoints(family) => {
            let address_and_protocol = datatype::concat(address_type(family), datatype::PROTOCOL);
            (0, datatype::concat(address_and_protocol, datatype::SERVICE), address_length(family) + 8)
        }
        Shape::Services => {
            (NFT_SET_INTERVAL | NFT_SET_CONCAT, datatype::concat(datatype::PROTOCOL, datatype::SERVICE), 8)
        }
        Shape::Links => (0, datatype::LINK, 16),
    };
    Form { flags, key_type, key_length }
}

const fn address_type(family: Family) -> u32 {
    match family {
        Family::V4 => datatype::IPV4,
        Family::V6 => datatype::IPV6,
    }
}

const fn address_length(family: Family) -> u32 {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

fn write_description(spec: &SetSpec, writer: &mut Writer) {
    let size = match spec.shape {
        Shape::Meter(_) => Some(spec.size.unwrap_or(METER_SIZE)),
        _ => spec.size,
    };
    // Bytes of protocol and port, unpadded.
    let fields: &[u32] = if spec.shape == Shape::Services { &[1, 2] } else { &[] };
    if size.is_none() && fields.is_empty() {
        return;
    }
    writer.nest(NFTA_SET_DESC, |description| {
        if let Some(size) = size {
            description.put_be32(NFTA_SET_DESC_SIZE, size);
        }
        if !fields.is_empty() {
            description.nest(NFTA_SET_DESC_CONCAT, |concat| {
                for length in fields {
                    concat.nest(NFTA_LIST_ELEM, |field| field.put_be32(NFTA_SET_FIELD_LEN, *length));
                }
            });
        }
    });
}

fn read_size(description: &Attribute<'_>) -> Result<Option<u32>, Malformed> {
    for attribute in description.nested() {
        let attribute = attribute?;
        if attribute.kind == NFTA_SET_DESC_SIZE {
            return attribute.be32().map(Some);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    fn read_back(name: &str, spec: SetSpec) -> KernelSet {
        let mut writer = Writer::default();
        write(&SetName::new(name).unwrap(), &spec, 1, &mut writer);
        read(Attributes::new(writer.bytes())).unwrap()
    }

    #[test]
    fn every_shape_reads_back_as_written() {
        for shape in shapes() {
            for size in [None, Some(1024)] {
                let spec = SetSpec { shape, size };
                assert_eq!(read_back("s", spec).spec, Ok(spec));
            }
        }
    }

    #[test]
    fn a_verdict_map_with_a_size_is_these_bytes() {
        let spec = SetSpec { shape: Shape::Verdicts(Family::V4), size: Some(1024) };
        #[rustfmt::skip]
        let bytes = [
            12, 0, 1, 0, b'p', b'o', b'd', b'w', b'a', b'l', b'l', 0, 8, 0, 2, 0, b'i', b'n', b'4', 0,
            8, 0, 3, 0, 0, 0, 0, 8, 8, 0, 4, 0, 0, 0, 0, 7, 8, 0, 5, 0, 0, 0, 0, 4,
            8, 0, 6, 0, 255, 255, 255, 0, 8, 0, 7, 0, 0, 0, 0, 0,
            8, 0, 10, 0, 0, 0, 0, 3, 12, 0, 9, 0x80, 8, 0, 1, 0, 0, 0, 4, 0,
        ];
        golden::check(|writer| write(&SetName::new("in4").unwrap(), &spec, 3, writer), &bytes);
    }

    #[test]
    fn services_describe_their_fields() {
        let spec = SetSpec { shape: Shape::Services, size: None };
        #[rustfmt::skip]
        let bytes = [
            12, 0, 1, 0, b'p', b'o', b'd', b'w', b'a', b'l', b'l', 0, 7, 0, 2, 0, b'p', b't', 0, 0,
            8, 0, 3, 0, 0, 0, 0, 0x84, 8, 0, 4, 0, 0, 0, 3, 13, 8, 0, 5, 0, 0, 0, 0, 8, 8, 0, 10, 0, 0, 0, 0, 1,
            32, 0, 9, 0x80, 28, 0, 2, 0x80,
              12, 0, 1, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 12, 0, 1, 0x80, 8, 0, 1, 0, 0, 0, 0, 2,
        ];
        golden::check(|writer| write(&SetName::new("pt").unwrap(), &spec, 1, writer), &bytes);
    }

    #[test]
    fn a_set_of_marks_is_foreign() {
        let form = Form { flags: 0, key_type: 19, key_length: 4 };
        assert!(matches!(read_spec(form, None, 0), Err(Unread::Foreign(_))));
    }
}

//! Attributes: type, length, value, padded to four bytes, nested at will (`struct nlattr`, linux/netlink.h).
//!
//! The writer appends to one buffer that is reused; the reader borrows. Lengths are 16 bits: a longer value does
//! not wrap round, it spoils the writer, and the socket refuses to send what a spoilt writer holds.
use std::borrow::Cow;

use crate::error::Malformed;

/// `NLA_F_NESTED`; strict parsers (since 5.2) want it, older ones ignore it.
const NESTED: u16 = 0x8000;
/// `NLA_TYPE_MASK`: the two high bits are flags.
const KIND: u16 = 0x3fff;
/// Bytes of `struct nlattr`.
const HEADER: usize = 4;

/// Bytes of messages being written.
#[derive(Debug, Default)]
pub struct Writer {
    pub(crate) bytes: Vec<u8>,
    spoilt: bool,
}

impl Writer {
    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// True once a value was longer than its length field can say; the bytes are then not to be sent.
    pub const fn is_spoilt(&self) -> bool {
        self.spoilt
    }

    /// Forgets what was written and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spoilt = false;
    }

    /// An attribute of raw bytes.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let length = self.length_of(HEADER + value.len());
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// One byte.
    pub fn put_u8(&mut self, kind: u16, value: u8) {
        self.put(kind, &[value]);
    }

    /// Big-endian, as nf_tables and conntrack keep all their numbers.
    pub fn put_be16(&mut self, kind: u16, value: u16) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Big-endian.
    pub fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Big-endian.
    pub fn put_be64(&mut self, kind: u16, value: u64) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A string with its terminating zero (`NLA_NUL_STRING`).
    pub fn put_text(&mut self, kind: u16, value: &str) {
        let length = self.length_of(HEADER + value.len() + 1);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// An attribute of attributes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length = self.length_of(self.bytes.len() - start);
        if let Some(slot) = self.bytes.get_mut(start..start + 2) {
            slot.copy_from_slice(&length.to_ne_bytes());
        }
    }

    pub(crate) fn spoil(&mut self) {
        self.spoilt = true;
    }

    fn length_of(&mut self, length: usize) -> u16 {
        u16::try_from(length).unwrap_or_else(|_| {
            self.spoil();
            0
        })
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One attribute, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Type without flags.
    pub kind: u16,
    /// Value without padding.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The value as exactly `N` bytes.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.value.try_into().map_err(|_| Malformed)
    }

    /// One byte.
    pub fn u8(&self) -> Result<u8, Malformed> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    /// Big-endian.
    pub fn be16(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// Big-endian.
    pub fn be32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// Big-endian.
    pub fn be64(&self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// In the byte order of the machine, as netlink itself (not netfilter) keeps numbers.
    pub fn host32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    /// Text up to its terminating zero, which may be missing. Names are whatever bytes others chose: those that are no
    /// UTF-8 are replaced, by a character that no name of ours has.
    pub fn text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.word())
    }

    /// The bytes of a text.
    pub fn word(&self) -> &'a [u8] {
        self.value.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The attributes inside.
    pub const fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }
}

/// Attributes one after another. Ends at the first that does not fit, which is yielded as an error.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Reads from the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes not read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    fn split(&self) -> Option<(Attribute<'a>, &'a [u8])> {
        let (header, _) = self.bytes.split_first_chunk::<HEADER>()?;
        let [l0, l1, k0, k1] = *header;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.bytes.get(HEADER..length)?;
        let rest = self.bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((Attribute { kind: u16::from_ne_bytes([k0, k1]) & KIND, value }, rest))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let Some((attribute, rest)) = self.split() else {
            self.bytes = &[];
            return Some(Err(Malformed));
        };
        self.bytes = rest;
        Some(Ok(attribute))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_are_padded_and_nests_carry_their_length() {
        let mut writer = Writer::default();
        writer.put_text(1, "ab");
        writer.nest(2, |inner| {
            inner.put_be32(3, 5);
            inner.put_u8(4, 6);
        });
        assert_eq!(
            writer.bytes(),
            [7, 0, 1, 0, b'a', b'b', 0, 0, 20, 0, 2, 0x80, 8, 0, 3, 0, 0, 0, 0, 5, 5, 0, 4, 0, 6, 0, 0, 0]
        );
    }

    #[test]
    fn a_nest_longer_than_its_length_field_spoils_the_writer() {
        let mut writer = Writer::default();
        writer.nest(1, |inner| (0..9_000).for_each(|n| inner.put_be32(1, n)));
        assert!(writer.is_spoilt());
        writer.clear();
        writer.nest(1, |inner| (0..8_000).for_each(|n| inner.put_be32(1, n)));
        assert!(!writer.is_spoilt());
    }

    #[test]
    fn an_attribute_longer_than_what_is_left_ends_the_reading() {
        let mut read = Attributes::new(&[9, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!((read.next(), read.next()), (Some(Err(Malformed)), None));
        assert_eq!(Attributes::new(&[3, 0, 1, 0]).next(), Some(Err(Malformed)));
    }

    fn walk(attributes: Attributes<'_>, depth: u8) -> usize {
        attributes
            .flatten()
            .map(|attribute| {
                let _ =
                    (attribute.u8(), attribute.be16(), attribute.be32(), attribute.be64(), attribute.text());
                1 + if depth == 0 { 0 } else { walk(attribute.nested(), depth - 1) }
            })
            .sum()
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_loop(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(walk(Attributes::new(&bytes), 4) <= bytes.len() * 5);
        }

        #[test]
        fn what_is_written_is_read(list in proptest::collection::vec((0u16..0x3fff, ".{0,40}"), 0..20)) {
            let mut writer = Writer::default();
            writer.nest(1, |inner| list.iter().for_each(|(kind, text)| inner.put(*kind, text.as_bytes())));
            let outer = Attributes::new(writer.bytes()).next().unwrap().unwrap();
            let read: Vec<_> = outer.nested().map(Result::unwrap).collect();
            prop_assert_eq!(read.len(), list.len());
            for (attribute, (kind, text)) in read.iter().zip(&list) {
                prop_assert_eq!((attribute.kind, attribute.value), (*kind, text.as_bytes()));
            }
        }
    }
}

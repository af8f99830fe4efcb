//! Values as registers hold them, and what can be wrong with something read back.
use std::fmt;

use podwall_netlink::{Attribute, Malformed, Writer};

use crate::uapi::{NFTA_DATA_VALUE, NFTA_DATA_VERDICT};

/// Something the kernel sent that is not ours to understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unread {
    /// Bytes that are not what their headers say.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Well-formed, but nothing podwall writes.
    #[error("{0}")]
    Foreign(String),
}

impl Unread {
    pub(crate) fn foreign(what: impl fmt::Display) -> Self {
        Self::Foreign(what.to_string())
    }
}

/// Where a value sits while a rule runs. Numbered as the kernel reports them back (`nft_dump_register`): a
/// register on a 16-byte boundary by its old name 1 to 4, any other by its 32-bit name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Register(pub(crate) u32);

impl Register {
    /// `NFT_REG_VERDICT`.
    pub(crate) const VERDICT: Self = Self(0);
    /// `NFT_REG_1`, where every key and every compared value starts.
    pub(crate) const FIRST: Self = Self(1);

    /// The register so many bytes behind the first.
    pub(crate) const fn behind(bytes: u32) -> Self {
        let slot = bytes.div_ceil(4);
        if slot.is_multiple_of(4) { Self(1 + slot / 4) } else { Self(8 + slot) }
    }
}

/// At most 16 bytes: an address, an interface name, a port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Data {
    bytes: [u8; 16],
    length: usize,
}

impl Data {
    /// `None` when too long.
    pub(crate) fn new(value: &[u8]) -> Option<Self> {
        let mut bytes = [0; 16];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(Self { bytes, length: value.len() })
    }

    /// A value of fixed length.
    pub(crate) fn of<const N: usize>(value: [u8; N]) -> Self {
        const { assert!(N <= 16) };
        let mut bytes = [0; 16];
        for (slot, byte) in bytes.iter_mut().zip(value) {
            *slot = byte;
        }
        Self { bytes, length: N }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The value, if it has exactly this length.
    pub(crate) fn array<const N: usize>(&self) -> Option<[u8; N]> {
        self.bytes().try_into().ok()
    }

    /// `NFTA_DATA_VALUE` in a nest.
    pub(crate) fn write(&self, kind: u16, writer: &mut Writer) {
        writer.nest(kind, |data| data.put(NFTA_DATA_VALUE, self.bytes()));
    }

    pub(crate) fn read(nest: &Attribute<'_>) -> Result<Self, Unread> {
        for attribute in nest.nested() {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_DATA_VALUE => {
                    return Self::new(attribute.value)
                        .ok_or_else(|| Unread::foreign("a value of over 16 bytes"));
                }
                NFTA_DATA_VERDICT => return Err(Unread::foreign("a verdict where a value belongs")),
                _ => {}
            }
        }
        Err(Malformed.into())
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_numbered_as_the_kernel_reports_them() {
        let numbers = [0, 4, 8, 12, 16, 20, 32].map(|bytes| Register::behind(bytes).0);
        assert_eq!(numbers, [1, 9, 10, 11, 2, 13, 3]);
    }

    #[test]
    fn values_of_over_sixteen_bytes_are_refused() {
        assert_eq!(Data::new(&[1; 17]), None);
        assert_eq!(Data::new(&[1; 16]).unwrap().bytes(), [1; 16]);
    }
}

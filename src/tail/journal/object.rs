//! How a journal file is laid out (systemd.io/JOURNAL_FILE_FORMAT, `journal-def.h`): little-endian objects at
//! multiples of eight bytes, found by their offsets.
//!
//! Owns the layout, and that nothing is believed: sizes are bounded and types checked before anything is read.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file that is not laid out as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    /// It cannot be read at all.
    #[error("reading")]
    Io(#[from] io::Error),
    /// No journal file.
    #[error("it does not begin as a journal file does")]
    Signature,
    /// A feature of a later systemd.
    #[error("it needs a feature this program does not know (incompatible flags {0:#x})")]
    Feature(u32),
    /// An object that makes no sense.
    #[error("the object at {0} is none of the kind that should be there")]
    Object(u64),
    /// A field that cannot be decompressed.
    #[error("the field at {0} cannot be decompressed")]
    Compression(u64),
}

const SIGNATURE: &[u8] = b"LPKSHHRH";
/// `HEADER_INCOMPATIBLE_COMPACT`: offsets are four bytes wide.
const COMPACT: u32 = 1 << 4;
/// XZ, LZ4, keyed hash, ZSTD, compact.
const KNOWN: u32 = 0b1_1111;
/// What every version has of the header (`n_data` follows).
const HEADER: usize = 208;
const OBJECT_HEADER: usize = 16;

/// `OBJECT_DATA`.
pub(super) const DATA: u8 = 1;
/// `OBJECT_ENTRY`.
pub(super) const ENTRY: u8 = 3;
/// `OBJECT_ENTRY_ARRAY`.
pub(super) const ENTRY_ARRAY: u8 = 6;

/// No entry has more fields than fit into this.
const LARGEST_ENTRY: u64 = 256 * 1024;
/// More of a field is not read: the longest message of the kernel is a hundredth of it.
const LARGEST_FIELD: u64 = 64 * 1024;

/// What does not change while a file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) file_id: String,
    compact: bool,
}

impl Layout {
    /// Reads the header; none while it is being written.
    pub(super) fn read(file: &File) -> Result<Option<Self>, Damage> {
        if file.metadata()?.len() < HEADER as u64 {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        if header.get(..8) != Some(SIGNATURE) {
            return if header.iter().all(|byte| *byte == 0) { Ok(None) } else { Err(Damage::Signature) };
        }
        let flags = u32::from_le_bytes(array(&header, 12));
        if flags & !KNOWN != 0 {
            return Err(Damage::Feature(flags));
        }
        let id: [u8; 16] = array(&header, 24);
        let file_id = id.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(Self { file_id, compact: flags & COMPACT != 0 }))
    }

    /// Where the first array of entries is; 0 while there is none.
    pub(super) fn first_array(file: &File) -> Result<u64, Damage> {
        number(file, 176)
    }

    /// Bytes of an offset in a list.
    pub(super) const fn item(&self) -> u64 {
        if self.compact { 4 } else { 8 }
    }

    /// Bytes of an item of an entry: an offset, and its hash where there is room.
    const fn entry_item(&self) -> usize {
        if self.compact { 4 } else { 16 }
    }

    const fn payload(&self) -> u64 {
        if self.compact { 72 } else { 64 }
    }

    /// An item of an array of entries; 0 while it is not written.
    pub(super) fn array_item(&self, file: &File, array: u64, index: u64) -> Result<u64, Damage> {
        let at = array + ARRAY_ITEMS + index * self.item();
        if self.compact {
            let mut bytes = [0; 4];
            file.read_exact_at(&mut bytes, at)?;
            return Ok(u64::from(u32::from_le_bytes(bytes)));
        }
        number(file, at)
    }

    /// How many items an array has room for, and where the next one is.
    pub(super) fn array(&self, file: &File, at: u64) -> Result<Array, Damage> {
        let object = Object::read(file, at, ENTRY_ARRAY)?;
        let items = object.size.checked_sub(ARRAY_ITEMS).ok_or(Damage::Object(at))? / self.item();
        Ok(Array { items, next: number(file, at + OBJECT_HEADER as u64)? })
    }

    /// An entry's own numbers and the offsets of its fields.
    pub(super) fn entry(&self, file: &File, at: u64) -> Result<EntryObject, Damage> {
        let object = Object::read(file, at, ENTRY)?;
        if !(64..=LARGEST_ENTRY).contains(&object.size) {
            return Err(Damage::Object(at));
        }
        let bytes = bytes(file, at, object.size)?;
        let fields = bytes.get(64..).unwrap_or_default().chunks_exact(self.entry_item());
        let fields = if self.compact {
            fields.map(|item| u64::from(u32::from_le_bytes(array(item, 0)))).collect()
        } else {
            fields.map(|item| u64::from_le_bytes(array(item, 0))).collect()
        };
        let number = |place| u64::from_le_bytes(array(&bytes, place));
        Ok(EntryObject { sequence: number(16), realtime: number(24), fields })
    }

    /// The sequence number and the time of an entry, without its fields.
    pub(super) fn order(file: &File, at: u64) -> Result<(u64, u64), Damage> {
        Object::read(file, at, ENTRY)?;
        Ok((number(file, at + 16)?, number(file, at + 24)?))
    }

    /// A field, `NAME=value`, as it is stored.
    pub(super) fn field(&self, file: &File, at: u64) -> Result<Field, Damage> {
        let object = Object::read(file, at, DATA)?;
        let size = object.size.checked_sub(self.payload()).ok_or(Damage::Object(at))?;
        let stored = bytes(file, at + self.payload(), size.min(LARGEST_FIELD))?;
        Ok(match object.flags & COMPRESSED {
            0 => Field::Plain(stored),
            flag => Field::Compressed(flag, stored),
        })
    }
}

/// `EntryArrayObject.items`.
const ARRAY_ITEMS: u64 = 24;

/// An array of entries, of which each file has a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Array {
    pub(super) items: u64,
    pub(super) next: u64,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryObject {
    pub(super) sequence: u64,
    /// Microseconds since 1970.
    pub(super) realtime: u64,
    pub(super) fields: Vec<u64>,
}

/// A field as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    /// As it is.
    Plain(Vec<u8>),
    /// By `OBJECT_COMPRESSED_*`.
    Compressed(u8, Vec<u8>),
}

/// `OBJECT_COMPRESSED_LZ4`.
const LZ4: u8 = 2;
/// `OBJECT_COMPRESSED_ZSTD`.
const ZSTD: u8 = 4;
/// Those and XZ, which journald has not written by default since 2014.
const COMPRESSED: u8 = 7;

impl Field {
    /// The field itself.
    pub(super) fn plain(self, at: u64) -> Result<Vec<u8>, Damage> {
        match self {
            Self::Plain(bytes) => Ok(bytes),
            Self::Compressed(LZ4, bytes) => lz4(&bytes).ok_or(Damage::Compression(at)),
            Self::Compressed(ZSTD, bytes) => zstd(&bytes).ok_or(Damage::Compression(at)),
            Self::Compressed(..) => Err(Damage::Compression(at)),
        }
    }
}

/// The length, then a block.
fn lz4(bytes: &[u8]) -> Option<Vec<u8>> {
    let (length, block) = bytes.split_first_chunk::<8>()?;
    let length = u64::from_le_bytes(*length);
    if length > LARGEST_FIELD {
        return None;
    }
    lz4_flex::block::decompress(block, usize::try_from(length).ok()?).ok()
}

fn zstd(bytes: &[u8]) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let decoder = ruzstd::decoding::StreamingDecoder::new(bytes).ok()?;
    let mut plain = Vec::new();
    decoder.take(LARGEST_FIELD).read_to_end(&mut plain).ok()?;
    Some(plain)
}

struct Object {
    flags: u8,
    size: u64,
}

impl Object {
    fn read(file: &File, at: u64, kind: u8) -> Result<Self, Damage> {
        if at == 0 || !at.is_multiple_of(8) {
            return Err(Damage::Object(at));
        }
        let mut header = [0; OBJECT_HEADER];
        file.read_exact_at(&mut header, at)?;
        let [found, flags, ..] = header;
        if found != kind {
            return Err(Damage::Object(at));
        }
        Ok(Self { flags, size: u64::from_le_bytes(array(&header, 8)) })
    }
}

fn number(file: &File, at: u64) -> Result<u64, Damage> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_le_bytes(bytes))
}

fn bytes(file: &File, at: u64, size: u64) -> Result<Vec<u8>, Damage> {
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| Damage::Object(at))?];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// Bytes of a buffer that was read whole; zeros beyond its end.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut found = [0; N];
    for (slot, byte) in found.iter_mut().zip(bytes.iter().skip(at)) {
        *slot = *byte;
    }
    found
}

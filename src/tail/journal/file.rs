//! Reads one journal file, entry by entry, while journald may be writing it.
//!
//! Arrays of entries are only ever appended to, and an item is written after what it points to; so an item that is
//! still zero is the end for now.
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use jiff::Timestamp;

use super::object::{Damage, Field, Layout};

/// Fields that were looked at and are the same in many entries.
const REMEMBERED: usize = 4096;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) at: Timestamp,
    pub(super) said: Said,
}

/// What was said, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// The kernel said this.
    Kernel(String),
    /// The kernel said something that cannot be read.
    Unreadable,
    /// It was somebody else.
    Others,
}

/// A file, and a place in it.
#[derive(Debug)]
pub(super) struct JournalFile {
    file: File,
    layout: Layout,
    /// The array the next entry is in; 0 before the first.
    array: u64,
    index: u64,
    /// Where to begin, until it was found.
    start: Start,
    read_to: u64,
    /// Looks in a row that found no sense in it.
    failures: u32,
    /// What the field at an offset is, but for messages.
    fields: BTreeMap<u64, Known>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Behind(u64),
    At(u64),
    Found,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Kernel,
    Other,
}

impl JournalFile {
    /// Opens a file; none while it is being made.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Damage> {
        let file = File::open(path)?;
        let layout = Layout::read(&file)?;
        Ok(layout.map(|layout| Self {
            file,
            layout,
            array: 0,
            index: 0,
            start: Start::Found,
            read_to: 0,
            failures: 0,
            fields: BTreeMap::new(),
        }))
    }

    pub(super) fn id(&self) -> &str {
        &self.layout.file_id
    }

    /// The sequence number of the last entry that was read.
    pub(super) const fn read_to(&self) -> u64 {
        self.read_to
    }

    /// How often in a row it made no sense.
    pub(super) const fn fails(&self) -> u32 {
        self.failures
    }

    /// Goes on behind an entry.
    pub(super) const fn start_after(&mut self, sequence: u64) {
        self.read_to = sequence;
        self.start = Start::Behind(sequence);
    }

    /// Begins at a moment.
    pub(super) fn start_at(&mut self, moment: Timestamp) {
        self.start = Start::At(u64::try_from(moment.as_microsecond()).unwrap_or_default());
    }

    /// The next entry, if it is written.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Damage> {
        let next = self.seek().and_then(|()| self.step());
        self.failures = if next.is_err() { self.failures + 1 } else { 0 };
        next
    }

    fn step(&mut self) -> Result<Option<Entry>, Damage> {
        let Some(at) = self.place()? else { return Ok(None) };
        let object = self.layout.entry(&self.file, at)?;
        self.index += 1;
        self.read_to = object.sequence;
        let microseconds = i64::try_from(object.realtime).map_err(|_| Damage::Object(at))?;
        let moment = Timestamp::from_microsecond(microseconds).map_err(|_| Damage::Object(at))?;
        let said = match self.message(&object.fields) {
            Ok(Some(message)) => Said::Kernel(message),
            Ok(None) => Said::Others,
            Err(Damage::Compression(_)) => Said::Unreadable,
            Err(damage) => return Err(damage),
        };
        Ok(Some(Entry { at: moment, said }))
    }

    /// The offset of the next entry; none while it is not written.
    fn place(&mut self) -> Result<Option<u64>, Damage> {
        loop {
            let next = if self.array == 0 {
                Layout::first_array(&self.file)?
            } else {
                let array = self.layout.array(&self.file, self.array)?;
                if self.index < array.items {
                    let at = self.layout.array_item(&self.file, self.array, self.index)?;
                    return Ok((at != 0).then_some(at));
                }
                array.next
            };
            if next == 0 {
                return Ok(None);
            }
            self.enter(next)?;
        }
    }

    /// Arrays are appended, so one that lies before the last is damage, and would make us go in circles.
    fn enter(&mut self, next: u64) -> Result<(), Damage> {
        if next <= self.array {
            return Err(Damage::Object(next));
        }
        (self.array, self.index) = (next, 0);
        Ok(())
    }

    /// Skips whole arrays, then halves the one the start is in.
    fn seek(&mut self) -> Result<(), Damage> {
        let start = std::mem::replace(&mut self.start, Start::Found);
        if start == Start::Found || self.place()?.is_none() {
            return Ok(());
        }
        loop {
            let array = self.layout.array(&self.file, self.array)?;
            let (mut low, mut high) = (0, array.items);
            while low < high {
                let middle = low + (high - low) / 2;
                if self.is_before(middle, start)? { low = middle + 1 } else { high = middle }
            }
            self.index = low;
            if low < array.items || array.next == 0 {
                return Ok(());
            }
            self.enter(array.next)?;
        }
    }

    /// Is an item of this array an entry before the start?
    fn is_before(&self, index: u64, start: Start) -> Result<bool, Damage> {
        let at = self.layout.array_item(&self.file, self.array, index)?;
        if at == 0 {
            return Ok(false);
        }
        let (sequence, realtime) = Layout::order(&self.file, at)?;
        Ok(match start {
            Start::Behind(read) => sequence <= read,
            Start::At(moment) => realtime < moment,
            Start::Found => false,
        })
    }

    /// The message of an entry, if the kernel said it. What is compressed is opened last, and only for the kernel.
    fn message(&mut self, fields: &[u64]) -> Result<Option<String>, Damage> {
        let (mut kernel, mut message, mut packed) = (false, None, Vec::new());
        for at in fields.iter().copied() {
            match self.fields.get(&at) {
                Some(Known::Kernel) => kernel = true,
                Some(Known::Other) => {}
                None => match self.layout.field(&self.file, at)? {
                    Field::Plain(field) => {
                        kernel |= field == TRANSPORT;
                        let found = field.strip_prefix(MESSAGE).map(<[u8]>::to_vec);
                        if found.is_none() {
                            self.remember(at, &field);
                        }
                        message = message.or(found);
                    }
                    field @ Field::Compressed(..) => packed.push((at, field)),
                },
            }
        }
        if !kernel {
            return Ok(None);
        }
        for (at, field) in packed {
            if message.is_none() {
                message = field.plain(at)?.strip_prefix(MESSAGE).map(<[u8]>::to_vec);
            }
        }
        Ok(message.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn remember(&mut self, at: u64, field: &[u8]) {
        if self.fields.len() >= REMEMBERED {
            self.fields.clear();
        }
        let known = if field == TRANSPORT { Known::Kernel } else { Known::Other };
        self.fields.insert(at, known);
    }
}

const TRANSPORT: &[u8] = b"_TRANSPORT=kernel";
const MESSAGE: &[u8] = b"MESSAGE=";

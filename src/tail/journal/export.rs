//! Reads the journal's export format (systemd.io/JOURNAL_EXPORT_FORMATS), as `journalctl -o export` prints it.
//!
//! Pure. A field is a line `NAME=value`, or a line `NAME`, eight bytes of length, the value, and a line's end; an empty
//! line ends an entry. Fields and lines longer than any message of the kernel are passed over, not held.
use jiff::Timestamp;

use crate::tail::source::{Listener, Told};

const LONGEST: usize = 64 * 1024;

/// What of a stream was not understood yet.
#[derive(Debug, Default)]
pub struct Export {
    held: Vec<u8>,
    state: State,
    entry: Entry,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A line begins, or is in the middle.
    #[default]
    Line,
    /// A line too long to hold goes on to its end.
    Rest,
    /// The length of a value comes, of a field of this name.
    Length(Name),
    /// So many bytes of a value come, of which the end of a line is the last.
    Value(Name, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Message,
    Other,
}

#[derive(Debug, Default)]
struct Entry {
    message: Option<Vec<u8>>,
    kernel: bool,
    at: Option<Timestamp>,
}

impl Export {
    /// Takes what came.
    pub fn take(&mut self, bytes: &[u8], listener: &mut Listener<'_>) {
        for byte in bytes.iter().copied() {
            self.byte(byte, listener);
        }
    }

    /// The stream ended; the last entry may lack its empty line.
    pub fn finish(&mut self, listener: &mut Listener<'_>) {
        self.take(b"\n\n", listener);
    }

    fn byte(&mut self, byte: u8, listener: &mut Listener<'_>) {
        match self.state {
            State::Line if byte == b'\n' => self.line(listener),
            State::Line if self.held.len() >= LONGEST => {
                self.held.clear();
                self.state = State::Rest;
            }
            State::Rest if byte == b'\n' => self.state = State::Line,
            State::Rest => {}
            State::Line => self.held.push(byte),
            State::Length(name) => {
                self.held.push(byte);
                if let Some(length) = self.held.first_chunk::<8>() {
                    let length = u64::from_le_bytes(*length).saturating_add(1);
                    self.held.clear();
                    self.state = State::Value(name, length);
                }
            }
            State::Value(name, left) => self.value(name, left - 1, byte),
        }
    }

    fn value(&mut self, name: Name, left: u64, byte: u8) {
        if left > 0 {
            if name == Name::Message && self.held.len() < LONGEST {
                self.held.push(byte);
            }
            self.state = State::Value(name, left);
            return;
        }
        let value = std::mem::take(&mut self.held);
        if name == Name::Message {
            self.entry.message = Some(value);
        }
        self.state = State::Line;
    }

    fn line(&mut self, listener: &mut Listener<'_>) {
        let line = std::mem::take(&mut self.held);
        if line.is_empty() {
            let entry = std::mem::take(&mut self.entry);
            if let Entry { message: Some(message), kernel: true, at: Some(at) } = entry {
                listener(Told::Message(&String::from_utf8_lossy(&message), at));
            }
            return;
        }
        let Some(equals) = line.iter().position(|byte| *byte == b'=') else {
            let name = if line == b"MESSAGE" { Name::Message } else { Name::Other };
            self.state = State::Length(name);
            return;
        };
        let (name, value) = line.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        match name {
            b"MESSAGE" => self.entry.message = Some(value.to_vec()),
            b"_TRANSPORT" => self.entry.kernel = value == b"kernel",
            b"__REALTIME_TIMESTAMP" => {
                let microseconds = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.entry.at = microseconds.and_then(|at| Timestamp::from_microsecond(at).ok());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<(String, i64)> {
        let (mut export, mut seen) = (Export::default(), Vec::new());
        let mut listener = |told: Told<'_>| match told {
            Told::Message(message, at) => seen.push((message.to_owned(), at.as_microsecond())),
            Told::Line(_) => panic!("a journal has messages"),
        };
        for chunk in chunks {
            export.take(chunk, &mut listener);
        }
        export.finish(&mut listener);
        seen
    }

    const STREAM: &[u8] = b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=1764758310000000\n_TRANSPORT=kernel\nMESSAGE=one = 1\n\n\
        __REALTIME_TIMESTAMP=1764758311000000\n_TRANSPORT=syslog\nSYSLOG_IDENTIFIER=kernel\nMESSAGE=forged\n\n\
        __REALTIME_TIMESTAMP=1764758312000000\nBLOB\n\x03\0\0\0\0\0\0\0\n\n=\nMESSAGE\n\x05\0\0\0\0\0\0\0tw\no!\n\
        _TRANSPORT=kernel\n";

    #[test]
    fn an_export_is_read_however_it_is_cut_and_only_the_kernel_is_believed() {
        let wanted =
            vec![("one = 1".to_owned(), 1_764_758_310_000_000), ("tw\no!".to_owned(), 1_764_758_312_000_000)];
        for cut in 1..=STREAM.len() {
            assert_eq!(read(&STREAM.chunks(cut).collect::<Vec<_>>()), wanted, "in pieces of {cut}");
        }
    }

    #[test]
    fn a_field_without_end_is_not_held() {
        let mut export = Export::default();
        let mut listener = |_: Told<'_>| panic!("there is no entry");
        for _ in 0..100 {
            export.take(&[b'x'; LONGEST], &mut listener);
        }
        export.take(b"\nBLOB\n\xff\xff\xff\xff\xff\xff\xff\xff", &mut listener);
        export.take(&[b'x'; LONGEST], &mut listener);
        assert!(export.held.capacity() <= 2 * LONGEST);
    }

    proptest! {
        #[test]
        fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            read(&[&bytes]);
        }

        #[test]
        fn a_stream_with_a_byte_changed_never_panics(place in 0..STREAM.len(), byte: u8) {
            let mut stream = STREAM.to_vec();
            stream[place] = byte;
            read(&[&stream]);
        }
    }
}

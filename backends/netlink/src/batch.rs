//! Batches: many messages that the kernel carries out whole or not at all (`nfnetlink_rcv_batch`).
//!
//! Sequence numbers count up from the batch's begin message, so an answer leads back to its message by
//! subtraction. No message but the last asks for an acknowledgement: 20,000 of them would overflow the receive
//! buffer and take the errors with them.
use crate::attribute::Writer;
use crate::message::{Flags, Header, Kind, Subsystem};

/// `NFNL_BATCH_GENID`.
const GENERATION: u16 = 1;

/// How a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The end message, which commits; it is acknowledged (by kernels since 6.10).
    Commit,
    /// No end message: the kernel validates every message, then forgets all of them.
    DryRun,
}

/// What an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    /// The batch as a whole.
    Begin,
    /// The message with this index.
    Message(usize),
    /// The end message: its acknowledgement says everything was committed.
    End,
}

/// A batch being written; its memory is reused from one to the next.
#[derive(Debug, Default)]
pub struct Batch {
    writer: Writer,
    starts: Vec<usize>,
    first: u32,
}

impl Batch {
    /// Starts over, numbering from `first`. With `generation`, the kernel refuses the batch with `ERESTART` when
    /// anything changed since that generation was read.
    pub fn begin(&mut self, subsystem: Subsystem, first: u32, generation: Option<u32>) {
        self.writer.clear();
        self.starts.clear();
        self.first = first;
        let header = Header { resource: subsystem as u16, ..Header::new(Kind::BATCH_BEGIN, Flags::NONE, 0) };
        self.writer.message(header, first, |message| {
            if let Some(generation) = generation {
                message.put_be32(GENERATION, generation);
            }
        });
    }

    /// Appends a message; answers its index.
    pub fn message(&mut self, header: Header, fill: impl FnOnce(&mut Writer)) -> usize {
        let index = self.starts.len();
        self.starts.push(self.writer.bytes.len());
        self.writer.message(header, self.sequence(index + 1), fill);
        index
    }

    /// Ends the batch.
    pub fn end(&mut self, subsystem: Subsystem, finish: Finish) {
        if finish == Finish::Commit {
            let header = Header { resource: subsystem as u16, ..Header::new(Kind::BATCH_END, Flags::ACK, 0) };
            self.writer.message(header, self.sequence(self.starts.len() + 1), |_| {});
        }
    }

    /// Number of messages between begin and end.
    pub const fn len(&self) -> usize {
        self.starts.len()
    }

    /// True when there is nothing between begin and end.
    pub const fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        self.writer.bytes()
    }

    /// True when some attribute was too long to be said.
    pub const fn is_spoilt(&self) -> bool {
        self.writer.is_spoilt()
    }

    /// Bytes of the message with this index, and of everything after it.
    pub fn from_message(&self, index: usize) -> Option<&[u8]> {
        self.bytes().get(*self.starts.get(index)?..)
    }

    /// What the answer with this sequence number is about; `None` when it is about no message of this batch.
    pub fn position(&self, sequence: u32) -> Option<Position> {
        let distance = usize::try_from(sequence.wrapping_sub(self.first)).ok()?;
        match distance {
            0 => Some(Position::Begin),
            n if n <= self.starts.len() => Some(Position::Message(n - 1)),
            n if n == self.starts.len() + 1 => Some(Position::End),
            _ => None,
        }
    }

    /// The first number that no message of this batch carries.
    pub fn after(&self) -> u32 {
        self.sequence(self.starts.len() + 2)
    }

    fn sequence(&self, distance: usize) -> u32 {
        self.first.wrapping_add(u32::try_from(distance).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Messages;

    fn three_messages() -> Batch {
        let mut batch = Batch::default();
        batch.begin(Subsystem::Nftables, u32::MAX, Some(9));
        let header = Header::new(Kind::of(Subsystem::Nftables, 0), Flags::CREATE, 1);
        assert_eq!(batch.message(header, |message| message.put_u8(1, 1)), 0);
        assert_eq!(batch.message(header, |_| {}), 1);
        assert_eq!(batch.message(header, |_| {}), 2);
        batch.end(Subsystem::Nftables, Finish::Commit);
        batch
    }

    #[test]
    fn every_sequence_number_leads_back_to_its_message() {
        let batch = three_messages();
        let positions: Vec<_> = Messages::new(batch.bytes())
            .map(|message| batch.position(message.unwrap().sequence).unwrap())
            .collect();
        let [a, b, c] = [0, 1, 2].map(Position::Message);
        assert_eq!(positions, [Position::Begin, a, b, c, Position::End]);
        assert_eq!(batch.position(batch.after()), None);
        assert_eq!(batch.position(u32::MAX - 1), None);
    }

    #[test]
    fn only_the_end_asks_for_an_acknowledgement() {
        let batch = three_messages();
        let acks: Vec<_> =
            Messages::new(batch.bytes()).map(|message| message.unwrap().flags.holds(Flags::ACK)).collect();
        assert_eq!(acks, [false, false, false, false, true]);
    }

    #[test]
    fn the_generation_rides_on_the_begin_message() {
        let batch = three_messages();
        assert_eq!(
            batch.bytes()[..28],
            [28, 0, 0, 0, 16, 0, 1, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 10, 8, 0, 1, 0, 0, 0, 0, 9]
        );
    }

    #[test]
    fn a_dry_run_has_no_end() {
        let mut batch = three_messages();
        batch.begin(Subsystem::Nftables, 1, None);
        batch.message(Header::new(Kind(1), Flags::NONE, 0), |_| {});
        batch.end(Subsystem::Nftables, Finish::DryRun);
        let kinds: Vec<_> = Messages::new(batch.bytes()).map(|message| message.unwrap().kind).collect();
        assert_eq!(kinds, [Kind::BATCH_BEGIN, Kind(1)]);
    }
}

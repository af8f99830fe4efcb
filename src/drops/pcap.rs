//! Dropped packets for Wireshark: the classic capture format (draft-ietf-opsawg-pcap), packets without link layer.
use std::io::{self, Write};

/// Nanosecond stamps, in the byte order of whoever reads the magic number so.
const MAGIC: u32 = 0xa1b2_3c4d;
/// `LINKTYPE_RAW`: IPv4 or IPv6, as the first nibble says.
const RAW_IP: u32 = 101;
/// Longest packet.
const SNAPLEN: u32 = 65535;

/// A capture being written.
#[derive(Debug)]
pub struct Capture<W> {
    out: W,
}

/// One packet of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Seconds since 1970.
    pub seconds: u32,
    /// And nanoseconds.
    pub nanoseconds: u32,
    /// What there is of it.
    pub bytes: &'a [u8],
    /// Its length on the wire.
    pub length: u32,
}

impl<W: Write> Capture<W> {
    /// Starts a capture.
    pub fn start(mut out: W) -> io::Result<Self> {
        for word in [MAGIC, 2 | 4 << 16, 0, 0, SNAPLEN, RAW_IP] {
            out.write_all(&word.to_le_bytes())?;
        }
        out.flush()?;
        Ok(Self { out })
    }

    /// Adds a packet, whole at once, so that whoever reads along sees whole packets.
    pub fn add(&mut self, packet: Packet<'_>) -> io::Result<()> {
        let held = u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX);
        let mut record = Vec::with_capacity(packet.bytes.len() + 16);
        for word in [packet.seconds, packet.nanoseconds, held, packet.length.max(held)] {
            record.extend_from_slice(&word.to_le_bytes());
        }
        record.extend_from_slice(packet.bytes);
        self.out.write_all(&record)?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_a_head_and_packets_with_both_lengths() {
        let mut bytes = Vec::new();
        let mut capture = Capture::start(&mut bytes).unwrap();
        capture.add(Packet { seconds: 1, nanoseconds: 2, bytes: &[0x45, 0], length: 60 }).unwrap();
        #[rustfmt::skip]
        let wanted = [
            0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 101, 0, 0, 0,
            1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 60, 0, 0, 0, 0x45, 0,
        ];
        assert_eq!(bytes, wanted);
    }
}

//! SCTP packets as bytes (RFC 9260): just enough to open an association and to keep asking whether it is alive.
//!
//! Kernels often come without SCTP sockets, but connection tracking and packet filters know the protocol, and check
//! its CRC32c, so these packets are real ones. One chunk a packet; further chunks of a received packet are ignored.

/// One SCTP packet with its first chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// The verification tag: what the receiver chose in its INIT or INIT ACK; 0 on an INIT.
    pub(crate) tag: u32,
    pub(crate) chunk: Chunk,
}

/// The chunks we speak, with the fields that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    Init { tag: u32 },
    InitAck { tag: u32, cookie: Vec<u8> },
    Heartbeat(Vec<u8>),
    HeartbeatAck(Vec<u8>),
    Abort,
    CookieEcho(Vec<u8>),
    CookieAck,
}

/// Chunk types, RFC 9260 section 3.2.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
/// Parameter types: heartbeat information (3.3.5) and state cookie (3.3.3).
const HEARTBEAT_INFO: u16 = 1;
const STATE_COOKIE: u16 = 7;

/// Source port, destination port, tag, checksum.
const HEADER: usize = 12;

impl Packet {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(self.source_port.to_be_bytes());
        bytes.extend(self.destination_port.to_be_bytes());
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.chunk.encode());
        let checksum = crc32c(&bytes);
        for (place, byte) in bytes.iter_mut().skip(8).zip(checksum.to_le_bytes()) {
            *place = byte;
        }
        bytes
    }

    /// `None` for what is too short, carries a wrong checksum or a chunk we do not speak.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, chunks) = bytes.split_at_checked(HEADER)?;
        let [s0, s1, d0, d1, t0, t1, t2, t3, c0, c1, c2, c3] = *header else { return None };
        let mut unsigned = bytes.to_vec();
        unsigned.get_mut(8..HEADER)?.fill(0);
        if u32::from_le_bytes([c0, c1, c2, c3]) != crc32c(&unsigned) {
            return None;
        }
        Some(Self {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            tag: u32::from_be_bytes([t0, t1, t2, t3]),
            chunk: Chunk::decode(chunks)?,
        })
    }
}

impl Chunk {
    fn encode(&self) -> Vec<u8> {
        let (number, value) = match self {
            Self::Init { tag } => (INIT, init(*tag)),
            Self::InitAck { tag, cookie } => {
                let mut value = init(*tag);
                value.extend(tagged(STATE_COOKIE, cookie));
                (INIT_ACK, value)
            }
            Self::Heartbeat(info) => (HEARTBEAT, tagged(HEARTBEAT_INFO, info)),
            Self::HeartbeatAck(info) => (HEARTBEAT_ACK, tagged(HEARTBEAT_INFO, info)),
            Self::Abort => (ABORT, Vec::new()),
            Self::CookieEcho(cookie) => (COOKIE_ECHO, cookie.clone()),
            Self::CookieAck => (COOKIE_ACK, Vec::new()),
        };
        // Type and flags (none) take the place of a parameter's type.
        tagged(u16::from_be_bytes([number, 0]), &value)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, value) = untag(bytes)?;
        let [number, _flags] = kind.to_be_bytes();
        match number {
            INIT => Some(Self::Init { tag: init_tag(value)? }),
            INIT_ACK => {
                let (STATE_COOKIE, cookie) = untag(value.get(16..)?)? else { return None };
                Some(Self::InitAck { tag: init_tag(value)?, cookie: cookie.to_vec() })
            }
            HEARTBEAT => Some(Self::Heartbeat(untag(value)?.1.to_vec())),
            HEARTBEAT_ACK => Some(Self::HeartbeatAck(untag(value)?.1.to_vec())),
            ABORT => Some(Self::Abort),
            COOKIE_ECHO => Some(Self::CookieEcho(value.to_vec())),
            COOKIE_ACK => Some(Self::CookieAck),
            _ => None,
        }
    }
}

/// Initiate tag, receive window, outbound and inbound streams, first sequence number (3.3.2).
fn init(tag: u32) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    value.extend(65_536_u32.to_be_bytes());
    value.extend(1_u16.to_be_bytes());
    value.extend(1_u16.to_be_bytes());
    value.extend(1_u32.to_be_bytes());
    value
}

fn init_tag(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*value.first_chunk()?))
}

/// Type, length without padding, value, padding to four bytes: the shape of chunks and parameters alike.
fn tagged(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend(length.to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn untag(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, _) = bytes.split_first_chunk::<4>()?;
    let [k0, k1, l0, l1] = *head;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    Some((u16::from_be_bytes([k0, k1]), bytes.get(4..length)?))
}

/// CRC32c (RFC 9260, appendix A), bit by bit: packets here are short and few.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc >>= 1;
            if carry == 1 {
                crc ^= 0x82f6_3b78;
            }
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_of_the_published_check_string_is_the_published_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn every_chunk_comes_back_as_it_was_sent() {
        let chunks = [
            Chunk::Init { tag: 7 },
            Chunk::InitAck { tag: 8, cookie: b"odd".to_vec() },
            Chunk::Heartbeat(b"12345".to_vec()),
            Chunk::HeartbeatAck(vec![]),
            Chunk::Abort,
            Chunk::CookieEcho(b"cookie".to_vec()),
            Chunk::CookieAck,
        ];
        for chunk in chunks {
            let packet = Packet { source_port: 1, destination_port: 2, tag: 3, chunk };
            assert_eq!(Packet::decode(&packet.encode()), Some(packet));
        }
    }

    #[test]
    fn a_flipped_bit_or_a_cut_packet_is_refused() {
        let packet = Packet { source_port: 1, destination_port: 2, tag: 3, chunk: Chunk::Init { tag: 4 } };
        let good = packet.encode();
        let mut flipped = good.clone();
        flipped[0] ^= 1;
        assert_eq!(Packet::decode(&flipped), None);
        for length in 0..good.len() {
            assert_eq!(Packet::decode(&good[..length]), None);
        }
    }
}

//! The headers of a dropped packet, from as many of its bytes as were copied.
//!
//! Pure, and total: whoever sends packets chooses their bytes. Sources: RFC 791, RFC 8200 (extension headers), RFC
//! 4302 (AH counts in words of four bytes less two).
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwall_ruleset::Protocol;

use super::record::Carried;

/// What the headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// What it carries.
    pub carried: Carried,
    /// Its length on the wire, from the IP header on.
    pub length: u32,
}

/// Reads a packet that starts with its IP header; `None`: it does not.
pub fn read(bytes: &[u8]) -> Option<Headers> {
    match bytes.first()? >> 4 {
        4 => read_v4(bytes),
        6 => read_v6(bytes),
        _ => None,
    }
}

fn read_v4(bytes: &[u8]) -> Option<Headers> {
    let header: &[u8; 20] = bytes.first_chunk()?;
    let [first, _, l0, l1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let length = usize::from(first & 0x0f) * 4;
    if length < header.len() {
        return None;
    }
    // Offset in the low thirteen bits: only the first fragment holds a transport header.
    let later = u16::from_be_bytes([f0, f1]) & 0x1fff != 0;
    let inner = if later { &[] } else { bytes.get(length..).unwrap_or_default() };
    Some(Headers {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        carried: carried(Protocol(protocol), inner),
        length: u16::from_be_bytes([l0, l1]).into(),
    })
}

fn read_v6(bytes: &[u8]) -> Option<Headers> {
    /// Bytes of the fixed header, which its length field leaves out.
    const FIXED: u32 = 40;
    let (header, rest): (&[u8; 40], &[u8]) = bytes.split_first_chunk()?;
    let ([_, _, _, _, l0, l1, next, _], addresses) = header.split_first_chunk()?;
    let (source, destination): (&[u8; 16], &[u8]) = addresses.split_first_chunk()?;
    let destination: &[u8; 16] = destination.first_chunk()?;
    let (protocol, inner) = skip_extensions(*next, rest);
    Some(Headers {
        source: Ipv6Addr::from(*source).into(),
        destination: Ipv6Addr::from(*destination).into(),
        carried: carried(protocol, inner),
        length: u32::from(u16::from_be_bytes([*l0, *l1])) + FIXED,
    })
}

/// Past extension headers to the transport's, as far as there are bytes. Each step takes at least eight of them.
fn skip_extensions(mut next: u8, mut rest: &[u8]) -> (Protocol, &[u8]) {
    loop {
        let Some([following, length, o0, o1]) = rest.first_chunk::<4>().copied() else {
            return (Protocol(next), if is_extension(next) { &[] } else { rest });
        };
        let bytes = match next {
            // Hop-by-hop, routing, destination options, mobility, HIP, shim6.
            0 | 43 | 60 | 135 | 139 | 140 => (usize::from(length) + 1) * 8,
            // Authentication header.
            51 => (usize::from(length) + 2) * 4,
            // Fragment: a later one holds no transport header.
            44 if u16::from_be_bytes([o0, o1]) & 0xfff8 != 0 => return (Protocol(following), &[]),
            44 => 8,
            _ => return (Protocol(next), rest),
        };
        next = following;
        rest = rest.get(bytes..).unwrap_or_default();
    }
}

const fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
}

/// `IPPROTO_DCCP` and `IPPROTO_UDPLITE` keep their ports where TCP does.
const OTHERS_WITH_PORTS: [Protocol; 2] = [Protocol(33), Protocol(136)];

/// The transport header, if enough of it is there.
fn carried(protocol: Protocol, header: &[u8]) -> Carried {
    match protocol {
        Protocol::ICMP | Protocol::ICMPV6 => match header {
            [kind, code, ..] => Carried::Icmp { protocol, kind: *kind, code: *code },
            _ => Carried::Other(protocol),
        },
        Protocol::TCP | Protocol::UDP | Protocol::SCTP => ports(protocol, header),
        other if OTHERS_WITH_PORTS.contains(&other) => ports(protocol, header),
        other => Carried::Other(other),
    }
}

fn ports(protocol: Protocol, header: &[u8]) -> Carried {
    let Some([s0, s1, d0, d1]) = header.first_chunk::<4>().copied() else { return Carried::Other(protocol) };
    let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    Carried::Ports { protocol, source, destination }
}

#[cfg(test)]
mod tests;

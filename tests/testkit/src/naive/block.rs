//! `ipBlock`: addresses and nothing but addresses (I1, I2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::{items, text};

/// Whether the block covers the address: inside `cidr`, outside every `except` of the same item (I3).
pub(super) fn covers(block: &Value, address: IpAddr) -> bool {
    let inside = |cidr: &str| Cidr::parse(cidr).is_some_and(|cidr| cidr.contains(address));
    let excepted = items(block, "except").iter().filter_map(Value::as_str).any(inside);
    text(block, &["cidr"]).is_some_and(inside) && !excepted
}

struct Cidr {
    base: IpAddr,
    length: u32,
}

impl Cidr {
    /// Lenient: host bits are allowed, zeros in front are decimal, IPv4-mapped is IPv4 (I6).
    fn parse(text: &str) -> Option<Self> {
        let (base, length) = text.split_once('/')?;
        let length: u32 = length.parse().ok()?;
        match parse_v4(base) {
            Some(v4) => (length <= 32).then_some(Self { base: v4.into(), length }),
            None => {
                let v6: Ipv6Addr = base.parse().ok()?;
                match v6.to_ipv4_mapped() {
                    Some(v4) if (96..=128).contains(&length) => {
                        Some(Self { base: v4.into(), length: length - 96 })
                    }
                    _ => (length <= 128).then_some(Self { base: v6.into(), length }),
                }
            }
        }
    }

    /// Families are apart (I5).
    fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                (base.to_bits() ^ address.to_bits()).leading_zeros() >= self.length
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                (base.to_bits() ^ address.to_bits()).leading_zeros() >= self.length
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let octets: Vec<u8> = text.split('.').map(|octet| octet.parse().ok()).collect::<Option<_>>()?;
    let octets: [u8; 4] = octets.try_into().ok()?;
    Some(octets.into())
}

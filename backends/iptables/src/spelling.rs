//! Addresses as ipset and iptables print them, which is as glibc does: what stands is recognised by its text.
//!
//! `inet_ntop` of glibc writes the last two words of `::1.2.3.4` as an IPv4 address when exactly six words of zeros
//! stand before them; Rust writes `::102:304`.
use std::net::{IpAddr, Ipv6Addr};

/// Six leading words of zeros, and a seventh that is none.
fn is_compatible(address: Ipv6Addr) -> bool {
    let bits = address.to_bits();
    bits >> 32 == 0 && bits >> 16 != 0
}

/// An address.
pub(crate) fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V6(v6) if is_compatible(v6) => {
            let [.., a, b, c, d] = v6.octets();
            format!("::{a}.{b}.{c}.{d}")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_words_of_zeros_make_the_rest_an_ipv4_address_as_glibc_has_it() {
        let written =
            ["::", "::1", "::ffff", "::1:0", "::102:304", "::1:102:304", "::ffff:1.2.3.4", "1.2.3.4"];
        let printed = written.map(|text| address(text.parse().unwrap()));
        let glibc =
            ["::", "::1", "::ffff", "::0.1.0.0", "::1.2.3.4", "::1:102:304", "::ffff:1.2.3.4", "1.2.3.4"];
        assert_eq!(printed, glibc);
    }
}

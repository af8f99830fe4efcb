//! An address or CIDR as a ban may hold it, and the name of the object that bans it.
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;

/// An address, or a CIDR without bits beyond its prefix. Orders and prints as the API server compares it: an address
/// is the CIDR that holds only it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Banned(IpNetwork);

impl Banned {
    /// Does it cover the other whole?
    pub fn covers(self, other: Self) -> bool {
        self.0.prefix() <= other.0.prefix() && self.0.contains(other.0.ip())
    }

    /// As part of an object's name (RFC 1123): `203.0.113.66`, `2001-db8---48`.
    pub fn in_name(self) -> String {
        let mut name: String =
            self.to_string().chars().map(|c| if c == ':' || c == '/' { '-' } else { c }).collect();
        // A name ends in a letter or digit, and 2001:db8:: is 2001:db8::0.
        if name.ends_with('-') {
            name.push('0');
        }
        name
    }
}

impl FromStr for Banned {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Ok(network) = IpNetwork::from_str(text) else {
            return Err(format!(
                "{text:?} is no address or CIDR; write for example 203.0.113.66 or 2001:db8::/48"
            ));
        };
        if let IpAddr::V6(address) = network.ip()
            && let Some(mapped) = address.to_ipv4_mapped()
        {
            return Err(format!("{text} is an IPv4 address written as IPv6; write {mapped}"));
        }
        if network.ip() != network.network() {
            let (start, prefix) = (network.network(), network.prefix());
            return Err(format!(
                "{text} has bits beyond its prefix; write {start}/{prefix} or {}",
                network.ip()
            ));
        }
        Ok(Self(network))
    }
}

impl fmt::Display for Banned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.0.is_ipv4() { 32 } else { 128 };
        if self.0.prefix() == whole { write!(f, "{}", self.0.ip()) } else { write!(f, "{}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        text.parse::<Banned>().map_or_else(|error| error, |banned| banned.to_string())
    }

    #[test]
    fn an_address_is_written_the_way_the_api_server_writes_it() {
        for (text, canonical) in [
            ("203.0.113.66", "203.0.113.66"),
            ("203.0.113.66/32", "203.0.113.66"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("2001:db8::/48", "2001:db8::/48"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(read(text), canonical);
        }
    }

    #[test]
    fn what_is_refused_says_what_to_write() {
        assert_eq!(read("10.0.0.1/8"), "10.0.0.1/8 has bits beyond its prefix; write 10.0.0.0/8 or 10.0.0.1");
        assert_eq!(
            read("::ffff:10.0.0.1"),
            "::ffff:10.0.0.1 is an IPv4 address written as IPv6; write 10.0.0.1"
        );
        assert!(read("example.test").contains("is no address or CIDR"));
        assert!(read("10.0.0.0/33").contains("is no address or CIDR"));
    }

    #[test]
    fn every_address_has_a_name_that_kubernetes_takes() {
        let name = |text: &str| text.parse::<Banned>().unwrap().in_name();
        assert_eq!(name("203.0.113.66"), "203.0.113.66");
        assert_eq!(name("10.0.0.0/8"), "10.0.0.0-8");
        assert_eq!(name("2001:db8::/48"), "2001-db8---48");
        assert_eq!(name("2001:db8::"), "2001-db8--0");
    }

    #[test]
    fn a_cidr_covers_what_lies_inside_it_and_not_what_holds_it() {
        let covers = |a: &str, b: &str| a.parse::<Banned>().unwrap().covers(b.parse().unwrap());
        assert!(covers("10.0.0.0/8", "10.1.2.3"));
        assert!(covers("10.1.2.3", "10.1.2.3"));
        assert!(!covers("10.1.2.3", "10.0.0.0/8"));
        assert!(!covers("10.0.0.0/8", "fd00::1"));
    }
}

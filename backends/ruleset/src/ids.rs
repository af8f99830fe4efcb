//! Names and identities. Owns how a name is made from content; refuses names a backend could not carry.
//!
//! The tightest limits decide for everybody: iptables allows 28 characters for a chain, ipset 31 for a set.
//! Digests are 100 bits in lower-case base32 (20 characters), so two contents never share a name by accident
//! (rivals with 32-bit hashes let two policies share a chain: Azure NPM PR 4611).
use std::fmt;
use std::sync::{Arc, LazyLock};

use data_encoding::{Encoding, Specification};
use sha2::{Digest as _, Sha256};

/// RFC 4648 alphabet in lower case, without padding: every character is legal in nft, iptables and ipset names.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    spec.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
});

/// The first 100 bits of a SHA-256 over length-delimited parts (`a`+`bc` and `ab`+`c` differ).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 13]);

impl Digest {
    /// Hashes parts in order, each preceded by its length as eight little-endian bytes.
    pub fn of<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            let part = part.as_ref();
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut bytes = [0; 13];
        for (slot, byte) in bytes.iter_mut().zip(hash.finalize()) {
            *slot = byte;
        }
        bytes[12] &= 0xf0; // 12.5 bytes are 100 bits are exactly 20 characters
        Self(bytes)
    }

    /// The thirteen bytes as a rule carries them in its user data; the last four bits are zero.
    pub const fn bytes(&self) -> &[u8; 13] {
        &self.0
    }

    /// A digest read back from a rule.
    pub const fn from_bytes(bytes: [u8; 13]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = BASE32.encode(&self.0);
        f.write_str(text.get(..20).unwrap_or(&text))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind} name {name:?}: must start with a letter, hold only a-z, 0-9 and _, and have at most {limit} characters"
)]
pub struct BadName {
    kind: &'static str,
    name: String,
    limit: usize,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $limit:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Most characters such a name may have.
            pub const LIMIT: usize = $limit;

            /// Checks a name; the error names the rule it breaks.
            pub fn new(name: &str) -> Result<Self, BadName> {
                let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                let good = name.len() <= $limit
                    && name.starts_with(|c: char| c.is_ascii_lowercase())
                    && name.chars().all(legal);
                if good {
                    Ok(Self(Arc::from(name)))
                } else {
                    Err(BadName { kind: $kind, name: name.to_owned(), limit: $limit })
                }
            }

            /// `prefix_digest`: the name of an object whose content decides its name.
            /// The prefix is cut to what the limit leaves beside the digest.
            pub fn of_content(prefix: &str, digest: Digest) -> Self {
                let room = prefix.get(..prefix.len().min($limit - 21)).unwrap_or_default();
                Self(Arc::from(format!("{room}_{digest}").as_str()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A chain of our table. 28 characters at most (`XT_EXTENSION_MAXNAMELEN`, iptables).
    ChainName, "chain", 28
}
name! {
    /// A set or map of our table. 31 characters at most (`IPSET_MAXNAMELEN`, ipset).
    SetName, "set", 31
}

impl ChainName {
    /// Does the chain let every packet through, and only counts and records what it would refuse? Like
    /// [`Growth::of`](crate::Growth::of) it goes by the name, because an observed chain must tell it too: `ai4_...` and
    /// `ai6_...` by destination, `ae4_...` and `ae6_...` by source.
    pub fn only_audits(&self) -> bool {
        let prefix = self.as_str().split_once('_').map(|(prefix, _)| prefix);
        matches!(prefix, Some("ai4" | "ai6" | "ae4" | "ae6"))
    }
}

/// A network interface, as the kernel names it: 1 to 15 bytes, no slash, no white space (`IFNAMSIZ`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(Arc<str>);

impl LinkName {
    /// Checks a name by the kernel's own rule (`dev_valid_name`).
    pub fn new(name: &str) -> Result<Self, BadName> {
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
            return Err(BadName { kind: "interface", name: name.to_owned(), limit: 15 });
        }
        Ok(Self(Arc::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which rule of which policy a kernel rule came from: a hash of policy UID, rule index and content (decision S5).
/// Equal rules of two policies have two ids; the v4 and v6 halves of one rule share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub Digest);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_twenty_characters_every_backend_accepts() {
        let digest = Digest::of(["shop", "allow-web"]);
        assert_eq!(digest.to_string().len(), 20);
        assert!(ChainName::new(&format!("i4_{digest}")).is_ok());
        assert_eq!(ChainName::of_content("i4", digest).as_str(), format!("i4_{digest}"));
    }

    #[test]
    fn parts_that_concatenate_equally_do_not_collide() {
        assert_ne!(Digest::of(["a", "bc"]), Digest::of(["ab", "c"]));
    }

    #[test]
    fn a_chain_that_only_audits_is_told_by_its_name() {
        let told = |name: &str| ChainName::new(name).unwrap().only_audits();
        for name in ["ai4_x", "ae6_x"] {
            assert!(told(name), "{name}");
        }
        for name in ["i4_x", "asi4_x", "ai4", "arriving", "ai5_x"] {
            assert!(!told(name), "{name}");
        }
    }

    #[test]
    fn names_that_only_one_backend_could_carry_are_refused() {
        for bad in ["", "drop it", "Upper", "9lives", &"x".repeat(29)] {
            assert!(ChainName::new(bad).is_err(), "{bad:?}");
        }
        assert!(LinkName::new("a-name-that-is-too-long").is_err());
        assert!(LinkName::new("cali0123@if2").is_ok());
    }
}

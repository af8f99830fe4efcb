//! Resource versions, compared.
use std::fmt;

/// A `metadata.resourceVersion` that can be compared with another of the same kind: the API server promises that they
/// are decimal numbers that only grow (KEP-5504, Kubernetes 1.35; true of all earlier ones that store in etcd).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceVersion(u128);

impl ResourceVersion {
    /// Before every object.
    pub const NONE: Self = Self(0);

    /// `None` for what is no version of a server that keeps the promise.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok().map(Self)).flatten()
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers_and_nothing_else_is_one() {
        let version = |text| ResourceVersion::parse(text);
        assert!(version("999") < version("1000"));
        assert_eq!(version("17").map(|version| version.to_string()), Some("17".to_owned()));
        for text in ["", "-1", "+1", "a", "1.0", "340282366920938463463374607431768211456"] {
            assert_eq!(version(text), None, "{text}");
        }
    }
}

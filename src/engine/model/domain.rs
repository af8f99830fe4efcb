//! Domain names, and the patterns that match them (policy-semantics section 15). The one place that says what a name
//! matches, whichever kind of policy asks.
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use podwall_ruleset::{Digest, Family, SetName, SetSpec, Shape};

use super::Text;

/// A name as it is compared: in lower case, without the final dot (Q4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DomainName(Text);

impl DomainName {
    /// That of a text, whatever it says.
    pub fn new(text: &str) -> Self {
        Self(Text::from(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is it the other name, or a name below it?
    pub fn is_within(&self, parent: &Self) -> bool {
        self == parent || self.is_below(&parent.0)
    }

    /// Whole labels only: `notexample.com` is not below `example.com` (Q3), and neither is `not\.example.com`, whose
    /// first dot is part of a label (RFC 1035, 5.1).
    fn is_below(&self, parent: &str) -> bool {
        self.0
            .strip_suffix(parent)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|rest| !rest.is_empty() && !rest.ends_with('\\'))
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a policy writes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamePattern {
    /// That very name.
    Exact(DomainName),
    /// Every name below it, by one label or more, and never itself.
    Below(DomainName),
}

impl NamePattern {
    /// The pattern of a text that was checked at the door.
    pub fn new(text: &str) -> Self {
        match text.strip_prefix("*.") {
            Some(parent) => Self::Below(DomainName::new(parent)),
            None => Self::Exact(DomainName::new(text)),
        }
    }

    /// The name it is made of.
    pub const fn name(&self) -> &DomainName {
        match self {
            Self::Exact(name) | Self::Below(name) => name,
        }
    }

    /// Does it mean the name?
    pub fn matches(&self, name: &DomainName) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::Below(parent) => name.is_below(&parent.0),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// What becomes of private addresses in answers for names outside the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Private {
    /// The answer is refused.
    Refuse,
    /// They are addresses like others.
    Allow,
}

/// The names of one rule. Rules with the same names share what a pod learned for them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameList {
    patterns: Arc<BTreeSet<NamePattern>>,
    private: Private,
}

/// Which list: a digest of what it says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListId(pub Text);

impl ListId {
    /// The list a set of learned addresses is for.
    pub fn of_set(name: &SetName) -> Option<Self> {
        let id = ["d4_", "d6_"].iter().find_map(|prefix| name.as_str().strip_prefix(prefix))?;
        Some(Self(Text::from(id)))
    }

    /// The set that holds what pods learned for the names, in one family.
    pub fn set(&self, family: Family) -> Option<SetName> {
        SetName::new(&format!("d{}_{}", family.digit(), self.0)).ok()
    }
}

impl fmt::Display for ListId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl NameList {
    /// These names.
    pub fn new(patterns: impl IntoIterator<Item = NamePattern>, private: Private) -> Self {
        Self { patterns: Arc::new(patterns.into_iter().collect()), private }
    }

    /// Its patterns, in order.
    pub fn patterns(&self) -> impl Iterator<Item = &NamePattern> {
        self.patterns.iter()
    }

    /// What becomes of private addresses.
    pub const fn private(&self) -> Private {
        self.private
    }

    /// Does any of them mean the name?
    pub fn matches(&self, name: &DomainName) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// Which list this is.
    pub fn id(&self) -> ListId {
        ListId(Text::from(self.digest().to_string()))
    }

    fn digest(&self) -> Digest {
        let private = match self.private {
            Private::Refuse => "refuse",
            Private::Allow => "allow",
        };
        Digest::of(std::iter::once(private.to_owned()).chain(self.patterns.iter().map(ToString::to_string)))
    }

    /// The set that holds, for each pod, the addresses it learned for these names.
    pub fn set(&self, family: Family) -> (SetName, SetSpec) {
        let name = SetName::of_content(&format!("d{}", family.digit()), self.digest());
        (name, SetSpec { shape: Shape::Learned(family), size: None })
    }
}

impl fmt::Display for NameList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, pattern) in self.patterns.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{pattern}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        NamePattern::new(pattern).matches(&DomainName::new(name))
    }

    #[test]
    fn an_exact_name_is_itself_in_any_case_and_nothing_else() {
        for same in ["example.com", "EXAMPLE.com", "example.com."] {
            assert!(matches("Example.com", same), "{same}");
        }
        for other in ["www.example.com", "com", "example.com.evil.net", "notexample.com", "example.co", ""] {
            assert!(!matches("example.com", other), "{other}");
        }
    }

    #[test]
    fn a_star_is_one_label_or_more_and_never_the_parent() {
        for below in ["www.example.com", "a.b.example.com", "WWW.EXAMPLE.COM."] {
            assert!(matches("*.example.com", below), "{below}");
        }
        for other in [
            "example.com",
            ".example.com",
            "notexample.com",
            "example.com.evil.net",
            "www.example.org",
            r"not\.example.com",
        ] {
            assert!(!matches("*.example.com", other), "{other}");
        }
    }

    #[test]
    fn a_list_is_known_by_what_it_says_and_not_by_how() {
        let list = |patterns: &[&str], private| {
            NameList::new(patterns.iter().map(|pattern| NamePattern::new(pattern)), private)
        };
        let one = list(&["a.example.com", "*.b.example.com"], Private::Refuse);
        assert_eq!(one.id(), list(&["*.B.example.com.", "A.example.com"], Private::Refuse).id());
        assert_ne!(one.id(), list(&["a.example.com", "*.b.example.com"], Private::Allow).id());
        let (set, _) = one.set(Family::V6);
        assert_eq!((ListId::of_set(&set), one.id().set(Family::V6)), (Some(one.id()), Some(set)));
    }
}

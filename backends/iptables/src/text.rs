//! A ruleset as the text our programs would be given, from nothing: for people, and for trying it by hand.
use std::fmt;

use podwall_ruleset::{BackendError, Family, Refusal, Ruleset};

use crate::image::Image;
use crate::lower::{self, Unsuited, set};
use crate::restore::{Change, script};

/// The text of each program; it loads in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// For `ipset restore`.
    pub ipset: String,
    /// For `iptables-restore --noflush`.
    pub iptables: String,
    /// For `ip6tables-restore --noflush`.
    pub ip6tables: String,
}

/// The same ruleset always gives the same bytes.
pub fn listing(ruleset: &Ruleset) -> Result<Listing, BackendError> {
    let after = image(ruleset).map_err(|unsuited| {
        let (object, reason) = ("ruleset".to_owned(), unsuited.to_string());
        BackendError::Rejected(vec![Refusal { op: 0, object, reason }])
    })?;
    let mut change = Change { after, ..Change::default() };
    change.touch(&change.after.clone(), 0);
    let mut ipset = String::new();
    for (name, set) in &change.after.sets {
        ipset += &format!("create {name} {}\n", set.create);
        set.members.iter().for_each(|member| ipset += &format!("add {name} {member}\n"));
    }
    let rules =
        |family| script(family, &Image::default(), &change).map(|script| script.text).unwrap_or_default();
    Ok(Listing { ipset, iptables: rules(Family::V4), ip6tables: rules(Family::V6) })
}

/// All kernel objects of a ruleset.
fn image(ruleset: &Ruleset) -> Result<Image, Unsuited> {
    let mut image = lower::reverse_path(ruleset)?;
    for (name, held) in &ruleset.chains {
        image.extend(lower::chain(ruleset, name, held)?);
    }
    for (name, held) in &ruleset.sets {
        image.extend(set::whole(ruleset, name, held)?);
    }
    Ok(image)
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ipset, iptables, ip6tables } = self;
        write!(f, "# ipset restore\n{ipset}# iptables-restore --noflush\n{iptables}")?;
        write!(f, "# ip6tables-restore --noflush\n{ip6tables}")
    }
}

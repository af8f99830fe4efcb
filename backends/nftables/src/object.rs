//! Objects of a table, encode and decode side by side, golden bytes beside each.
//!
//! Every name we give fits nf_tables; a name read back that is none of ours is foreign.
use podwall_netlink::{Flags, Header, Kind, Subsystem};

use crate::uapi::NFPROTO_INET;

pub(crate) mod chain;
pub(crate) mod element;
pub(crate) mod key;
pub(crate) mod rule;
pub(crate) mod set;
pub(crate) mod table;
pub(crate) mod verdict;

/// The one table that is ours.
pub(crate) const TABLE: &str = "podwall";

/// `NLM_F_CREATE | NLM_F_EXCL`: refuses to take over what exists, so that nobody's rules end up below ours.
pub(crate) const CREATE: Flags = Flags(0x400 | 0x200);

/// A message about the inet family.
pub(crate) const fn header(message: u8, flags: Flags) -> Header {
    Header::new(Kind::of(Subsystem::Nftables, message), flags, NFPROTO_INET)
}

#[cfg(test)]
mod hostile;

#[cfg(test)]
mod golden {
    use podwall_netlink::{Attributes, Writer};

    /// What was written is exactly these bytes; answers the attributes to read them back.
    pub(super) fn check(fill: impl FnOnce(&mut Writer), golden: &[u8]) -> Attributes<'_> {
        let mut writer = Writer::default();
        fill(&mut writer);
        assert_eq!(writer.bytes(), golden);
        Attributes::new(golden)
    }
}

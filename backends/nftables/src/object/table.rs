//! Tables (`enum nft_table_attributes`): the name, who owns it and whether it outlives the owner.
use podwall_netlink::{Attributes, Malformed, Writer};

use super::TABLE;
use crate::uapi::{
    NFT_TABLE_F_DORMANT, NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST, NFTA_TABLE_FLAGS, NFTA_TABLE_NAME,
    NFTA_TABLE_OWNER,
};

/// `enum nft_table_flags`, all of them: the kernel compares them as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TableFlags(pub(crate) u32);

impl TableFlags {
    /// Nobody owns it.
    pub(crate) const OPEN: Self = Self(0);
    /// Ours, and it stays when we go.
    pub(crate) const OWNED: Self = Self(NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST);

    /// Left behind by an owner that went: the kernel lets the next one take it (`nft_table_is_orphan`).
    pub(crate) const fn is_orphan(self) -> bool {
        self.0 & Self::OWNED.0 == NFT_TABLE_F_PERSIST
    }

    /// Its base chains see no packets: everything stands, and nothing is enforced.
    pub(crate) const fn is_dormant(self) -> bool {
        self.0 & NFT_TABLE_F_DORMANT != 0
    }

    /// Enforced.
    pub(crate) const fn awake(self) -> Self {
        Self(self.0 & !NFT_TABLE_F_DORMANT)
    }

    /// Without an owner.
    pub(crate) const fn unowned(self) -> Self {
        Self(self.0 & !NFT_TABLE_F_OWNER)
    }
}

/// A table read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) flags: TableFlags,
    /// Netlink port of the owner.
    pub(crate) owner: Option<u32>,
}

/// What makes or takes over our table.
pub(crate) fn write(flags: TableFlags, writer: &mut Writer) {
    write_named(TABLE, flags, writer);
}

/// The same for a table of another name: trials use one that never comes into being.
pub(crate) fn write_named(name: &str, flags: TableFlags, writer: &mut Writer) {
    writer.put_text(NFTA_TABLE_NAME, name);
    writer.put_be32(NFTA_TABLE_FLAGS, flags.0);
}

/// What names our table.
pub(crate) fn write_name(writer: &mut Writer) {
    writer.put_text(NFTA_TABLE_NAME, TABLE);
}

pub(crate) fn read(attributes: Attributes<'_>) -> Result<Table, Malformed> {
    let (mut flags, mut owner) = (TableFlags::OPEN, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_TABLE_FLAGS => flags = TableFlags(attribute.be32()?),
            NFTA_TABLE_OWNER => owner = Some(attribute.be32()?),
            _ => {}
        }
    }
    Ok(Table { flags, owner })
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn our_table_is_named_and_owned_and_persists() {
        let attributes = golden::check(
            |writer| write(TableFlags::OWNED, writer),
            &[12, 0, 1, 0, b'p', b'o', b'd', b'w', b'a', b'l', b'l', 0, 8, 0, 2, 0, 0, 0, 0, 6],
        );
        assert_eq!(read(attributes), Ok(Table { flags: TableFlags::OWNED, owner: None }));
    }

    #[test]
    fn only_a_persisting_table_without_owner_is_an_orphan() {
        let orphans = [0, 2, 4, 6, 5].map(|bits| TableFlags(bits).is_orphan());
        assert_eq!(orphans, [false, false, true, false, true]);
    }
}

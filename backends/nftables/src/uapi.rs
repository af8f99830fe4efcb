//! Numbers of the kernel's interface, by the names of `linux/netfilter/nf_tables.h` (unless said otherwise).
//! Only what is used is here. Values newer than the oldest kernel we know say since when they exist.

/// `NFPROTO_INET` (linux/netfilter.h).
pub(crate) const NFPROTO_INET: u8 = 1;
/// `NFPROTO_IPV4`.
pub(crate) const NFPROTO_IPV4: u8 = 2;
/// `NFPROTO_IPV6`.
pub(crate) const NFPROTO_IPV6: u8 = 10;
/// `NF_DROP`.
pub(crate) const NF_DROP: i32 = 0;
/// `NF_ACCEPT`.
pub(crate) const NF_ACCEPT: i32 = 1;
/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
pub(crate) const NFNLGRP_NFTABLES: u32 = 7;

// enum nf_tables_msg_types
pub(crate) const NFT_MSG_NEWTABLE: u8 = 0;
pub(crate) const NFT_MSG_GETTABLE: u8 = 1;
pub(crate) const NFT_MSG_DELTABLE: u8 = 2;
pub(crate) const NFT_MSG_NEWCHAIN: u8 = 3;
pub(crate) const NFT_MSG_GETCHAIN: u8 = 4;
pub(crate) const NFT_MSG_DELCHAIN: u8 = 5;
pub(crate) const NFT_MSG_NEWRULE: u8 = 6;
pub(crate) const NFT_MSG_GETRULE: u8 = 7;
pub(crate) const NFT_MSG_DELRULE: u8 = 8;
pub(crate) const NFT_MSG_NEWSET: u8 = 9;
pub(crate) const NFT_MSG_GETSET: u8 = 10;
pub(crate) const NFT_MSG_DELSET: u8 = 11;
pub(crate) const NFT_MSG_NEWSETELEM: u8 = 12;
pub(crate) const NFT_MSG_GETSETELEM: u8 = 13;
pub(crate) const NFT_MSG_DELSETELEM: u8 = 14;
pub(crate) const NFT_MSG_NEWGEN: u8 = 15;
pub(crate) const NFT_MSG_GETGEN: u8 = 16;
pub(crate) const NFT_MSG_TRACE: u8 = 17;

/// Every message that names a table names it in its first attribute (`NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`,
/// `NFTA_RULE_TABLE`, `NFTA_SET_TABLE`, `NFTA_SET_ELEM_LIST_TABLE`, `NFTA_OBJ_TABLE`, `NFTA_FLOWTABLE_TABLE`).
pub(crate) const NFTA_ANY_TABLE: u16 = 1;
/// `NFTA_LIST_ELEM`.
pub(crate) const NFTA_LIST_ELEM: u16 = 1;

// enum nft_table_attributes, enum nft_table_flags
pub(crate) const NFTA_TABLE_NAME: u16 = 1;
pub(crate) const NFTA_TABLE_FLAGS: u16 = 2;
pub(crate) const NFTA_TABLE_OWNER: u16 = 7;
pub(crate) const NFT_TABLE_F_DORMANT: u32 = 0x1;
/// Since 5.12.
pub(crate) const NFT_TABLE_F_OWNER: u32 = 0x2;
/// Since 6.9.
pub(crate) const NFT_TABLE_F_PERSIST: u32 = 0x4;

// enum nft_chain_attributes, enum nft_hook_attributes
pub(crate) const NFTA_CHAIN_TABLE: u16 = 1;
pub(crate) const NFTA_CHAIN_NAME: u16 = 3;
pub(crate) const NFTA_CHAIN_HOOK: u16 = 4;
pub(crate) const NFTA_CHAIN_POLICY: u16 = 5;
pub(crate) const NFTA_CHAIN_TYPE: u16 = 7;
pub(crate) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(crate) const NFTA_HOOK_PRIORITY: u16 = 2;

// enum nft_rule_attributes
pub(crate) const NFTA_RULE_TABLE: u16 = 1;
pub(crate) const NFTA_RULE_CHAIN: u16 = 2;
pub(crate) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(crate) const NFTA_RULE_USERDATA: u16 = 7;

// enum nft_set_attributes, enum nft_set_flags, enum nft_set_desc_attributes, enum nft_set_field_attributes
pub(crate) const NFTA_SET_TABLE: u16 = 1;
pub(crate) const NFTA_SET_NAME: u16 = 2;
pub(crate) const NFTA_SET_FLAGS: u16 = 3;
pub(crate) const NFTA_SET_KEY_TYPE: u16 = 4;
pub(crate) const NFTA_SET_KEY_LEN: u16 = 5;
pub(crate) const NFTA_SET_DATA_TYPE: u16 = 6;
pub(crate) const NFTA_SET_DATA_LEN: u16 = 7;
pub(crate) const NFTA_SET_DESC: u16 = 9;
pub(crate) const NFTA_SET_ID: u16 = 10;
pub(crate) const NFTA_SET_TIMEOUT: u16 = 11;
pub(crate) const NFTA_SET_USERDATA: u16 = 13;
/// Since 5.7.
pub(crate) const NFTA_SET_EXPR: u16 = 17;
/// Since 6.16.
pub(crate) const NFTA_SET_COUNT: u16 = 20;
pub(crate) const NFTA_SET_DESC_SIZE: u16 = 1;
pub(crate) const NFTA_SET_DESC_CONCAT: u16 = 2;
pub(crate) const NFTA_SET_FIELD_LEN: u16 = 1;
pub(crate) const NFT_SET_ANONYMOUS: u32 = 0x1;
pub(crate) const NFT_SET_INTERVAL: u32 = 0x4;
pub(crate) const NFT_SET_MAP: u32 = 0x8;
pub(crate) const NFT_SET_TIMEOUT: u32 = 0x10;
pub(crate) const NFT_SET_EVAL: u32 = 0x20;
pub(crate) const NFT_SET_CONCAT: u32 = 0x80;
/// Since 5.11.
pub(crate) const NFT_SET_EXPR: u32 = 0x100;

// enum nft_set_elem_attributes, enum nft_set_elem_list_attributes, enum nft_set_elem_flags
pub(crate) const NFTA_SET_ELEM_KEY: u16 = 1;
pub(crate) const NFTA_SET_ELEM_DATA: u16 = 2;
pub(crate) const NFTA_SET_ELEM_FLAGS: u16 = 3;
pub(crate) const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
pub(crate) const NFTA_SET_ELEM_USERDATA: u16 = 6;
pub(crate) const NFTA_SET_ELEM_EXPR: u16 = 7;
pub(crate) const NFTA_SET_ELEM_KEY_END: u16 = 10;
pub(crate) const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(crate) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(crate) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(crate) const NFT_SET_ELEM_INTERVAL_END: u32 = 0x1;

// enum nft_data_attributes, enum nft_verdict_attributes, enum nft_verdicts, enum nft_data_types
pub(crate) const NFTA_DATA_VALUE: u16 = 1;
pub(crate) const NFTA_DATA_VERDICT: u16 = 2;
pub(crate) const NFTA_VERDICT_CODE: u16 = 1;
pub(crate) const NFTA_VERDICT_CHAIN: u16 = 2;
pub(crate) const NFT_DATA_VERDICT: u32 = 0xffff_ff00;
pub(crate) const NFT_JUMP: i32 = -3;
pub(crate) const NFT_GOTO: i32 = -4;
pub(crate) const NFT_RETURN: i32 = -5;

// enum nft_expr_attributes
pub(crate) const NFTA_EXPR_NAME: u16 = 1;
pub(crate) const NFTA_EXPR_DATA: u16 = 2;

// enum nft_gen_attributes
pub(crate) const NFTA_GEN_ID: u16 = 1;
pub(crate) const NFTA_GEN_PROC_PID: u16 = 2;
pub(crate) const NFTA_GEN_PROC_NAME: u16 = 3;

/// Type numbers of nft's own (`enum datatypes`, nftables/include/datatype.h). The kernel only keeps them; nft(8)
/// prints elements by them. A concatenation shifts by six bits for each field.
pub(crate) mod datatype {
    /// `TYPE_IPADDR`.
    pub(crate) const IPV4: u32 = 7;
    /// `TYPE_IP6ADDR`.
    pub(crate) const IPV6: u32 = 8;
    /// `TYPE_INET_PROTOCOL`.
    pub(crate) const PROTOCOL: u32 = 12;
    /// `TYPE_INET_SERVICE`.
    pub(crate) const SERVICE: u32 = 13;
    /// `TYPE_IFNAME`.
    pub(crate) const LINK: u32 = 41;

    /// The type of a concatenation.
    pub(crate) const fn concat(left: u32, right: u32) -> u32 {
        left << 6 | right
    }
}

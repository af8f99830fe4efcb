//! The table `inet podwall_dns`: takes DNS queries of some pods to a proxy on this node.
//!
//! A table of its own, because another process writes it: the proxy, which must go on while the agent is replaced. It
//! is owned and does not persist, so the kernel takes it away with the proxy's socket (Linux 5.12); and every way in
//! it ends after [`LIFE`](podwall_ruleset::detour::LIFE) unless it is renewed, so a proxy that hangs is passed by too
//! (decision Q2). It runs before kube-proxy's destination NAT, which would hide the server that was asked.
//!
//! Queries of a pod go another way only to the servers that this pod may ask for names: whatever else a policy lets it
//! ask, it asks itself.
use std::collections::BTreeMap;
use std::net::IpAddr;

use podwall_netlink::{Batch, Errno, Finish, Flags, Position, Refusal, Reply, Socket, Subsystem, Writer};
use podwall_ruleset::detour::LIFE;
use podwall_ruleset::{Askers, BackendError, Detour, Family, Proxy, SetName};

use crate::data::{Data, Register};
use crate::expr::{Cmp, Expr, Header, Lookup, Meta, MetaKey, Payload, Yields};
use crate::failure::{failed, missing};
use crate::lower::parts::DESTINATION_PORT;
use crate::object::header;
use crate::object::table::{self, TableFlags};
use crate::probe::probe;
use crate::uapi::{
    NFPROTO_IPV4, NFPROTO_IPV6, NFT_MSG_DELSETELEM, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE,
    NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE, NFT_SET_MAP, NFT_SET_TIMEOUT, NFT_TABLE_F_OWNER,
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE, NFTA_DATA_VALUE, NFTA_EXPR_DATA,
    NFTA_EXPR_NAME, NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NFTA_LIST_ELEM, NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE, NFTA_SET_DATA_LEN, NFTA_SET_DATA_TYPE, NFTA_SET_ELEM_DATA,
    NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE,
    NFTA_SET_ELEM_TIMEOUT, NFTA_SET_FLAGS, NFTA_SET_ID, NFTA_SET_KEY_LEN, NFTA_SET_KEY_TYPE, NFTA_SET_NAME,
    NFTA_SET_TABLE, datatype,
};

/// The table's name.
const TABLE: &str = "podwall_dns";
const CHAIN: &str = "queries";
/// `NF_IP_PRI_NAT_DST - 1`: before kube-proxy.
const PRIORITY: i32 = -101;
/// Sees to it that conntrack sees queries; see [`write_tracked`].
const TRACKED: &str = "tracked";
/// `NF_IP_PRI_RAW - 1`: before whoever says that it shall not.
const BEFORE_RAW: i32 = -301;
/// Plain DNS.
const PORT: u16 = 53;
/// `IPPROTO_UDP`, `IPPROTO_TCP`.
const PROTOCOLS: [u8; 2] = [17, 6];
/// `NFT_REG_2`.
const SECOND: u32 = 2;

// enum nft_nat_attributes, enum nft_nat_types
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFT_NAT_DNAT: u32 = 1;
// enum nft_immediate_attributes, enum nft_lookup_attributes
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
// enum nft_ct_attributes, enum nft_ct_keys
const NFTA_CT_KEY: u16 = 2;
const NFTA_CT_SREG: u16 = 4;
const NFT_CT_ZONE: u32 = 17;

/// The table, for as long as this lives.
pub struct NftablesDetour {
    socket: Socket,
    batch: Batch,
    askers: Askers,
    ways: BTreeMap<IpAddr, u16>,
}

/// What a table is made with, best first; not every kernel has all of it.
#[derive(Clone, Copy)]
struct Make {
    flags: TableFlags,
    tracking: Tracking,
}

/// Are queries kept visible to conntrack?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tracking {
    /// They are.
    Kept,
    /// The kernel has no zones.
    AsItComes,
}

impl NftablesDetour {
    /// Makes the table, empty: nobody's queries go another way yet. One that a proxy before left behind goes.
    /// [`BackendError::Unsupported`]: this kernel has no nf_tables, or none that translates.
    pub fn open(proxy: Proxy) -> Result<Self, BackendError> {
        let mut socket = Socket::open().map_err(failed)?;
        probe(&mut socket)?;
        let (askers, ways) = (Askers::new(), BTreeMap::new());
        let mut detour = Self { socket, batch: Batch::default(), askers, ways };
        let (owned, open) = (TableFlags(NFT_TABLE_F_OWNER), TableFlags::OPEN);
        // A kernel without owners of tables: what the ways' short life does must do.
        let kinds = [(owned, Tracking::Kept), (owned, Tracking::AsItComes), (open, Tracking::Kept)];
        for (flags, tracking) in kinds {
            if detour.make(proxy, Make { flags, tracking })?.refused.is_empty() {
                return Ok(detour);
            }
        }
        let plain = detour.make(proxy, Make { flags: open, tracking: Tracking::AsItComes })?;
        // Now that nothing is asked for that it can do without.
        if let Some((_, refusal)) = plain.refused.iter().find(|(_, refusal)| is_missing(refusal)) {
            let feature = "destination NAT in the inet family (modprobe nft_chain_nat)";
            return Err(missing(feature, "CONFIG_NFT_NAT", refusal));
        }
        good(&plain, "making table inet podwall_dns")?;
        Ok(detour)
    }

    fn make(&mut self, proxy: Proxy, how: Make) -> Result<Reply, BackendError> {
        let batch = &mut self.batch;
        batch.begin(Subsystem::Nftables, self.socket.sequence(), None);
        // Made so that it can be deleted, whether or not it was there.
        batch.message(header(NFT_MSG_NEWTABLE, Flags::CREATE), |w| {
            table::write_named(TABLE, TableFlags::OPEN, w);
        });
        batch.message(header(NFT_MSG_DELTABLE, Flags::NONE), |w| w.put_text(NFTA_SET_TABLE, TABLE));
        batch.message(header(NFT_MSG_NEWTABLE, Flags::CREATE), |w| table::write_named(TABLE, how.flags, w));
        for (id, family) in (1..).step_by(2).zip(Family::BOTH) {
            batch.message(header(NFT_MSG_NEWSET, Flags::CREATE), |w| write_askers(family, id, w));
            batch.message(header(NFT_MSG_NEWSET, Flags::CREATE), |w| write_ways(family, id + 1, w));
        }
        batch.message(header(NFT_MSG_NEWCHAIN, Flags::CREATE), |w| write_chain((CHAIN, "nat", PRIORITY), w));
        if how.tracking == Tracking::Kept {
            let place = (TRACKED, "filter", BEFORE_RAW);
            batch.message(header(NFT_MSG_NEWCHAIN, Flags::CREATE), |w| write_chain(place, w));
        }
        for (family, protocol) in Family::BOTH.into_iter().flat_map(|family| PROTOCOLS.map(|p| (family, p))) {
            let rule = || header(NFT_MSG_NEWRULE, Flags::CREATE | Flags::APPEND);
            batch.message(rule(), |w| write_rule(family, protocol, proxy, w));
            if how.tracking == Tracking::Kept {
                batch.message(rule(), |w| write_tracked(family, protocol, w));
            }
        }
        batch.end(Subsystem::Nftables, Finish::Commit);
        self.socket.batch(&self.batch).map_err(failed)
    }

    fn commit(&mut self, doing: &str) -> Result<(), BackendError> {
        self.batch.end(Subsystem::Nftables, Finish::Commit);
        let reply = self.socket.batch(&self.batch).map_err(failed)?;
        good(&reply, doing)
    }
}

impl Detour for NftablesDetour {
    /// In one commit.
    fn set(&mut self, askers: &Askers, ways: &BTreeMap<IpAddr, u16>) -> Result<(), BackendError> {
        self.batch.begin(Subsystem::Nftables, self.socket.sequence(), None);
        for family in Family::BOTH {
            let of = |all: &Askers, known: &Askers| -> Vec<_> {
                all.difference(known).filter(|(pod, _)| Family::of(pod) == family).copied().collect()
            };
            let (gone, new) = (of(&self.askers, askers), of(askers, &self.askers));
            members(&mut self.batch, NFT_MSG_DELSETELEM, &askers_of(family), &gone);
            members(&mut self.batch, NFT_MSG_NEWSETELEM, &askers_of(family), &new);
        }
        open_ways(&mut self.batch, ways);
        self.commit("changing whose DNS queries are taken to the proxy")?;
        self.askers.clone_from(askers);
        self.ways.clone_from(ways);
        Ok(())
    }

    fn renew(&mut self) -> Result<Option<String>, BackendError> {
        if self.ways.is_empty() {
            return Ok(None);
        }
        self.batch.begin(Subsystem::Nftables, self.socket.sequence(), None);
        open_ways(&mut self.batch, &self.ways);
        self.commit("renewing the way of DNS queries to the proxy").map(|()| None)
    }

    fn close(&mut self) -> Result<(), BackendError> {
        self.batch.begin(Subsystem::Nftables, self.socket.sequence(), None);
        self.batch.message(header(NFT_MSG_DELTABLE, Flags::NONE), |w| w.put_text(NFTA_SET_TABLE, TABLE));
        self.commit("taking away table inet podwall_dns")
    }
}

/// Does the kernel lack what was asked for?
fn is_missing(refusal: &Refusal) -> bool {
    [Errno::ENOENT, Errno::EOPNOTSUPP].contains(&refusal.errno)
}

fn good(reply: &Reply, doing: &str) -> Result<(), BackendError> {
    let Some((at, refusal)) = reply.refused.first() else { return Ok(()) };
    let at = match at {
        Position::Begin => "its begin".to_owned(),
        Position::Message(index) => format!("message {index}"),
        Position::End => "its end".to_owned(),
    };
    let source = std::io::Error::from_raw_os_error(refusal.errno.0);
    Err(BackendError::Io { doing: format!("{doing}: {at}: {refusal}"), source })
}

fn askers_of(family: Family) -> String {
    format!("askers{}", family.digit())
}

fn ways_of(family: Family) -> String {
    format!("ways{}", family.digit())
}

const fn address_form(family: Family) -> (u32, u32) {
    match family {
        Family::V4 => (datatype::IPV4, 4),
        Family::V6 => (datatype::IPV6, 16),
    }
}

/// Pod and server.
fn write_askers(family: Family, id: u32, writer: &mut Writer) {
    let (kind, length) = address_form(family);
    writer.put_text(NFTA_SET_TABLE, TABLE);
    writer.put_text(NFTA_SET_NAME, &askers_of(family));
    writer.put_be32(NFTA_SET_FLAGS, 0);
    writer.put_be32(NFTA_SET_KEY_TYPE, datatype::concat(kind, kind));
    writer.put_be32(NFTA_SET_KEY_LEN, 2 * length);
    writer.put_be32(NFTA_SET_ID, id);
}

/// From a server's address to the port at which the proxy stands in for it.
fn write_ways(family: Family, id: u32, writer: &mut Writer) {
    let (kind, length) = address_form(family);
    writer.put_text(NFTA_SET_TABLE, TABLE);
    writer.put_text(NFTA_SET_NAME, &ways_of(family));
    writer.put_be32(NFTA_SET_FLAGS, NFT_SET_MAP | NFT_SET_TIMEOUT);
    writer.put_be32(NFTA_SET_KEY_TYPE, kind);
    writer.put_be32(NFTA_SET_KEY_LEN, length);
    writer.put_be32(NFTA_SET_DATA_TYPE, datatype::SERVICE);
    writer.put_be32(NFTA_SET_DATA_LEN, 2);
    writer.put_be32(NFTA_SET_ID, id);
}

/// In the prerouting hook.
fn write_chain((name, kind, priority): (&str, &str, i32), writer: &mut Writer) {
    writer.put_text(NFTA_CHAIN_TABLE, TABLE);
    writer.put_text(NFTA_CHAIN_NAME, name);
    writer.nest(NFTA_CHAIN_HOOK, |hook| {
        hook.put_be32(NFTA_HOOK_HOOKNUM, 0);
        hook.put(NFTA_HOOK_PRIORITY, &priority.to_be_bytes());
    });
    writer.put_text(NFTA_CHAIN_TYPE, kind);
}

/// Where a DNS cache of the node has the address of the cluster's DNS (`NodeLocal DNSCache`), rules in the raw table keep
/// conntrack from seeing queries to it, and without conntrack there is no other way to take. They leave alone what
/// has a zone already (`notrack_tg`, `nft_notrack_eval`), so a query is given the zone it would be in anyway.
fn write_tracked(family: Family, protocol: u8, writer: &mut Writer) {
    writer.put_text(NFTA_RULE_TABLE, TABLE);
    writer.put_text(NFTA_RULE_CHAIN, TRACKED);
    writer.nest(NFTA_RULE_EXPRESSIONS, |list| {
        for expr in questions(family, protocol) {
            expr.write(NFTA_LIST_ELEM, list);
        }
        // While the proxy lives: the way itself is looked for, and not looked at.
        raw(list, "lookup", |data| write_way(family, data));
        raw(list, "immediate", |data| {
            data.put_be32(NFTA_IMMEDIATE_DREG, Register::FIRST.0);
            data.nest(NFTA_IMMEDIATE_DATA, |value| value.put(NFTA_DATA_VALUE, &0_u16.to_ne_bytes()));
        });
        raw(list, "ct", |data| {
            data.put_be32(NFTA_CT_KEY, NFT_CT_ZONE);
            data.put_be32(NFTA_CT_SREG, Register::FIRST.0);
        });
    });
}

/// The server's port at the proxy, from its address in the first register into the second.
fn write_way(family: Family, data: &mut Writer) {
    data.put_text(NFTA_LOOKUP_SET, &ways_of(family));
    data.put_be32(NFTA_LOOKUP_SREG, Register::FIRST.0);
    data.put_be32(NFTA_LOOKUP_DREG, SECOND);
}

fn write_rule(family: Family, protocol: u8, proxy: Proxy, writer: &mut Writer) {
    writer.put_text(NFTA_RULE_TABLE, TABLE);
    writer.put_text(NFTA_RULE_CHAIN, CHAIN);
    writer.nest(NFTA_RULE_EXPRESSIONS, |list| {
        for expr in questions(family, protocol) {
            expr.write(NFTA_LIST_ELEM, list);
        }
        raw(list, "lookup", |data| write_way(family, data));
        raw(list, "immediate", |data| {
            data.put_be32(NFTA_IMMEDIATE_DREG, Register::FIRST.0);
            data.nest(NFTA_IMMEDIATE_DATA, |value| match family {
                Family::V4 => value.put(NFTA_DATA_VALUE, &proxy.v4.octets()),
                Family::V6 => value.put(NFTA_DATA_VALUE, &proxy.v6.octets()),
            });
        });
        raw(list, "nat", |data| {
            data.put_be32(NFTA_NAT_TYPE, NFT_NAT_DNAT);
            data.put_be32(NFTA_NAT_FAMILY, u32::from(protocol_family(family)));
            data.put_be32(NFTA_NAT_REG_ADDR_MIN, Register::FIRST.0);
            data.put_be32(NFTA_NAT_REG_PROTO_MIN, SECOND);
        });
    });
}

/// Is it a query of a pod to a server it asks by us? Leaves the server's address in the first register.
fn questions(family: Family, protocol: u8) -> Vec<Expr> {
    let (source, destination, length) = match family {
        Family::V4 => (12, 16, 4),
        Family::V6 => (8, 24, 16),
    };
    let address = |offset, into| Payload { header: Header::Network, offset, length, into };
    let mut exprs: Vec<Expr> = vec![
        Meta::first(MetaKey::Family).into(),
        Cmp::equal([protocol_family(family)]).into(),
        Meta::first(MetaKey::Protocol).into(),
        Cmp::equal([protocol]).into(),
        DESTINATION_PORT.into(),
        Cmp { order: crate::expr::Order::Equal, data: Data::of(PORT.to_be_bytes()) }.into(),
        address(source, Register::FIRST).into(),
        address(destination, Register::behind(length)).into(),
    ];
    // The names are good: letters and a digit.
    let askers = SetName::new(&askers_of(family)).ok();
    exprs.extend(askers.map(|set| Expr::from(Lookup { set, yields: Yields::Membership })));
    exprs.push(address(destination, Register::FIRST).into());
    exprs
}

const fn protocol_family(family: Family) -> u8 {
    match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    }
}

fn raw(list: &mut Writer, name: &str, fill: impl FnOnce(&mut Writer)) {
    list.nest(NFTA_LIST_ELEM, |element| {
        element.put_text(NFTA_EXPR_NAME, name);
        element.nest(NFTA_EXPR_DATA, fill);
    });
}

fn members(batch: &mut Batch, message: u8, set: &str, askers: &[(IpAddr, IpAddr)]) {
    /// One message takes some thousands.
    const AT_ONCE: usize = 1000;
    let flags = if message == NFT_MSG_NEWSETELEM { Flags::CREATE } else { Flags::NONE };
    for chunk in askers.chunks(AT_ONCE) {
        batch.message(header(message, flags), |w| {
            write_set(set, w);
            w.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                for (pod, server) in chunk {
                    list.nest(NFTA_LIST_ELEM, |element| write_key(&[*pod, *server], element));
                }
            });
        });
    }
}

/// Out with all of them and in again, as one: adding over what stands does not renew it on older kernels.
fn open_ways(batch: &mut Batch, ways: &BTreeMap<IpAddr, u16>) {
    let life = u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX);
    for family in Family::BOTH {
        let set = ways_of(family);
        batch.message(header(NFT_MSG_DELSETELEM, Flags::NONE), |w| write_set(&set, w));
        let mine: Vec<(&IpAddr, &u16)> =
            ways.iter().filter(|(server, _)| Family::of(server) == family).collect();
        if mine.is_empty() {
            continue;
        }
        batch.message(header(NFT_MSG_NEWSETELEM, Flags::CREATE), |w| {
            write_set(&set, w);
            w.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                for (server, port) in mine {
                    list.nest(NFTA_LIST_ELEM, |element| {
                        write_key(&[*server], element);
                        element.nest(NFTA_SET_ELEM_DATA, |data| {
                            data.put(NFTA_DATA_VALUE, &port.to_be_bytes());
                        });
                        element.put_be64(NFTA_SET_ELEM_TIMEOUT, life);
                    });
                }
            });
        });
    }
}

fn write_set(set: &str, writer: &mut Writer) {
    writer.put_text(NFTA_SET_ELEM_LIST_TABLE, TABLE);
    writer.put_text(NFTA_SET_ELEM_LIST_SET, set);
}

fn write_key(addresses: &[IpAddr], writer: &mut Writer) {
    let bytes = addresses.iter().flat_map(|address| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    });
    let bytes: Vec<u8> = bytes.collect();
    writer.nest(NFTA_SET_ELEM_KEY, |data| data.put(NFTA_DATA_VALUE, &bytes));
}

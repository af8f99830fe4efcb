//! The table `inet podwall_dns`: takes DNS queries of some pods to a proxy on this node.
//!
//! A table of its own, because another process writes it: the proxy, which must go on while the agent is replaced. It
//! is owned and does not persist, so the kernel takes it away with the proxy's socket (Linux 5.12); and every way in
//! it ends after [`LIFE`](podwall_ruleset::detour::LIFE) unless it is renewed, so a proxy that hangs is passed by too (decision Q2). It runs before
//! kube-proxy's destination NAT, which would hide the server that was asked.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use podwall_netlink::{Batch, Errno, Finish, Flags, Position, Refusal, Reply, Socket, Subsystem, Writer};
use podwall_ruleset::detour::LIFE;
use podwall_ruleset::{BackendError, Detour, Family, Proxy, SetName};

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

/// The table, for as long as this lives.
pub struct NftablesDetour {
    socket: Socket,
    batch: Batch,
    pods: BTreeSet<IpAddr>,
    ways: BTreeMap<IpAddr, u16>,
}

impl NftablesDetour {
    /// Makes the table, empty: nobody's queries go another way yet. One that a proxy before left behind goes.
    /// [`BackendError::Unsupported`]: this kernel has no nf_tables, or none that translates.
    pub fn open(proxy: Proxy) -> Result<Self, BackendError> {
        let mut socket = Socket::open().map_err(failed)?;
        probe(&mut socket)?;
        let (pods, ways) = (BTreeSet::new(), BTreeMap::new());
        let mut detour = Self { socket, batch: Batch::default(), pods, ways };
        let owned = detour.make(proxy, TableFlags(NFT_TABLE_F_OWNER))?;
        if !owned.refused.is_empty() {
            // A kernel without owners of tables: what the ways' short life does must do.
            let open = detour.make(proxy, TableFlags::OPEN)?;
            if let Some((_, refusal)) = open.refused.iter().find(|(_, refusal)| is_missing(refusal)) {
                let feature = "destination NAT in the inet family (modprobe nft_chain_nat)";
                return Err(missing(feature, "CONFIG_NFT_NAT", refusal));
            }
            good(&open, "making table inet podwall_dns")?;
        }
        Ok(detour)
    }

    fn make(&mut self, proxy: Proxy, flags: TableFlags) -> Result<Reply, BackendError> {
        let batch = &mut self.batch;
        batch.begin(Subsystem::Nftables, self.socket.sequence(), None);
        // Made so that it can be deleted, whether or not it was there.
        batch.message(header(NFT_MSG_NEWTABLE, Flags::CREATE), |w| {
            table::write_named(TABLE, TableFlags::OPEN, w);
        });
        batch.message(header(NFT_MSG_DELTABLE, Flags::NONE), |w| w.put_text(NFTA_SET_TABLE, TABLE));
        batch.message(header(NFT_MSG_NEWTABLE, Flags::CREATE), |w| table::write_named(TABLE, flags, w));
        for (id, family) in (1..).step_by(2).zip(Family::BOTH) {
            batch.message(header(NFT_MSG_NEWSET, Flags::CREATE), |w| write_pods(family, id, w));
            batch.message(header(NFT_MSG_NEWSET, Flags::CREATE), |w| write_ways(family, id + 1, w));
        }
        batch.message(header(NFT_MSG_NEWCHAIN, Flags::CREATE), write_chain);
        for family in Family::BOTH {
            for protocol in PROTOCOLS {
                batch.message(header(NFT_MSG_NEWRULE, Flags::CREATE | Flags::APPEND), |w| {
                    write_rule(family, protocol, proxy, w);
                });
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
    fn set(&mut self, pods: &BTreeSet<IpAddr>, ways: &BTreeMap<IpAddr, u16>) -> Result<(), BackendError> {
        self.batch.begin(Subsystem::Nftables, self.socket.sequence(), None);
        for family in Family::BOTH {
            let of = |all: &BTreeSet<IpAddr>, known: &BTreeSet<IpAddr>| -> Vec<IpAddr> {
                all.difference(known).filter(|address| Family::of(address) == family).copied().collect()
            };
            let (gone, new) = (of(&self.pods, pods), of(pods, &self.pods));
            members(&mut self.batch, NFT_MSG_DELSETELEM, &pods_of(family), &gone);
            members(&mut self.batch, NFT_MSG_NEWSETELEM, &pods_of(family), &new);
        }
        open_ways(&mut self.batch, ways);
        self.commit("changing whose DNS queries are taken to the proxy")?;
        self.pods.clone_from(pods);
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

fn pods_of(family: Family) -> String {
    format!("pods{}", family.digit())
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

fn write_pods(family: Family, id: u32, writer: &mut Writer) {
    let (kind, length) = address_form(family);
    writer.put_text(NFTA_SET_TABLE, TABLE);
    writer.put_text(NFTA_SET_NAME, &pods_of(family));
    writer.put_be32(NFTA_SET_FLAGS, 0);
    writer.put_be32(NFTA_SET_KEY_TYPE, kind);
    writer.put_be32(NFTA_SET_KEY_LEN, length);
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

fn write_chain(writer: &mut Writer) {
    writer.put_text(NFTA_CHAIN_TABLE, TABLE);
    writer.put_text(NFTA_CHAIN_NAME, CHAIN);
    writer.nest(NFTA_CHAIN_HOOK, |hook| {
        hook.put_be32(NFTA_HOOK_HOOKNUM, 0);
        hook.put(NFTA_HOOK_PRIORITY, &PRIORITY.to_be_bytes());
    });
    writer.put_text(NFTA_CHAIN_TYPE, "nat");
}

fn write_rule(family: Family, protocol: u8, proxy: Proxy, writer: &mut Writer) {
    writer.put_text(NFTA_RULE_TABLE, TABLE);
    writer.put_text(NFTA_RULE_CHAIN, CHAIN);
    writer.nest(NFTA_RULE_EXPRESSIONS, |list| {
        for expr in questions(family, protocol) {
            expr.write(NFTA_LIST_ELEM, list);
        }
        raw(list, "lookup", |data| {
            data.put_text(NFTA_LOOKUP_SET, &ways_of(family));
            data.put_be32(NFTA_LOOKUP_SREG, Register::FIRST.0);
            data.put_be32(NFTA_LOOKUP_DREG, SECOND);
        });
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

/// Is it a query of one of the pods? Leaves the server's address in the first register.
fn questions(family: Family, protocol: u8) -> Vec<Expr> {
    let (source, destination, length) = match family {
        Family::V4 => (12, 16, 4),
        Family::V6 => (8, 24, 16),
    };
    let address = |offset| Payload { header: Header::Network, offset, length, into: Register::FIRST };
    let mut exprs: Vec<Expr> = vec![
        Meta::first(MetaKey::Family).into(),
        Cmp::equal([protocol_family(family)]).into(),
        Meta::first(MetaKey::Protocol).into(),
        Cmp::equal([protocol]).into(),
        DESTINATION_PORT.into(),
        Cmp { order: crate::expr::Order::Equal, data: Data::of(PORT.to_be_bytes()) }.into(),
        address(source).into(),
    ];
    // The names are good: letters and a digit.
    let pods = SetName::new(&pods_of(family)).ok();
    exprs.extend(pods.map(|set| Expr::from(Lookup { set, yields: Yields::Membership })));
    exprs.push(address(destination).into());
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

fn members(batch: &mut Batch, message: u8, set: &str, addresses: &[IpAddr]) {
    /// One message takes some thousands.
    const AT_ONCE: usize = 1000;
    let flags = if message == NFT_MSG_NEWSETELEM { Flags::CREATE } else { Flags::NONE };
    for chunk in addresses.chunks(AT_ONCE) {
        batch.message(header(message, flags), |w| {
            write_set(set, w);
            w.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                for address in chunk {
                    list.nest(NFTA_LIST_ELEM, |element| write_key(*address, element));
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
                        write_key(*server, element);
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

fn write_key(address: IpAddr, writer: &mut Writer) {
    writer.nest(NFTA_SET_ELEM_KEY, |data| match address {
        IpAddr::V4(v4) => data.put(NFTA_DATA_VALUE, &v4.octets()),
        IpAddr::V6(v6) => data.put(NFTA_DATA_VALUE, &v6.octets()),
    });
}

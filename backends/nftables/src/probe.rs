//! What this kernel can do, found out by trying: a batch without an end is validated and forgotten, so nothing
//! of a trial ever comes into being.
use podwall_netlink::{
    Batch, Errno, Finish, Flags, Header, Kind, Position, Refusal, Socket, Subsystem, Writer,
};
use podwall_ruleset::{Answer, BackendError, Family, SetName, SetSpec, Shape};

use crate::data::{Data, Register};
use crate::expr::{self, Dynset, Expr, Fib, Limit, Payload};
use crate::failure::{failed, missing, no_privilege};
use crate::object::table::{self, TableFlags};
use crate::object::{header, set};
use crate::uapi::{
    NFPROTO_IPV6, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWTABLE, NFTA_ANY_TABLE,
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_TYPE, NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NFTA_LIST_ELEM,
    NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_SET_NAME,
};

/// A name nobody uses; the tables are gone before anybody could see them.
const TRIAL: &str = "podwall_probe";
/// The same, for the trial of ownership.
const OWNED_TRIAL: &str = "podwall_probe_owned";

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probed {
    /// Tables can be owned and outlive their owner.
    pub(crate) ownership: Found,
    /// The reverse path check works in the inet family.
    pub(crate) reverse_path: Found,
    /// Metered log records work.
    pub(crate) log: Found,
    /// Rejecting works (`CONFIG_NFT_REJECT_INET`).
    pub(crate) reject: Found,
    /// IPv6 chains work.
    pub(crate) ipv6: Found,
    /// The end of a batch is acknowledged.
    pub(crate) acknowledged_end: Found,
}

/// Whether a feature is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Yes,
    No,
}

impl Found {
    pub(crate) const fn is_there(self) -> bool {
        matches!(self, Self::Yes)
    }

    const fn unless(refused: bool) -> Self {
        if refused { Self::No } else { Self::Yes }
    }
}

pub(crate) fn probe(socket: &mut Socket) -> Result<Probed, BackendError> {
    let mut batch = Batch::default();
    let acknowledged_end = empty_commit(socket, &mut batch)?;
    batch.begin(Subsystem::Nftables, socket.sequence(), None);
    let needed = needed(&mut batch);
    let ownership = batch.message(header(NFT_MSG_NEWTABLE, Flags::CREATE), |w| {
        table::write_named(OWNED_TRIAL, TableFlags::OWNED, w);
    });
    let ipv6 = ipv6(&mut batch);
    let reverse_path = rule(&mut batch, &[Fib::ReversePath.into()]);
    let log = metered_log(&mut batch);
    let reject = rule(&mut batch, &[expr::Reject(Answer::Reset).into()]);
    batch.end(Subsystem::Nftables, Finish::DryRun);
    let reply = socket.batch(&batch).map_err(failed)?;
    let refusal = |message: usize| {
        reply.refused.iter().find(|(at, _)| *at == Position::Message(message)).map(|(_, refusal)| refusal)
    };
    if let Some(refusal) = needed.into_iter().find_map(refusal) {
        return Err(missing("nf_tables in the inet family", "CONFIG_NF_TABLES_INET", refusal));
    }
    let found =
        |messages: &[usize]| Found::unless(messages.iter().any(|message| refusal(*message).is_some()));
    Ok(Probed {
        ownership: found(&[ownership]),
        reverse_path: found(&[reverse_path]),
        log: found(&log),
        reject: found(&[reject]),
        ipv6: found(&ipv6),
        acknowledged_end,
    })
}

/// A batch of nothing: it shows whether we may write, whether nf_tables is there, and how a commit is confirmed.
fn empty_commit(socket: &mut Socket, batch: &mut Batch) -> Result<Found, BackendError> {
    batch.begin(Subsystem::Nftables, socket.sequence(), None);
    batch.end(Subsystem::Nftables, Finish::Commit);
    let reply = socket.batch(batch).map_err(failed)?;
    match reply.refused.first() {
        Some((_, Refusal { errno: Errno::EPERM, .. })) => Err(no_privilege()),
        Some((_, refusal)) => Err(missing("nf_tables (modprobe nf_tables)", "CONFIG_NF_TABLES", refusal)),
        None => Ok(Found::unless(!reply.acknowledged)),
    }
}

fn needed(batch: &mut Batch) -> [usize; 2] {
    let table = batch.message(header(NFT_MSG_NEWTABLE, Flags::CREATE), |w| {
        table::write_named(TRIAL, TableFlags::OPEN, w);
    });
    let chain = batch.message(header(NFT_MSG_NEWCHAIN, Flags::CREATE), |w| {
        w.put_text(NFTA_ANY_TABLE, TRIAL);
        w.put_text(NFTA_CHAIN_NAME, TRIAL);
    });
    [table, chain]
}

fn ipv6(batch: &mut Batch) -> [usize; 2] {
    let of_ipv6 = |message| Header::new(Kind::of(Subsystem::Nftables, message), Flags::CREATE, NFPROTO_IPV6);
    let table = batch.message(of_ipv6(NFT_MSG_NEWTABLE), |w| table::write_named(TRIAL, TableFlags::OPEN, w));
    let chain = batch.message(of_ipv6(NFT_MSG_NEWCHAIN), |w| {
        w.put_text(NFTA_ANY_TABLE, TRIAL);
        w.put_text(NFTA_CHAIN_NAME, TRIAL);
        w.nest(NFTA_CHAIN_HOOK, |hook| {
            hook.put_be32(NFTA_HOOK_HOOKNUM, 2);
            hook.put_be32(NFTA_HOOK_PRIORITY, 0);
        });
        w.put_text(NFTA_CHAIN_TYPE, "filter");
    });
    [table, chain]
}

fn metered_log(batch: &mut Batch) -> [usize; 2] {
    let Ok(meter) = SetName::new("n_meter4") else { return [usize::MAX; 2] };
    let spec = SetSpec { shape: Shape::Meter(Family::V4), size: Some(16) };
    let made = batch.message(header(NFT_MSG_NEWSET, Flags::CREATE), |w| {
        w.put_text(NFTA_ANY_TABLE, TRIAL);
        w.put_text(NFTA_SET_NAME, meter.as_str());
        set::write_spec(&spec, 1, w);
    });
    let address = Payload { header: expr::Header::Network, offset: 12, length: 4, into: Register::FIRST };
    let used = rule(
        batch,
        &[
            expr::Meta::first(expr::MetaKey::Family).into(),
            expr::Cmp { order: expr::Order::Equal, data: Data::of([2]) }.into(),
            address.into(),
            Dynset { set: meter, limit: Limit { rate: 1, burst: 1 } }.into(),
            expr::Log { group: 0, prefix: String::new(), snaplen: 64 }.into(),
        ],
    );
    [made, used]
}

fn rule(batch: &mut Batch, exprs: &[Expr]) -> usize {
    batch.message(header(NFT_MSG_NEWRULE, Flags::CREATE | Flags::APPEND), |w| {
        w.put_text(NFTA_ANY_TABLE, TRIAL);
        w.put_text(NFTA_RULE_CHAIN, TRIAL);
        w.nest(NFTA_RULE_EXPRESSIONS, |list: &mut Writer| {
            exprs.iter().for_each(|expr| expr.write(NFTA_LIST_ELEM, list));
        });
    })
}

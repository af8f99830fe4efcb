//! [`Nftables`]: the [`Backend`] on native nf_tables.
//!
//! One socket for life. Exactness: a commit counts as done only when the kernel acknowledged the end of its batch;
//! every refused message leads back to its operation. Kernels before 6.10 do not acknowledge the end; there, an
//! answer-free batch is done, because errors are queued before the send returns.
//!
//! Who keeps the table ours: with `owner` + `persist` (Linux 6.9) the kernel refuses all other writers, and the
//! table outlives us without an owner until the next of us takes it again. Elsewhere a [`Monitor`] tells.
use std::io;
use std::time::{Duration, SystemTime};

use podwall_netlink::{Batch, Finish, Flags, Reply, Socket, Subsystem};
use podwall_ruleset::{
    Atomicity, Backend, BackendError, Capabilities, Counter, Deadline, Guard as Guarded, Hit, Observed, Op,
    Receipt, Transaction,
};

use crate::failure::failed;
use crate::lower::{Encoder, Frame};
use crate::monitor::Monitor;
use crate::object::table::{Table, TableFlags};
use crate::object::{header, table};
use crate::probe::{Probed, probe};
use crate::uapi::NFT_MSG_NEWTABLE;
use crate::{observe, owner, refusal, sweep};

/// How often the table is read again when others write meanwhile.
const ATTEMPTS: u32 = 12;

/// How the table is to be kept ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guard {
    /// Owned where the kernel can and the standing table allows it, watched otherwise.
    #[default]
    Auto,
    /// Owned, or not at all.
    Owned,
    /// Without an owner, on any kernel.
    Watched,
}

/// How to open the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// How the table is to be kept ours.
    pub guard: Guard,
}

/// The native backend, in the network namespace of the thread that opened it.
pub struct Nftables {
    socket: Socket,
    encoder: Encoder,
    options: Options,
    probed: Probed,
    capabilities: Capabilities,
    table: TableFlags,
    held: Held,
    basis: Option<u32>,
    /// The table was found dormant and is awake now; to be told with the next reading.
    woken: bool,
}

/// Whether the kernel refuses everybody else just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Yes,
    No,
}

impl Nftables {
    /// Opens the socket, probes the kernel, and takes over a table that an owner before us left behind. Nothing
    /// in that table changes. A table that a living process owns is an error that names the process.
    pub fn open(options: Options) -> Result<Self, BackendError> {
        let mut socket = Socket::open().map_err(failed)?;
        let probed = probe(&mut socket)?;
        let capabilities = Capabilities {
            backend: "nftables",
            guard: Guarded::Watched,
            atomicity: Atomicity::Transaction,
            reverse_path: probed.reverse_path.is_there(),
            log: probed.log.is_there(),
            reject: probed.reject.is_there(),
            learned: true,
            ipv6: probed.ipv6.is_there(),
        };
        let encoder = Encoder::default();
        let (table, held, basis) = (TableFlags::OPEN, Held::No, None);
        let mut backend =
            Self { socket, encoder, options, probed, capabilities, table, held, basis, woken: false };
        let standing = observe::table(&mut backend.socket).map_err(failed)?;
        backend.settle(standing)?;
        Ok(backend)
    }

    /// Listens for other writers to our table.
    pub fn monitor(&self) -> Result<Monitor, BackendError> {
        Monitor::open(self.port())
    }

    /// The netlink port our writes come from: what a [`Monitor`] passes over.
    pub const fn port(&self) -> u32 {
        self.socket.port()
    }

    pub(crate) fn commit_ops(&mut self, ops: &[Op]) -> Result<Receipt, BackendError> {
        let generation = self.basis.take();
        let receipt = self.send(ops, generation, Finish::Commit)?;
        for op in ops {
            match op {
                Op::AddTable if self.table == TableFlags::OWNED => self.held = Held::Yes,
                Op::DeleteTable => self.held = Held::No,
                Op::AddTable
                | Op::AddSet(..)
                | Op::DeleteSet(_)
                | Op::AddChain(..)
                | Op::AddRules(..)
                | Op::FlushChain(_)
                | Op::DeleteChain(_)
                | Op::AddElements(..)
                | Op::RemoveElements(..) => {}
            }
        }
        Ok(receipt)
    }

    pub(crate) fn check_ops(&mut self, ops: &[Op]) -> Result<(), BackendError> {
        self.send(ops, None, Finish::DryRun).map(drop)
    }

    fn send(&mut self, ops: &[Op], generation: Option<u32>, finish: Finish) -> Result<Receipt, BackendError> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = Deadline(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let (first, table) = (self.socket.sequence(), self.table);
        let frame = Frame { first, generation, table, now, finish };
        let batch = self.encoder.write(ops, frame);
        let receipt = Receipt { messages: batch.len(), bytes: batch.bytes().len() };
        let reply = self.socket.batch(batch).map_err(failed)?;
        if !reply.refused.is_empty() {
            return Err(self.refused(ops, &reply));
        }
        if finish == Finish::Commit && self.probed.acknowledged_end.is_there() && !reply.acknowledged {
            let source = io::Error::other("no acknowledgement");
            return Err(BackendError::Io {
                doing: "committing: the kernel did not confirm".to_owned(),
                source,
            });
        }
        Ok(receipt)
    }

    fn refused(&mut self, ops: &[Op], reply: &Reply) -> BackendError {
        let error = refusal::explain(&self.encoder, ops, reply);
        let refusal::Explained::PerhapsOwned(error) = error else { return error.into() };
        match observe::table(&mut self.socket) {
            Ok(Some(Table { owner: Some(port), .. })) if port != self.socket.port() => owned_by(port),
            Ok(_) | Err(_) => error,
        }
    }

    /// Fits the guard to the table that stands, and takes the table where that is possible.
    fn settle(&mut self, standing: Option<Table>) -> Result<(), BackendError> {
        let wants = match self.options.guard {
            Guard::Watched => Guarded::Watched,
            Guard::Owned | Guard::Auto if self.probed.ownership.is_there() => Guarded::Owned,
            Guard::Auto => Guarded::Watched,
            Guard::Owned => {
                let needs = "owned tables that persist: use Linux 6.9, or let the guard be chosen".to_owned();
                return Err(BackendError::Unsupported { needs });
            }
        };
        match (standing, wants) {
            (Some(Table { owner: Some(port), .. }), _) if port != self.socket.port() => Err(owned_by(port)),
            (None, Guarded::Owned) => self.stand(TableFlags::OWNED, Held::No),
            (None, Guarded::Watched) => self.stand(TableFlags::OPEN, Held::No),
            (Some(Table { owner: Some(_), .. }), _) => self.stand(TableFlags::OWNED, Held::Yes),
            (Some(table), Guarded::Owned) if table.flags.is_orphan() => {
                self.reflag(TableFlags::OWNED)?;
                self.woken |= table.flags.is_dormant();
                self.stand(TableFlags::OWNED, Held::Yes)
            }
            (Some(_), Guarded::Owned) if self.options.guard == Guard::Owned => {
                let needs =
                    "a table that can be owned: the one that stands cannot; podwall teardown removes it";
                Err(BackendError::Unsupported { needs: needs.to_owned() })
            }
            (Some(table), _) => {
                let flags = table.flags.unowned().awake();
                if table.flags.is_dormant() {
                    self.reflag(flags)?;
                    self.woken = true;
                }
                self.stand(flags, Held::No)
            }
        }
    }

    fn stand(&mut self, table: TableFlags, held: Held) -> Result<(), BackendError> {
        let guard = if table == TableFlags::OWNED { Guarded::Owned } else { Guarded::Watched };
        (self.table, self.held, self.capabilities.guard) = (table, held, guard);
        Ok(())
    }

    /// Makes us the owner of a table that persisted without one, or wakes a dormant one.
    fn reflag(&mut self, flags: TableFlags) -> Result<(), BackendError> {
        let mut batch = Batch::default();
        batch.begin(Subsystem::Nftables, self.socket.sequence(), None);
        batch.message(header(NFT_MSG_NEWTABLE, Flags::NONE), |w| table::write(flags, w));
        batch.end(Subsystem::Nftables, Finish::Commit);
        let reply = self.socket.batch(&batch).map_err(failed)?;
        if reply.refused.is_empty() {
            return Ok(());
        }
        Err(self.refused(&[Op::AddTable], &reply))
    }

    /// One reading; `None` when others wrote meanwhile.
    fn read(&mut self) -> Result<Option<Observed>, BackendError> {
        let before = observe::generation(&mut self.socket).map_err(failed)?;
        let standing = observe::table(&mut self.socket).map_err(failed)?;
        self.settle(standing)?;
        let mut observed = if standing.is_some() {
            let Some(reading) = observe::read(&mut self.socket).map_err(failed)? else { return Ok(None) };
            Observed { ruleset: Some(reading.ruleset), alien: reading.alien }
        } else {
            Observed::default()
        };
        // Owned by us, the table cannot have changed, whatever others did to theirs; nor will it before we commit.
        self.basis = None;
        if self.held == Held::No {
            let after = observe::generation(&mut self.socket).map_err(failed)?;
            if before != after {
                return Ok(None);
            }
            self.basis = Some(after);
        }
        if std::mem::take(&mut self.woken) {
            observed.alien.push("the table was dormant: nothing was enforced".to_owned());
        }
        Ok(Some(observed))
    }
}

impl Backend for Nftables {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn observe(&mut self) -> Result<Observed, BackendError> {
        patiently("reading the table", || self.read())
    }

    fn check(&mut self, transaction: &Transaction) -> Result<(), BackendError> {
        self.check_ops(transaction.ops())
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<Receipt, BackendError> {
        self.commit_ops(transaction.ops())
    }

    fn sweep(&mut self) -> Result<(), BackendError> {
        let found = patiently("reading the table", || sweep::strangers(&mut self.socket).map_err(failed))?;
        if found.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.begin(Subsystem::Nftables, self.socket.sequence(), None);
        found.write(&mut batch);
        batch.end(Subsystem::Nftables, Finish::Commit);
        let reply = self.socket.batch(&batch).map_err(failed)?;
        match reply.refused.first() {
            None => Ok(()),
            Some((_, refusal)) => Err(BackendError::Io {
                doing: format!("taking {found} out of table inet podwall: {refusal}"),
                source: io::Error::from_raw_os_error(refusal.errno.0),
            }),
        }
    }

    fn counters(&mut self) -> Result<Vec<Counter>, BackendError> {
        patiently("reading counters", || observe::counters(&mut self.socket).map_err(failed))
    }

    fn hits(&mut self) -> Result<Vec<Hit>, BackendError> {
        patiently("reading hits of bans", || observe::hits(&mut self.socket).map_err(failed))
    }
}

/// The elements of our table that packets met, for whoever only looks: nothing is taken over.
pub fn hits() -> Result<Vec<Hit>, BackendError> {
    let mut socket = Socket::open().map_err(failed)?;
    patiently("reading hits", || observe::hits(&mut socket).map_err(failed))
}

/// Tries until nobody writes meanwhile: at 10 commits a second of others, one try in ten is disturbed.
fn patiently<T>(
    doing: &str,
    mut attempt: impl FnMut() -> Result<Option<T>, BackendError>,
) -> Result<T, BackendError> {
    for round in 0..ATTEMPTS {
        if let Some(done) = attempt()? {
            return Ok(done);
        }
        std::thread::sleep(Duration::from_millis(u64::from(round)));
    }
    let source = io::Error::from(io::ErrorKind::ResourceBusy);
    Err(BackendError::Io { doing: format!("{doing}: others change the rules all the time"), source })
}

fn owned_by(port: u32) -> BackendError {
    BackendError::Owned { detail: owner::describe(port) }
}

#[cfg(test)]
mod tests;

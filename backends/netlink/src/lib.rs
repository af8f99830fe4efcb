//! Netlink bytes and sockets, for nf_tables, conntrack and logged packets.
//!
//! Owns framing, attributes, batches, acknowledgements and the one kind of socket podwall needs
//! (`NETLINK_NETFILTER`, `linux/netlink.h`, `linux/netfilter/nfnetlink.h`). Knows nothing of tables, chains or
//! policies. Nothing a kernel or a hostile peer sends can make a reader panic: everything is bounds-checked.
//! All system calls go through safe wrappers; there is no `unsafe` here.

pub mod attribute;
pub mod batch;
pub mod conntrack;
pub mod errno;
pub mod error;
pub mod message;
pub mod nflog;
pub mod socket;

pub use attribute::{Attribute, Attributes, Writer};
pub use batch::{Batch, Finish, Position};
pub use conntrack::{Conntrack, Flow, Flows, Removal};
pub use errno::{Errno, Refusal};
pub use error::{Error, Malformed};
pub use message::{Flags, Header, Kind, Message, Messages, Subsystem};
pub use nflog::{Heard, Logged, Nflog};
pub use socket::{Consistency, Receipt, Reply, Socket};

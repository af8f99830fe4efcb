//! What podwall is measured against: the C libraries, through their Rust crates nftnl and mnl.
//!
//! [`Yardstick`] carries out the very transactions of the native backend, encoded a second time by hand through
//! libnftnl, so the figures differ by the encoder and the socket alone. That a table it loads reads back as the
//! ruleset it was given is a test: two encoders that share no code agree.
//!
//! rustables was weighed too and left out: it needs libclang to build, cannot write set elements with verdicts, cannot
//! send a batch of more than its socket buffer, and reads `policy drop` back as accept (`nftables.md` section 1).
mod c;
mod expressions;
mod keys;
mod yardstick;

pub use yardstick::{Failed, Yardstick};

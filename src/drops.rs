//! What was dropped, from whomever we hear of it: our own rules, or the log of another firewall.
//!
//! ```text
//! NFLOG (the agent) --+
//!                     +--> Record --> Report: names of both ends, and why --> events, metrics, live view
//! logs (`tail`) ------+
//! ```
//!
//! A [`Record`](record::Record) is what the packet says; a [`Report`](report::Report) what the cluster says of it.
//! Nothing here can change a verdict, and nothing waits for it: what is too much is counted and left out.
pub mod attribute;
pub mod events;
pub mod filter;
pub mod hub;
pub mod line;
pub mod memo;
pub mod packet;
pub mod pcap;
mod places;
pub mod record;
pub mod report;
pub mod reverse;
pub mod tally;
pub mod tenants;
pub mod words;
#[cfg(test)]
pub(crate) mod world;

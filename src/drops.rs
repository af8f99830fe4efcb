//! What was dropped, from whomever we hear of it: our own rules, or the log of another firewall.
//!
//! ```text
//! NFLOG (the agent) --+
//!                     +--> Record --> names of both ends --> events, metrics, live view
//! logs (`tail`) ------+
//! ```
pub mod record;

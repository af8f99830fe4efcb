//! `podwall tail`: drops of other firewalls, read from the logs they leave.
pub mod file;
pub mod journal;
pub mod line;
pub mod source;
pub mod stamp;

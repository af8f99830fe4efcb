//! `podwall tail`: drops of other firewalls, read from the logs they leave.
pub mod line;
pub mod stamp;

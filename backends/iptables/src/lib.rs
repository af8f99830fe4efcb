//! The fallback backend: rulesets as iptables and ipset text, and back.
//!
//! ```text
//! Op -> lower -> Image -> restore, ipset -> exec -> kernel      kernel -> save -> restore, ipset -> observe -> Ruleset
//! ```
//!
//! Everything lives in the mangle table (decision L10): it has all five hooks and is nobody's filter. One neutral
//! object becomes n kernel objects (`lower`); each carries in its comment what it came from (`tag`), so that
//! what stands is folded back by reading the comments and **lowering the result again**: whatever does not come out
//! as it stands is alien.

mod backend;
mod detect;
mod detour;
mod exec;
mod image;
mod ipset;
mod lower;
mod names;
mod observe;
mod own;
mod probe;
mod protocols;
mod remains;
mod restore;
mod spelling;
mod tag;
mod text;

pub use backend::{Iptables, Options, hits};
pub use detour::IptablesDetour;
pub use probe::{Choice, Variant};
pub use remains::Remains;
pub use text::{Listing, listing};

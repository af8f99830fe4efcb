//! What podwall reads from annotations of objects that are not its own.

/// How all of them begin; one that begins so and is not known is warned of.
pub const PREFIX: &str = "podwall.dev/";

/// On a NetworkPolicy: whether it is enforced ([`ENFORCE`], as without it) or only audited ([`AUDIT`]).
pub const MODE: &str = "podwall.dev/mode";

/// The policy is judged, and what it would drop is counted and recorded; it drops nothing.
pub const AUDIT: &str = "audit";

/// The policy is enforced.
pub const ENFORCE: &str = "enforce";

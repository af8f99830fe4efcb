//! How long a test waits for what must happen: the longer, the slower its machine is said to be.
use std::time::Duration;

/// So many times as long, where `PODWALL_TEST_SLOWNESS` says so: an emulated processor needs ten times as long.
///
#[must_use]
pub fn stretched(time: Duration) -> Duration {
    let slowness = std::env::var("PODWALL_TEST_SLOWNESS").ok().and_then(|text| text.parse().ok());
    time * slowness.unwrap_or(1)
}

//! How long a watch has been away, and how long to wait before asking again.
//!
//! A watch that is away for a few seconds is nothing: every one ends after five minutes. After [`STALE`] the planner
//! is told, because from then on pods may have come that we know nothing of (decision L7).
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::agent::input::{Feed, Input, Inputs, Stopping};
use crate::telemetry::metrics::Metrics;

/// Away for longer than this is stale.
pub(super) const STALE: Duration = Duration::from_secs(3);
/// The first pause after a failure; each further one is twice as long.
const SHORTEST: Duration = Duration::from_millis(250);
/// The longest pause: an API server that comes back after hours is noticed within this.
const LONGEST: Duration = Duration::from_secs(20);
/// How often an unchanged reason is said again.
const REMIND: Duration = Duration::from_secs(60);

/// One watch's connection to the API server.
#[derive(Debug)]
pub(super) struct Connection {
    feed: Feed,
    inputs: Inputs,
    metrics: Arc<Metrics>,
    away: Option<Away>,
}

#[derive(Debug)]
struct Away {
    since: Instant,
    reason: String,
    failures: u32,
    told_stale: bool,
    logged: Instant,
}

impl Connection {
    /// A connection that was never up: the time counts from now.
    pub(super) fn new(feed: Feed, inputs: Inputs, metrics: Arc<Metrics>) -> Self {
        metrics.watch_connected.get_or_create(&feed.kind().into()).set(0);
        let mut connection = Self { feed, inputs, metrics, away: None };
        connection.leave("the first list is not complete");
        connection
    }

    /// The watch is up.
    pub(super) async fn stands(&mut self) -> Result<(), Stopping> {
        self.metrics.watch_connected.get_or_create(&self.feed.kind().into()).set(1);
        let Some(away) = self.away.take() else { return Ok(()) };
        if away.failures > 0 {
            tracing::info!(watch = self.feed.as_str(), away = ?away.since.elapsed(), "watching again");
        }
        self.inputs.send(Input::Watch(self.feed, None)).await
    }

    /// A list was read whole: as of now nothing is missed, though the watch does not stand yet.
    pub(super) async fn listed(&mut self) -> Result<(), Stopping> {
        let Some(away) = &mut self.away else { return Ok(()) };
        away.since = Instant::now();
        if std::mem::take(&mut away.told_stale) {
            self.inputs.send(Input::Watch(self.feed, None)).await?;
        }
        Ok(())
    }

    /// The watch is over; no failure by itself, but the time counts until the next one stands.
    pub(super) fn ended(&mut self) {
        self.metrics.watch_connected.get_or_create(&self.feed.kind().into()).set(0);
        self.leave("the watch ended");
    }

    /// Notes a failure, then waits: longer after each, at random, so that a fleet does not come back as one.
    pub(super) async fn failed(&mut self, reason: &str) -> Result<(), Stopping> {
        self.metrics.watch_connected.get_or_create(&self.feed.kind().into()).set(0);
        self.metrics.watch_restarts.get_or_create(&self.feed.kind().into()).inc();
        let feed = self.feed;
        let away = self.leave(reason);
        away.failures += 1;
        if away.failures == 1 || away.logged.elapsed() >= REMIND {
            away.logged = Instant::now();
            tracing::warn!(watch = feed.as_str(), failures = away.failures, "{reason}");
        }
        let pause = pause(away.failures);
        self.patiently(tokio::time::sleep(pause)).await
    }

    /// Waits for the future; tells the planner when the watch turns stale meanwhile.
    pub(super) async fn patiently<F: Future>(&mut self, future: F) -> Result<F::Output, Stopping> {
        let mut future = std::pin::pin!(future);
        let Some(away) = self.away.as_mut().filter(|away| !away.told_stale) else { return Ok(future.await) };
        let stale = tokio::time::sleep_until(away.since + STALE);
        tokio::select! {
            biased;
            output = &mut future => return Ok(output),
            () = stale => {}
        }
        away.told_stale = true;
        let reason = away.reason.clone();
        self.inputs.send(Input::Watch(self.feed, Some(reason))).await?;
        Ok(future.await)
    }

    fn leave(&mut self, reason: &str) -> &mut Away {
        let now = Instant::now();
        let away = self.away.get_or_insert_with(|| Away {
            since: now,
            reason: String::new(),
            failures: 0,
            told_stale: false,
            logged: now,
        });
        if away.reason != reason {
            reason.clone_into(&mut away.reason);
            // New words are worth telling even when the planner knows that the watch is away.
            away.told_stale = false;
        }
        away
    }
}

/// How long a watch may last on the server's side: four to five minutes, spread over a fleet. kube refuses 295 and
/// more.
pub(crate) fn watch_seconds() -> u32 {
    240 + u32::try_from(chance() % 50).unwrap_or_default()
}

/// Half to all of `SHORTEST * 2^(failures - 1)`, capped.
pub(crate) fn pause(failures: u32) -> Duration {
    let whole =
        LONGEST.min(SHORTEST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16))));
    whole / 2 + whole.mul_f64((chance() % 1000) as f64 / 2000.0)
}

/// The standard library's only source of randomness; good enough to spread a fleet.
pub(crate) fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_bounds() {
        for failures in 1..40 {
            let longest = LONGEST.min(SHORTEST * 2_u32.pow((failures - 1).min(10)));
            let pause = pause(failures);
            assert!(pause >= longest / 2 && pause <= longest, "{failures}: {pause:?}");
        }
        assert!((240..290).contains(&watch_seconds()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_away_for_a_moment_is_not_stale_but_after_three_seconds_it_is() {
        let (inputs, mut received) = Inputs::channel();
        let mut connection = Connection::new(Feed::Pods, inputs, Arc::default());
        connection.stands().await.unwrap();
        assert!(matches!(received.recv().await.unwrap().input, Input::Watch(Feed::Pods, None)));
        connection.failed("refused").await.unwrap();
        connection.patiently(tokio::time::sleep(Duration::from_secs(1))).await.unwrap();
        assert!(received.try_recv().is_err());
        connection.patiently(tokio::time::sleep(Duration::from_secs(5))).await.unwrap();
        let told = received.recv().await.unwrap().input;
        assert!(matches!(told, Input::Watch(Feed::Pods, Some(reason)) if reason == "refused"));
        connection.stands().await.unwrap();
        assert!(matches!(received.recv().await.unwrap().input, Input::Watch(Feed::Pods, None)));
    }
}

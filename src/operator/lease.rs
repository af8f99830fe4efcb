//! Leader election: at most one operator writes, by a `coordination.k8s.io` Lease.
//!
//! The algorithm is client-go's (`tools/leaderelection`): whoever holds the lease renews it; others take it once they
//! have seen it unchanged for its whole duration by their own clock, so that clocks need not agree; who cannot renew
//! in time stops before anybody else may start. Renewals carry the version they were made from, so two can never take
//! the lease from the same one.
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::Instant;

use crate::agent::watch::words;

/// Name of the lease.
pub const NAME: &str = "podwall-operator";

/// Why this operator no longer leads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Somebody else does.
    #[error("{0} leads now")]
    Taken(String),
    /// The lease could not be renewed in time.
    #[error("the lease could not be renewed: {0}")]
    Late(String),
}

/// One candidate.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    duration: Duration,
    /// The lease as it was last seen, and since when.
    seen: Option<(Lease, Instant)>,
}

impl Candidate {
    /// A candidate for the lease in a namespace.
    pub fn new(client: Client, namespace: &str, identity: String, duration: Duration) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, duration, seen: None }
    }

    /// Returns when this candidate leads.
    pub async fn win(&mut self) {
        let mut told: Option<String> = None;
        loop {
            match self.attempt().await {
                Ok(None) => return,
                Ok(Some(holder)) => {
                    if told.as_ref() != Some(&holder) {
                        tracing::info!("{holder} leads; waiting for its lease");
                        told = Some(holder);
                    }
                }
                Err(error) => tracing::warn!("asking for the lease: {}", words(&error)),
            }
            tokio::time::sleep(self.retry()).await;
        }
    }

    /// Renews until that fails.
    pub async fn hold(&mut self) -> Lost {
        let mut renewed = Instant::now();
        let mut reason = "no answer".to_owned();
        loop {
            tokio::time::sleep(self.retry()).await;
            let deadline = renewed + self.duration * 2 / 3;
            match tokio::time::timeout_at(deadline, self.attempt()).await {
                Ok(Ok(None)) => renewed = Instant::now(),
                Ok(Ok(Some(holder))) => return Lost::Taken(holder),
                Ok(Err(error)) => reason = words(&error),
                Err(_) => return Lost::Late(reason),
            }
            if Instant::now() >= deadline {
                return Lost::Late(reason);
            }
        }
    }

    /// Lets others start at once. Best effort: the lease runs out by itself.
    pub async fn release(&mut self) {
        let Some((mut lease, _)) = self.seen.take().filter(|(lease, _)| holder(lease) == self.identity)
        else {
            return;
        };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        let replaced = tokio::time::timeout(self.retry(), self.replace(&lease)).await;
        if !matches!(replaced, Ok(Ok(_))) {
            tracing::info!("the lease was not released; it runs out by itself");
        }
    }

    const fn retry(&self) -> Duration {
        Duration::from_millis(self.duration.as_millis() as u64 * 2 / 15)
    }

    /// Takes or renews the lease. `Some`: somebody else holds it.
    async fn attempt(&mut self) -> kube::Result<Option<String>> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(&LeaseSpec::default())) };
            let made = self.api.create(&PostParams::default(), &lease).await?;
            self.seen = Some((made, Instant::now()));
            return Ok(None);
        };
        let now = Instant::now();
        let since = match &self.seen {
            Some((seen, since)) if seen.spec == lease.spec => *since,
            Some(_) | None => now,
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let renewed = Lease { spec: Some(self.spec(&spec)), ..lease.clone() };
        let holder = holder(&lease).to_owned();
        self.seen = Some((lease, since));
        if !may_take(&spec, &self.identity, now.saturating_duration_since(since)) {
            return Ok(Some(holder));
        }
        let made = self.replace(&renewed).await?;
        self.seen = Some((made, now));
        Ok(None)
    }

    async fn replace(&self, lease: &Lease) -> kube::Result<Lease> {
        self.api.replace(NAME, &PostParams::default(), lease).await
    }

    /// The lease as this candidate holds it.
    fn spec(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let ours = before.holder_identity.as_deref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX).max(1)),
            acquire_time: before.acquire_time.clone().filter(|_| ours).or_else(|| now.clone()),
            renew_time: now,
            lease_transitions: Some(before.lease_transitions.unwrap_or_default() + i32::from(!ours)),
            ..LeaseSpec::default()
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// Whether a lease that has stood like this for so long may be taken or renewed.
fn may_take(lease: &LeaseSpec, identity: &str, unchanged: Duration) -> bool {
    let holder = lease.holder_identity.as_deref().unwrap_or_default();
    let lasts = u64::try_from(lease.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
    holder.is_empty() || holder == identity || unchanged >= Duration::from_secs(lasts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_free_ours_or_unchanged_for_its_whole_duration() {
        let lease = |holder: &str| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        };
        let seconds = Duration::from_secs;
        assert!(may_take(&LeaseSpec::default(), "a", seconds(0)));
        assert!(may_take(&lease(""), "a", seconds(0)));
        assert!(may_take(&lease("a"), "a", seconds(0)));
        assert!(!may_take(&lease("b"), "a", seconds(14)));
        assert!(may_take(&lease("b"), "a", seconds(15)));
    }
}

//! Drops of the whole cluster, from the events that agents write.
//!
//! Each drop is told on both ends; it is shown once, and when its count goes on, once more with what it grew by.
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::events::v1::Event;
use kube::Client;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};

use super::feed::{Feed, Into, News};
use crate::cli::CliError;
use crate::cli::cluster::{config, refused};
use crate::drops::events::form::DROP_ANNOTATION;
use crate::drops::filter::Filter;
use crate::drops::line::Line;

/// How long until a watch that broke is begun again.
const AGAIN: Duration = Duration::from_secs(1);
/// Events remembered.
const MOST: usize = 100_000;

/// Connects, and watches until it is no longer wanted.
pub(super) fn feed(
    (kubeconfig, context): (Option<PathBuf>, Option<String>),
    reason: String,
    filter: Filter,
) -> Result<Feed, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::io("starting the runtime", source))?;
    let config = runtime.block_on(config(kubeconfig.as_deref(), context))?;
    let client = {
        let _inside = runtime.enter();
        Client::try_from(config).map_err(|error| refused("reading the kubeconfig", error))?
    };
    let api: Api<Event> = Api::all(client);
    Feed::start(move |into| {
        let mut shown = Shown { filter, counts: HashMap::new() };
        runtime.block_on(async {
            loop {
                match follow(&api, &reason, &mut shown, into).await {
                    Ok(Reader::Gone) => return,
                    Ok(Reader::There) => {}
                    Err(source) => {
                        // Whoever has nothing to look at yet is told why; whoever has, waits.
                        if shown.counts.is_empty() {
                            drop(into.send(Err(refused("watching events", source))));
                            return;
                        }
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
    })
}

/// Does anybody read?
enum Reader {
    There,
    Gone,
}

async fn follow(api: &Api<Event>, reason: &str, shown: &mut Shown, into: &Into) -> kube::Result<Reader> {
    let field = format!("reason={reason}");
    let first = shown.counts.is_empty();
    let list = api.list(&ListParams::default().fields(&field)).await?;
    for event in &list.items {
        let news = shown.news(event);
        // What was before is not shown, what was missed is.
        if let Some(line) = news.filter(|_| !first)
            && into.send(Ok(News::Drop(Box::new(line)))).is_err()
        {
            return Ok(Reader::Gone);
        }
    }
    let version = list.metadata.resource_version.unwrap_or_default();
    let mut events = api.watch(&WatchParams::default().fields(&field), &version).await?.boxed();
    while let Some(event) = events.try_next().await? {
        let (WatchEvent::Added(event) | WatchEvent::Modified(event)) = event else { continue };
        if let Some(line) = shown.news(&event)
            && into.send(Ok(News::Drop(Box::new(line)))).is_err()
        {
            return Ok(Reader::Gone);
        }
    }
    Ok(Reader::There)
}

/// What was shown already.
struct Shown {
    filter: Filter,
    counts: HashMap<String, u64>,
}

impl Shown {
    fn news(&mut self, event: &Event) -> Option<Line> {
        let annotation = event.metadata.annotations.as_ref()?.get(DROP_ANNOTATION)?;
        let mut line: Line = serde_json::from_str(annotation).ok()?;
        let count = event.series.as_ref().map_or(1, |series| u64::try_from(series.count).unwrap_or(1));
        // Both ends tell the same packets.
        let alike = format!(
            "{} {} {} {} {} {:?}",
            line.node,
            line.source.address,
            line.destination.address,
            line.service(),
            line.chain,
            line.policies
        );
        if self.counts.len() >= MOST {
            self.counts.clear();
        }
        let before = self.counts.entry(alike).or_default();
        if count <= *before {
            return None;
        }
        line.packets = count - *before;
        *before = count;
        if let Some(series) = &event.series {
            line.time = series.last_observed_time.0.to_string();
        }
        self.filter.takes(&line).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(uid: &str, count: Option<u32>) -> Event {
        let line = json!({"time": "2026-11-21T08:00:00Z", "node": "n1", "verdict": "dropped", "reason": "policy",
            "protocol": "TCP", "chain": "i4_x", "why": "", "policies": ["shop/web-in"],
            "source": {"address": "10.0.0.2", "kind": "pod", "namespace": "shop", "name": "friend"},
            "destination": {"address": "10.0.0.1", "port": 8443, "kind": "pod", "namespace": "shop", "name": "web"}});
        let series =
            count.map(|count| json!({"count": count, "lastObservedTime": "2026-11-21T08:01:00.000000Z"}));
        serde_json::from_value(json!({
            "metadata": {"name": uid, "namespace": "shop", "annotations": {DROP_ANNOTATION: line.to_string()}},
            "eventTime": "2026-11-21T08:00:00.000000Z", "series": series, "regarding": {"uid": uid},
        }))
        .unwrap()
    }

    #[test]
    fn a_drop_told_on_both_ends_is_shown_once_and_again_with_what_came_after() {
        let mut shown = Shown { filter: Filter::default(), counts: HashMap::new() };
        let mut packets = |uid: &str, count| shown.news(&event(uid, count)).map(|line| line.packets);
        assert_eq!(packets("friend", None), Some(1));
        assert_eq!(packets("web", None), None);
        assert_eq!(packets("web", Some(10)), Some(9));
        assert_eq!(packets("friend", Some(10)), None);
    }

    #[test]
    fn events_of_others_are_left_alone() {
        let mut shown = Shown { filter: Filter::default(), counts: HashMap::new() };
        let mut other = event("friend", None);
        other.metadata.annotations = None;
        assert_eq!(shown.news(&other), None);
    }
}

//! `kubectl describe pod` tells of dropped packets: on both ends, within two seconds, with the rights the chart ships.
use std::time::{Duration, Instant};

use podwall_lab::Outcome;
use serde_json::Value;

use crate::site::{Failure, ONLY_FRIENDS, Site, namespace};

/// The issue's own limit.
const LIMIT: Duration = Duration::from_secs(2);

/// Every event about a drop, once there are so many or the time is over.
fn events(site: &Site, number: usize, patience: Duration) -> Result<Vec<Value>, Failure> {
    let begun = Instant::now();
    loop {
        let words =
            ["get", "events.events.k8s.io", "-A", "-o", "json", "--field-selector", "reason=PacketDrop"];
        let (done, said) = site.kubectl(&words)?;
        let found: Value = if done { serde_json::from_str(&said)? } else { return Err(said.into()) };
        let items = found.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        if items.len() >= number || begun.elapsed() > patience {
            return Ok(items);
        }
    }
}

fn describe(site: &Site, pod: &str) -> Result<String, Failure> {
    let (namespace, name) = pod.split_once('/').unwrap_or_default();
    let (done, said) = site.kubectl(&["describe", "pod", "-n", namespace, name])?;
    if done { Ok(said) } else { Err(said.into()) }
}

#[test]
fn both_pods_of_a_dropped_packet_tell_of_it_within_two_seconds_and_a_flood_is_one_event()
-> Result<(), Failure> {
    let Some(site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.becomes("shop/friend", "shop/server", 80, Outcome::Open)?;
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(events(&site, 1, Duration::ZERO)?, Vec::<Value>::new(), "what passes is not told");
    let begun = Instant::now();
    site.reach("other/visitor", "shop/server", 80)?;
    let found = loop {
        let found = [describe(&site, "shop/server")?, describe(&site, "other/visitor")?];
        if found.iter().all(|text| text.contains("PacketDrop")) || begun.elapsed() > LIMIT * 3 {
            break found;
        }
    };
    let took = begun.elapsed();
    println!("told on both pods {took:?} after the first packet");
    let [server, visitor] = found;
    let why = "on port 80/TCP: shop/server is isolated for ingress by shop/only-friends; nearest rule: \
               shop/only-friends ingress[0]: it allows traffic from pods app=friend in namespace shop";
    assert!(server.contains("Packet dropped when receiving traffic from other/visitor (10."), "{server}");
    assert!(visitor.contains("Packet dropped when sending traffic to shop/server (10."), "{visitor}");
    for text in [&server, &visitor] {
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(&why.split_whitespace().collect::<Vec<_>>().join(" ")), "{text}");
        assert!(flat.contains("Warning PacketDrop") && flat.contains("podwall.dev/agent"), "{text}");
    }
    assert!(took < LIMIT, "{took:?}");
    for _ in 0..5 {
        site.reach("other/visitor", "shop/server", 80)?;
    }
    std::thread::sleep(Duration::from_secs(11));
    let found = events(&site, 3, Duration::ZERO)?;
    assert_eq!(found.len(), 2, "never twice: {found:#?}");
    for event in found {
        assert!(event["series"]["count"].as_u64().unwrap_or_default() > 10, "{event:#}");
        assert_eq!(event["reportingInstance"], "node-a");
    }
    Ok(())
}

#[test]
fn a_label_keeps_a_pod_or_a_namespace_from_being_told() -> Result<(), Failure> {
    let Some(site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.apply(&namespace("other", "team: other, podwall.dev/drop-reports: \"off\""))?;
    site.becomes("shop/stranger", "shop/server", 80, Outcome::TimedOut)?;
    site.becomes("other/visitor", "shop/server", 80, Outcome::TimedOut)?;
    let found = events(&site, 3, Duration::from_secs(3))?;
    let told = |pod: &str| found.iter().any(|event| event["regarding"]["name"] == *pod);
    assert_eq!(["stranger", "server", "visitor"].map(told), [true, true, false], "{found:#?}");
    Ok(())
}

#[test]
fn an_agent_that_was_killed_counts_on_in_the_same_events() -> Result<(), Failure> {
    let Some(mut site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.becomes("shop/stranger", "shop/server", 80, Outcome::TimedOut)?;
    let before = events(&site, 2, Duration::from_secs(3))?;
    assert_eq!(before.len(), 2, "{before:#?}");
    site.kill_agent("node-a");
    site.start_agent("node-a")?;
    site.reach("shop/stranger", "shop/server", 80)?;
    let begun = Instant::now();
    loop {
        let after = events(&site, 3, Duration::ZERO)?;
        assert_eq!(after.len(), 2, "{after:#?}");
        if after.iter().all(|event| event["series"]["count"].as_u64() > Some(1)) {
            return Ok(());
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{after:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn what_an_audited_policy_would_drop_passes_and_is_told_as_such_until_it_is_enforced() -> Result<(), Failure>
{
    let Some(site) = Site::shop()? else { return Ok(()) };
    let audited =
        ONLY_FRIENDS.replacen("metadata:", "metadata:\n  annotations: {podwall.dev/mode: audit}", 1);
    site.apply(&audited)?;
    std::thread::sleep(Duration::from_secs(1));
    site.becomes("other/visitor", "shop/server", 80, Outcome::Open)?;
    let found = events(&site, 2, Duration::from_secs(3))?;
    assert_eq!(found.len(), 2, "{found:#?}");
    for event in &found {
        let note = event["note"].as_str().unwrap_or_default();
        assert!(note.starts_with("Packet would be dropped when"), "{event:#}");
        assert!(note.contains("would be isolated for ingress by shop/only-friends"), "{event:#}");
        assert_eq!(event["action"], "Audit");
    }
    site.apply(ONLY_FRIENDS)?;
    site.becomes("other/visitor", "shop/server", 80, Outcome::TimedOut)?;
    let found = events(&site, 4, Duration::from_secs(3))?;
    let dropped = found.iter().filter(|event| event["action"] == "Drop").count();
    assert_eq!((found.len(), dropped), (4, 2), "{found:#?}");
    Ok(())
}

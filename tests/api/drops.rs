//! `kubectl describe pod` tells of dropped packets: on both ends, within two seconds, with the rights the chart ships.
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use podwall_lab::{Flood, Forged, Outcome, Payload, PodPlan, Probe};
use podwall_testkit::process::Usage;
use serde_json::Value;

use crate::rbac::without;
use crate::site::{Failure, ONLY_FRIENDS, Site, agent_rbac, namespace, pod};

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

/// Two thousand strangers at once, each with ports of their own: nobody has an event for each of them.
#[test]
fn a_flood_from_thousands_of_addresses_is_a_handful_of_events_and_changes_no_verdict() -> Result<(), Failure>
{
    let Some(mut site) = Site::shop()? else { return Ok(()) };
    site.lab.add_host("outside", &[])?;
    site.apply(ONLY_FRIENDS)?;
    site.only("shop/friend", "other/visitor", "shop/server", 80)?;
    let server = site.lab.pod("shop/server")?.addresses().to_vec();
    let flood = (0..2048_u16).flat_map(|number| {
        server.iter().map(move |server| Forged {
            source: match server {
                IpAddr::V4(_) => IpAddr::from((0xc612_0000 + u32::from(number)).to_be_bytes()),
                IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0xf, 0, 0, 0, 0, number]),
            },
            destination: *server,
            payload: Payload::Udp { from: 1024 + number * 7, to: 9, data: Vec::new() },
        })
    });
    let mut flood: Vec<Forged> = flood.collect();
    flood.sort_by_key(|packet| packet.destination);
    let agent = site.agent_pid("node-a")?;
    let before = Usage::of(agent)?;
    let flood = Flood::start(site.lab.host("outside")?.netns(), &flood, 20_000)?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        let reached = |from: &str| site.reach(from, "shop/server", 80);
        assert_eq!(reached("other/visitor")?, [Outcome::TimedOut; 2]);
        site.becomes("shop/friend", "shop/server", 80, Outcome::Open)?;
    }
    let (poured, after) = (flood.end()?, Usage::of(agent)?);
    println!("{poured:?} {before:?} {after:?}");
    std::thread::sleep(Duration::from_secs(2));
    let found = events(&site, usize::MAX, Duration::ZERO)?;
    let written = site.metric("node-a", "podwall_drop_events_total")?;
    // Eight kinds and all the rest on the server, and one on the visitor.
    assert!((3..=10).contains(&found.len()), "{}", found.len());
    assert!(written <= 40, "{written} writes");
    assert!(after.resident < before.resident + (50 << 20), "{before:?} {after:?}");
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
        ONLY_FRIENDS.replacen("metadata: {", "metadata: {annotations: {podwall.dev/mode: audit}, ", 1);
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

#[test]
fn a_pod_of_which_only_the_end_was_told_gets_its_event() -> Result<(), Failure> {
    let Some(mut site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.becomes("shop/stranger", "shop/server", 80, Outcome::TimedOut)?;
    let started = Timestamp::now() - Duration::from_secs(1);
    let addresses = site.lab.add_pod(PodPlan::new("shop/brief").on("node-b"))?.addresses().to_vec();
    site.reach("shop/brief", "shop/server", 80)?;
    let ended = pod("shop/brief", "node-b", "app: brief", &addresses).replace(
        "phase: Running",
        &format!("phase: Succeeded, startTime: \"{}\"", started.strftime("%FT%TZ")),
    );
    site.apply(&ended)?;
    let found = events(&site, 4, Duration::from_secs(4))?;
    let told = |name: &str| found.iter().filter(|event| event["regarding"]["name"] == *name).count();
    assert_eq!((told("brief"), told("stranger"), told("server")), (1, 1, 2), "{found:#?}");
    Ok(())
}

#[test]
fn a_node_is_told_on_its_own_object() -> Result<(), Failure> {
    let Some(site) = Site::shop()? else { return Ok(()) };
    site.apply(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: shop, name: mute}\n\
         spec: {podSelector: {matchLabels: {app: stranger}}, policyTypes: [Egress]}\n",
    )?;
    site.becomes("shop/stranger", "shop/server", 80, Outcome::TimedOut)?;
    let from = site.lab.pod("shop/stranger")?.netns();
    for address in site.lab.node("node-a")?.addresses() {
        assert_eq!(Probe::ping(*address).from(from)?.outcome, Outcome::TimedOut);
        let server = site.lab.pod("shop/server")?.netns();
        assert_eq!(Probe::ping(*address).from(server)?.outcome, Outcome::Open);
    }
    let begun = Instant::now();
    loop {
        let (_, said) = site.kubectl(&["describe", "node", "node-a"])?;
        if said.contains("Packet dropped when receiving traffic from shop/stranger (10.") {
            assert!(said.contains("by ICMP type 8 code 0"), "{said}");
            return Ok(());
        }
        assert!(begun.elapsed() < LIMIT * 2, "{said}");
    }
}

#[test]
fn what_was_dropped_while_the_api_server_was_away_is_told_when_it_is_back() -> Result<(), Failure> {
    let Some(mut site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.becomes("shop/friend", "shop/server", 80, Outcome::Open)?;
    site.becomes("shop/friend", "shop/server", 81, Outcome::TimedOut)?;
    std::thread::sleep(LIMIT);
    let before = events(&site, 2, Duration::ZERO)?.len();
    site.api.stop_apiserver();
    for _ in 0..4 {
        site.reach("shop/stranger", "shop/server", 80)?;
        std::thread::sleep(Duration::from_secs(1));
    }
    site.runtime.block_on(site.api.start_apiserver_again())?;
    let found = events(&site, before + 2, Duration::from_secs(60))?;
    let count = |event: &Value| event["series"]["count"].as_u64().unwrap_or(1);
    let missed: Vec<u64> = found
        .iter()
        .filter(|event| ["regarding", "related"].iter().any(|end| event[end]["name"] == "stranger"))
        .map(count)
        .collect();
    assert_eq!(missed.len(), 2, "{found:#?}");
    assert!(missed.iter().all(|count| *count >= 8), "{missed:?}");
    Ok(())
}

#[test]
fn the_whole_cluster_is_watched_through_the_api_and_each_drop_is_shown_once() -> Result<(), Failure> {
    let Some(site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.becomes("shop/friend", "shop/server", 80, Outcome::Open)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
    command.args(["drops", "--cluster", "--output", "json", "--namespace", "other", "--kubeconfig"]);
    let child =
        command.arg(site.api.admin_kubeconfig()).stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_secs(1));
    site.reach("shop/stranger", "shop/server", 80)?;
    site.reach("other/visitor", "shop/server", 80)?;
    std::thread::sleep(LIMIT);
    let mut child = child;
    child.kill()?;
    let shown = String::from_utf8(child.wait_with_output()?.stdout)?;
    let lines: Vec<Value> = shown.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let ends = |line: &Value| (line["source"]["name"].clone(), line["destination"]["name"].clone());
    let sources: Vec<_> = lines.iter().map(ends).collect();
    // Two addresses, so at most two lines; both ends of each are told.
    assert!((1..=2).contains(&sources.len()), "{shown}");
    assert!(sources.iter().all(|ends| *ends == ("visitor".into(), "server".into())), "{shown}");
    Ok(())
}

const EVENTS: &str = "resources: [events]\n    verbs: [create, patch]";

#[test]
fn making_events_and_counting_on_in_them_are_both_needed() -> Result<(), Failure> {
    let Some(site) = Site::shop()? else { return Ok(()) };
    site.apply(&without(&agent_rbac(), EVENTS, "create"))?;
    site.apply(ONLY_FRIENDS)?;
    site.becomes("other/visitor", "shop/server", 80, Outcome::TimedOut)?;
    assert_eq!(events(&site, 1, Duration::from_secs(4))?, Vec::<Value>::new());
    // The twin; pauses between attempts have grown by now.
    site.apply(&without(&agent_rbac(), EVENTS, "patch"))?;
    site.reach("other/visitor", "shop/server", 80)?;
    assert_eq!(events(&site, 2, Duration::from_secs(40))?.len(), 2);
    let counts = || -> Result<Vec<Option<u64>>, Failure> {
        Ok(events(&site, 2, Duration::ZERO)?.iter().map(|event| event["series"]["count"].as_u64()).collect())
    };
    let before = counts()?;
    for _ in 0..12 {
        site.reach("other/visitor", "shop/server", 80)?;
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(counts()?, before, "nobody may count on");
    site.apply(&agent_rbac())?;
    let begun = Instant::now();
    while counts()?.iter().zip(&before).any(|(now, before)| now <= before) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", counts()?);
        site.reach("other/visitor", "shop/server", 80)?;
    }
    Ok(())
}

//! `kubectl describe pod` tells of dropped packets: on both ends, within two seconds, with the rights the chart ships.
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use podwall_lab::{Flood, Forged, Outcome, Payload, PodPlan, Probe};
use podwall_testkit::process::Usage;
use serde_json::Value;

use crate::rbac::without;
use crate::site::{Failure, ONLY_FRIENDS, Site, agent_rbac, namespace, pod};

/// The issue's own limit.
const LIMIT: Duration = Duration::from_secs(2);

/// How long what must come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// What both pods say of a packet to a port, once they both do, and how long after it that was.
fn told_of(site: &Site, port: u16) -> Result<([String; 2], Duration), Failure> {
    let begun = Instant::now();
    site.reach("other/visitor", "shop/server", port)?;
    loop {
        let found = [describe(site, "shop/server")?, describe(site, "other/visitor")?];
        let took = begun.elapsed();
        if found.iter().all(|text| text.contains(&format!("on port {port}/TCP"))) || took > PATIENCE {
            return Ok((found, took));
        }
    }
}

#[test]
fn both_pods_of_a_dropped_packet_tell_of_it_within_two_seconds_and_a_flood_is_one_event()
-> Result<(), Failure> {
    let Some(site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.becomes("shop/friend", "shop/server", 80, Outcome::Open)?;
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(events(&site, 1, Duration::ZERO)?, Vec::<Value>::new(), "what passes is not told");
    let ([server, visitor], first) = told_of(&site, 80)?;
    let why = "on port 80/TCP: shop/server is isolated for ingress by shop/only-friends; nearest rule: \
               shop/only-friends ingress[0]: it allows traffic from pods app=friend in namespace shop";
    assert!(server.contains("Packet dropped when receiving traffic from other/visitor (10."), "{server}");
    assert!(visitor.contains("Packet dropped when sending traffic to shop/server (10."), "{visitor}");
    for text in [&server, &visitor] {
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(&why.split_whitespace().collect::<Vec<_>>().join(" ")), "{text}");
        assert!(flat.contains("Warning PacketDrop") && flat.contains("podwall.dev/agent"), "{text}");
    }
    for _ in 0..5 {
        site.reach("other/visitor", "shop/server", 80)?;
    }
    let counted = |event: &Value| event["series"]["count"].as_u64() > Some(10);
    let begun = Instant::now();
    while !events(&site, 2, PATIENCE)?.iter().all(counted) && begun.elapsed() < PATIENCE * 2 {}
    let found = events(&site, 2, Duration::ZERO)?;
    assert!(found.len() == 2 && found.iter().all(counted), "never twice: {found:#?}");
    assert!(found.iter().all(|event| event["reportingInstance"] == "node-a"), "{found:#?}");
    // The best of some: what a busy machine adds, kubectl's own time among it, is not the agent's.
    let mut times = vec![first];
    for port in [82, 83, 84] {
        if times.iter().all(|took| *took > LIMIT) {
            times.push(told_of(&site, port)?.1);
        }
    }
    println!("told on both pods after {times:?}");
    assert!(times.iter().any(|took| *took < LIMIT), "{times:?}");
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
    events(&site, 3, PATIENCE)?;
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
    site.apply(&namespace("other", "team: other, podwall.dev/drop-reports: \"off\""))?;
    site.apply(ONLY_FRIENDS)?;
    site.becomes("shop/stranger", "shop/server", 80, Outcome::TimedOut)?;
    site.becomes("other/visitor", "shop/server", 80, Outcome::TimedOut)?;
    let found = events(&site, 3, PATIENCE)?;
    let told = |pod: &str| found.iter().any(|event| event["regarding"]["name"] == *pod);
    assert_eq!(["stranger", "server", "visitor"].map(told), [true, true, false], "{found:#?}");
    Ok(())
}

#[test]
fn an_agent_that_was_killed_counts_on_in_the_same_events() -> Result<(), Failure> {
    let Some(mut site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.becomes("shop/stranger", "shop/server", 80, Outcome::TimedOut)?;
    let before = events(&site, 2, PATIENCE)?;
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
    let begun = Instant::now();
    let found = loop {
        site.becomes("other/visitor", "shop/server", 80, Outcome::Open)?;
        let found = events(&site, 2, Duration::from_secs(1))?;
        if !found.is_empty() || begun.elapsed() > PATIENCE {
            break events(&site, 2, PATIENCE)?;
        }
    };
    assert_eq!(found.len(), 2, "{found:#?}");
    for event in &found {
        let note = event["note"].as_str().unwrap_or_default();
        assert!(note.starts_with("Packet would be dropped when"), "{event:#}");
        assert!(note.contains("would be isolated for ingress by shop/only-friends"), "{event:#}");
        assert_eq!(event["action"], "Audit");
    }
    site.apply(ONLY_FRIENDS)?;
    site.becomes("other/visitor", "shop/server", 80, Outcome::TimedOut)?;
    let found = events(&site, 4, PATIENCE)?;
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
    let found = events(&site, 4, PATIENCE)?;
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
        assert_eq!(Probe::ping(*address).timeout(PATIENCE).from(server)?.outcome, Outcome::Open);
    }
    let begun = Instant::now();
    loop {
        let (_, said) = site.kubectl(&["describe", "node", "node-a"])?;
        if said.contains("Packet dropped when receiving traffic from shop/stranger (10.") {
            assert!(said.contains("by ICMP type 8 code 0"), "{said}");
            return Ok(());
        }
        assert!(begun.elapsed() < PATIENCE, "{said}");
    }
}

#[test]
fn what_was_dropped_while_the_api_server_was_away_is_told_when_it_is_back() -> Result<(), Failure> {
    let Some(mut site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.becomes("shop/friend", "shop/server", 80, Outcome::Open)?;
    site.becomes("shop/friend", "shop/server", 81, Outcome::TimedOut)?;
    let before = events(&site, 2, PATIENCE)?.len();
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
    let shown = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
    command.args(["drops", "--cluster", "--output", "json", "--namespace", "other", "--kubeconfig"]);
    command.arg(site.api.admin_kubeconfig()).stdout(shown.reopen()?).stdin(Stdio::null());
    let _watching = Watching(command.spawn()?);
    let lines = || -> Result<Vec<Value>, Failure> {
        let text = std::fs::read_to_string(shown.path())?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        Ok(whole.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    };
    let (begun, mut sent) = (Instant::now(), 0);
    while lines()?.is_empty() {
        assert!(begun.elapsed() < PATIENCE * 2, "nothing is shown");
        site.reach("shop/stranger", "shop/server", 80)?;
        sent += site.reach("other/visitor", "shop/server", 80)?.len() as u64;
        std::thread::sleep(Duration::from_secs(1));
    }
    std::thread::sleep(LIMIT);
    let lines = lines()?;
    let ends = |line: &Value| (line["source"]["name"].clone(), line["destination"]["name"].clone());
    assert!(lines.iter().all(|line| ends(line) == ("visitor".into(), "server".into())), "{lines:#?}");
    // Both ends tell of each packet.
    let packets: u64 = lines.iter().filter_map(|line| line["packets"].as_u64()).sum();
    assert!((1..=sent).contains(&packets), "{packets} of {sent}: {lines:#?}");
    Ok(())
}

/// Ended with the test.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
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

//! Whom bans keep out, from the command line to the packet, and for how long.
use std::time::{Duration, Instant};

use podwall_lab::Outcome;

use super::{Ground, PATIENCE, WEB, ban, condition};
use crate::kinds::OLD_EXAMPLE;
use crate::site::{Failure, namespace};

#[test]
fn a_ban_from_the_command_line_holds_on_every_node_is_waited_for_and_counts() -> Result<(), Failure> {
    let Some(ground) = Ground::start()? else { return Ok(()) };
    let all = ground.everywhere()?;
    ground.becomes("outside", &all, WEB, Outcome::Open)?;
    let addresses = ground.host("outside")?.to_vec();
    let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    ground.ban(&format!("add {} --for 1h --reason scan", words.join(" ")))?;
    ground.only_elsewhere(&all, WEB)?;
    ground.waits("ban --all")?;
    let name = format!("ban/ban-{}", addresses.first().ok_or("a host without an address")?);
    ground.says(&name, &condition("Enforced"), "True OnEveryNode enforced on 2/2 nodes")?;

    // Banned once more: the first can go, and the second alone keeps the block.
    ground.site.apply(&ban("again", &format!("{{addresses: {}}}", ground.listed("outside")?)))?;
    ground.waits("ban/again")?;
    for address in &addresses {
        ground.ban(&format!("remove ban-{}", address.to_string().replace("::", "--").replace(':', "-")))?;
    }
    std::thread::sleep(Duration::from_secs(1));
    ground.only_elsewhere(&all, WEB)?;

    // What was kept out meanwhile is counted, and told with the next news.
    let begun = Instant::now();
    while !ground
        .site
        .get("node-b", "/metrics")?
        .contains("podwall_ban_packets_total{kind=\"Ban\",namespace=\"\",name=\"again\"}")
    {
        assert!(begun.elapsed() < PATIENCE, "{}", ground.site.get("node-b", "/metrics")?);
        std::thread::sleep(Duration::from_millis(200));
    }
    ground.site.apply(&ban("more", "{addresses: [192.0.2.200]}"))?;
    ground.waits("ban/more")?;
    let hits = ground
        .site
        .kubectl(&["get", "nr", "node-b", "-o=jsonpath={.spec.hits[?(@.ban==\"again\")].packets}"])?
        .1;
    assert!(hits.parse::<u64>()? > 0, "{hits}");
    let begun = Instant::now();
    while ground
        .site
        .kubectl(&["get", "ban/again", "-o=jsonpath={.status.hits}"])?
        .1
        .parse::<u64>()
        .unwrap_or(0)
        == 0
    {
        assert!(begun.elapsed() < PATIENCE, "{}", ground.operator.log());
        std::thread::sleep(Duration::from_millis(200));
    }

    ground.site.delete(&ban("again", "{}"))?;
    ground.becomes("outside", &all, WEB, Outcome::Open)?;
    // All that time each node took its own rules for its own.
    for node in ["node-a", "node-b"] {
        let metrics = ground.site.get(node, "/metrics")?;
        assert!(!metrics.contains("podwall_repairs_total{cause=\"foreign\"}"), "{node}: {metrics}");
    }
    Ok(())
}

#[test]
fn a_ban_ends_at_its_time_with_its_agent_restarted_or_dead() -> Result<(), Failure> {
    let Some(mut ground) = Ground::start()? else { return Ok(()) };
    let all = ground.everywhere()?;
    let begun = Instant::now();
    ground
        .site
        .apply(&ban("brief", &format!("{{addresses: {}, duration: 30s}}", ground.listed("outside")?)))?;
    ground.only_elsewhere(&all, WEB)?;
    ground.waits("ban/brief")?;
    ground.says("ban/brief", &condition("Expired"), "False TimeIsRunning")?;
    // One agent starts anew in the middle of it, the other does not come back.
    std::thread::sleep(Duration::from_secs(20).saturating_sub(begun.elapsed()));
    ground.site.kill_agent("node-b");
    ground.site.kill_agent("node-a");
    ground.site.start_pod("node-a", "nftables")?;
    if begun.elapsed() < Duration::from_secs(28) {
        assert_eq!(ground.others("outside", &all, WEB, Outcome::TimedOut)?, Vec::<String>::new());
    }
    ground.becomes("outside", &all, WEB, Outcome::Open)?;
    assert!(begun.elapsed() >= Duration::from_secs(28), "{:?}", begun.elapsed());
    // Counted from the agent's second start it would not be over before the fiftieth second.
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
    ground.says("ban/brief", &condition("Expired"), "True TimeIsOver")?;
    ground.says("ban/brief", &condition("Enforced"), "False Expired")
}

#[test]
fn what_kubetables_took_is_enforced_unchanged() -> Result<(), Failure> {
    let Some(ground) = Ground::start()? else { return Ok(()) };
    let all: Vec<_> = ground.everywhere()?.into_iter().filter(std::net::IpAddr::is_ipv4).collect();
    let first = ground.host("outside")?.first().ok_or("a host without an address")?.to_string();
    let old = OLD_EXAMPLE.replace("10.0.2.20", &first);
    assert_ne!(old, OLD_EXAMPLE);
    ground.site.apply(&namespace("ktban", ""))?;
    ground.site.apply(&old)?;
    ground.only_elsewhere(&all, WEB)?;
    // It bans ports 1 to 80 and no more.
    let pods: Vec<_> = ground
        .site
        .lab
        .pod("shop/other")?
        .addresses()
        .iter()
        .copied()
        .filter(std::net::IpAddr::is_ipv4)
        .collect();
    ground.becomes("outside", &pods, WEB + 1, Outcome::Open)?;
    ground.site.delete(&old)?;
    ground.becomes("outside", &all, WEB, Outcome::Open)
}

//! The same through iptables and ipset: alone, beside a node on nftables, and across a switch of packet filters.
use podwall_lab::Outcome;

use crate::site::{Failure, ONLY_FRIENDS, Site, pod};

#[test]
fn nodes_on_different_packet_filters_enforce_one_policy_and_follow_its_changes() -> Result<(), Failure> {
    let Some(mut site) = Site::shop_on(["iptables", "nftables"])? else { return Ok(()) };
    let labels = "podwall_backend{backend=\"iptables\",variant=\"nft\",reason=\"asked\"} 1\n";
    let metrics = site.get("node-a", "/metrics")?;
    assert!(metrics.contains(labels), "{metrics}");
    site.becomes("shop/stranger", "shop/server", 80, Outcome::Open)?;
    site.apply(ONLY_FRIENDS)?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    site.becomes("other/visitor", "shop/server", 80, Outcome::TimedOut)?;
    site.becomes("shop/friend", "shop/server", 81, Outcome::TimedOut)?;
    site.becomes("shop/server", "shop/friend", 81, Outcome::Open)?;
    let addresses = site.lab.pod("shop/stranger")?.addresses().to_vec();
    site.apply(&pod("shop/stranger", "node-a", "app: friend", &addresses))?;
    site.becomes("shop/stranger", "shop/server", 80, Outcome::Open)?;
    site.add_pod("shop/late", "node-a", "app: server")?;
    site.only("shop/friend", "other/visitor", "shop/late", 80)?;
    site.delete(ONLY_FRIENDS)?;
    site.becomes("other/visitor", "shop/server", 81, Outcome::Open)?;
    Ok(())
}

#[test]
fn a_node_whose_packet_filter_is_changed_goes_on_to_follow_the_api() -> Result<(), Failure> {
    let Some(mut site) = Site::shop_on(["iptables", "iptables"])? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    for backend in ["nftables", "iptables"] {
        for node in ["node-a", "node-b"] {
            site.kill_agent(node);
            site.start_agent_on(node, backend)?;
        }
        site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
        let addresses = site.lab.pod("shop/stranger")?.addresses().to_vec();
        site.apply(&pod("shop/stranger", "node-a", "app: friend", &addresses))?;
        site.becomes("shop/stranger", "shop/server", 80, Outcome::Open)?;
        site.apply(&pod("shop/stranger", "node-a", "app: stranger", &addresses))?;
        site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    }
    Ok(())
}

//! Policies, pods, labels and namespaces changed through the API; real packets on two nodes, both families.
use podwall_lab::Outcome;

use crate::site::{Failure, ONLY_FRIENDS, Site, namespace, pod};

#[test]
fn a_policy_applied_through_the_api_is_enforced_on_packets_and_gone_when_deleted() -> Result<(), Failure> {
    let Some(site) = Site::shop()? else { return Ok(()) };
    site.becomes("shop/stranger", "shop/server", 80, Outcome::Open)?;
    site.apply(ONLY_FRIENDS)?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    site.becomes("other/visitor", "shop/server", 80, Outcome::TimedOut)?;
    site.becomes("shop/friend", "shop/server", 81, Outcome::TimedOut)?;
    site.becomes("shop/server", "shop/friend", 81, Outcome::Open)?;
    site.delete(ONLY_FRIENDS)?;
    site.becomes("shop/stranger", "shop/server", 81, Outcome::Open)?;
    Ok(())
}

#[test]
fn a_policy_marked_for_audit_through_the_api_is_enforced_as_soon_as_the_mark_is_gone() -> Result<(), Failure>
{
    let Some(site) = Site::shop()? else { return Ok(()) };
    let marked = |mark: &str| {
        let annotations = format!("metadata: {{annotations: {{podwall.dev/mode: {mark}}}, ");
        ONLY_FRIENDS.replace("metadata: {", &annotations)
    };
    site.apply(&marked("enforce"))?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    site.apply(&marked("audit"))?;
    site.becomes("shop/stranger", "shop/server", 80, Outcome::Open)?;
    site.becomes("shop/friend", "shop/server", 81, Outcome::Open)?;
    site.apply(&marked("Audit"))?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    site.apply(&marked("audit"))?;
    site.becomes("shop/stranger", "shop/server", 80, Outcome::Open)?;
    site.apply(ONLY_FRIENDS)?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)
}

#[test]
fn labels_of_pods_and_namespaces_move_membership_without_any_restart() -> Result<(), Failure> {
    let Some(mut site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    let addresses = site.lab.pod("shop/stranger")?.addresses().to_vec();
    site.apply(&pod("shop/stranger", "node-a", "app: friend", &addresses))?;
    site.becomes("shop/stranger", "shop/server", 80, Outcome::Open)?;
    site.apply(&ONLY_FRIENDS.replace(
        "podSelector: {matchLabels: {app: friend}}}",
        "namespaceSelector: {matchLabels: {team: guests}}}",
    ))?;
    site.becomes("shop/friend", "shop/server", 80, Outcome::TimedOut)?;
    site.apply(&namespace("other", "team: guests"))?;
    site.only("other/visitor", "shop/friend", "shop/server", 80)?;
    site.add_pod("other/late", "node-a", "app: late")?;
    site.becomes("other/late", "shop/server", 80, Outcome::Open)?;
    Ok(())
}

#[test]
fn an_address_that_changes_hands_brings_nothing_along() -> Result<(), Failure> {
    let Some(mut site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    let addresses = site.lab.pod("shop/friend")?.addresses().to_vec();
    site.delete(&pod("shop/friend", "node-b", "app: friend", &addresses))?;
    site.apply(&pod("shop/heir", "node-b", "app: heir", &addresses))?;
    site.becomes("shop/friend", "shop/server", 80, Outcome::TimedOut)?;
    site.add_pod("shop/friend2", "node-b", "app: friend")?;
    site.becomes("shop/friend2", "shop/server", 80, Outcome::Open)?;
    Ok(())
}

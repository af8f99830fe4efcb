//! What somebody should look after, by what the planner sees.
use podwall_engine::plan::Condition;
use tokio::time::Instant;

use super::Planner;
use super::gathering::away;
use crate::telemetry::health::Concern;

impl Planner {
    /// Raises and clears what follows from sources, the host and the engine.
    pub(super) fn concerns(&mut self) {
        let health = &self.telemetry.health;
        health.set(Concern::Caches, self.gathering.waiting(&self.stale));
        if self.gathering.is_over() {
            health.set(Concern::Watch, away(&self.stale));
        }
        let bypass = self.locals.bypass().map(|(link, sysctl)| {
            format!("traffic between pods on bridge {link} passes by the rules: set {sysctl}=1 (modprobe br_netfilter)")
        });
        health.set(Concern::Bridge, bypass);
        let tagged = self.locals.tag_bypass().map(|link| {
            format!("pods with raw sockets can pass VLAN-tagged frames by the rules to others on bridge {link}: set net.bridge.bridge-nf-filter-vlan-tagged=1")
        });
        health.set(Concern::BridgeVlan, tagged);
        health.set(Concern::Unseen, self.locals.unseen(Instant::now()));
        let ipvs = self.locals.ipvs().then(|| {
            "kube-proxy runs in IPVS mode, which podwall does not support: run it in nftables or iptables mode".to_owned()
        });
        health.set(Concern::Ipvs, ipvs);
        health.set(Concern::Names, self.teaching.unattended(Instant::now()));
        if self.gathering.is_over() {
            self.conditions();
        }
    }

    fn conditions(&self) {
        let (mut node, mut range) = (None, None);
        for condition in self.engine.conditions() {
            match condition {
                Condition::NodeUnknown if self.has_a_node() => {}
                Condition::NodeUnknown => {
                    node = Some(format!("there is no node {:?}: {condition}", &*self.engine.node().0));
                }
                Condition::PodRangeContradicted(_)
                | Condition::PodRangeNotOurs(_)
                | Condition::PodRangeUnknown => range = Some(condition.to_string()),
            }
        }
        self.telemetry.health.set(Concern::NodeName, node);
        self.telemetry.health.set(Concern::PodRange, range);
    }
}

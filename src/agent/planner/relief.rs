//! What to shut when this node's policies need more sets than its kernel can bear.
//!
//! The kernel finds a set by walking all of its table, for each set, element and rule: 3,000 sets load in 0.4 s, 6,000
//! in 1.7 s, 12,000 in 9 s during which nobody on the node can change a rule (measured, Linux 6.18). A namespace may
//! make as many policies as its quota has room for, so the node itself draws the line: whoever needs most is shut,
//! as if the kernel had refused, until the node is below it. Pods of other namespaces do not notice. Audits go first:
//! without them everything is enforced as it was.
use std::collections::{BTreeMap, BTreeSet};

use podwall_engine::model::Text;
use podwall_engine::model::ban::Mode;
use podwall_engine::plan::Origins;
use podwall_ruleset::{ChainName, Ruleset, SetName};

/// Sets of one node: 250 pods with 16 selectors each that nobody else on the node has, in both families.
pub(super) const MOST_SETS: usize = 8192;

/// Chains to shut so that at most so many sets are left, each with the reason.
pub(super) fn excess(ruleset: &Ruleset, origins: &Origins, most: usize) -> BTreeMap<ChainName, String> {
    let mut burden = Burden::of(ruleset, origins);
    let (mut left, mut shut) = (ruleset.sets.len(), BTreeMap::new());
    while left > most {
        let Some((home, chain)) = burden.heaviest() else { break };
        let (_, namespace) = &home;
        let reason = format!(
            "this node's policies need more than the {most} sets it bears, and those of namespace {namespace} need \
             most of them: use fewer selectors"
        );
        left -= burden.lift(&home, &chain);
        shut.insert(chain, reason);
    }
    shut
}

/// Enforced or audited, and for which namespace.
type Home = (Mode, Text);

/// Who needs which sets.
struct Burden<'r> {
    /// The sets of each chain, by what it does and the namespace of its policies.
    chains: BTreeMap<Home, BTreeMap<ChainName, BTreeSet<&'r SetName>>>,
    /// How many chains need a set.
    users: BTreeMap<&'r SetName, usize>,
}

impl<'r> Burden<'r> {
    fn of(ruleset: &'r Ruleset, origins: &Origins) -> Self {
        let mut burden = Self { chains: BTreeMap::new(), users: BTreeMap::new() };
        for (name, origin) in &origins.chains {
            let (Some(chain), Some(policy)) = (ruleset.chains.get(name), origin.policies.first()) else {
                continue;
            };
            let sets: BTreeSet<&SetName> = chain.sets().collect();
            sets.iter().for_each(|set| *burden.users.entry(set).or_default() += 1);
            let home = burden.chains.entry((origin.mode, Text::clone(&policy.namespace))).or_default();
            home.insert(name.clone(), sets);
        }
        burden
    }

    /// The chain with the most sets of the namespace that needs most; of all audits first.
    fn heaviest(&self) -> Option<(Home, ChainName)> {
        let weight = |chains: &BTreeMap<ChainName, BTreeSet<&SetName>>| {
            chains.values().flatten().collect::<BTreeSet<_>>().len()
        };
        let (home, chains) = self.chains.iter().max_by_key(|((mode, _), chains)| (*mode, weight(chains)))?;
        let (chain, _) = chains.iter().max_by_key(|(_, sets)| sets.len())?;
        Some((home.clone(), chain.clone()))
    }

    /// Takes a chain away; answers how many sets nobody needs any more.
    fn lift(&mut self, home: &Home, chain: &ChainName) -> usize {
        let Some(chains) = self.chains.get_mut(home) else { return 0 };
        let sets = chains.remove(chain).unwrap_or_default();
        if chains.is_empty() {
            self.chains.remove(home);
        }
        let mut freed = 0;
        for set in sets {
            if let Some(users) = self.users.get_mut(set) {
                *users -= 1;
                freed += usize::from(*users == 0);
            }
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use podwall_engine::{Change, Engine, NodeName, Options, ingest};
    use serde_json::json;

    use super::*;

    /// A pod in each namespace, isolated by a policy with so many selectors of its own.
    fn engine(needs: &[(&str, usize)]) -> Engine {
        let mut engine = Engine::new(NodeName::from("n1"), Options::default());
        for (number, (namespace, selectors)) in needs.iter().enumerate() {
            let peers: Vec<_> = (0..*selectors)
                .map(|n| json!({"podSelector": {"matchLabels": {"k": format!("v{n}")}}}))
                .collect();
            let pod = json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": namespace, "name": "a", "uid": namespace}, "spec": {"nodeName": "n1"},
                "status": {"phase": "Running", "podIPs": [{"ip": format!("10.0.0.{}", number + 1)}]}});
            let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": namespace, "name": "p"},
                "spec": {"podSelector": {}, "ingress": [{"from": peers}]}});
            for object in [pod, policy] {
                engine.apply(ingest::object(&object).unwrap().unwrap().0);
            }
        }
        engine
    }

    fn namespaces(engine: &Engine, shut: &BTreeMap<ChainName, String>) -> Vec<Text> {
        let origins = engine.origins();
        shut.keys().map(|chain| Text::clone(&origins.chains[chain].policies[0].namespace)).collect()
    }

    #[test]
    fn whoever_needs_most_is_shut_until_the_rest_fits_and_nobody_else() {
        let mut engine = engine(&[("modest", 5), ("greedy", 40), ("large", 20)]);
        let fixed = engine.ruleset().sets.len() - 65;
        for (most, expected) in
            [(65, &[][..]), (64, &["greedy"]), (25, &["greedy"]), (24, &["greedy", "large"])]
        {
            let shut = excess(engine.ruleset(), &engine.origins(), fixed + most);
            let mut found = namespaces(&engine, &shut);
            found.sort();
            let expected: Vec<Text> = expected.iter().map(|name| Text::from(*name)).collect();
            assert_eq!(found, expected, "{most}");
        }
        let shut = excess(engine.ruleset(), &engine.origins(), fixed + 30);
        engine.apply(Change::Refused(shut.into_keys().collect()));
        assert_eq!(engine.ruleset().sets.len(), fixed + 25);
    }

    #[test]
    fn audits_go_before_anything_enforced_and_shut_nobody() {
        let mut engine = engine(&[("greedy", 40), ("modest", 5)]);
        let enforced = engine.ruleset().clone();
        let peers: Vec<_> =
            (0..9).map(|n| json!({"podSelector": {"matchLabels": {"audit": format!("v{n}")}}})).collect();
        let audited = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "modest", "name": "q", "annotations": {"podwall.dev/mode": "audit"}},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": peers}]}});
        engine.apply(ingest::object(&audited).unwrap().unwrap().0);
        assert_eq!(engine.ruleset().sets.len(), enforced.sets.len() + 9);
        let shut = excess(engine.ruleset(), &engine.origins(), enforced.sets.len());
        assert_eq!(namespaces(&engine, &shut), ["modest".into()]);
        engine.apply(Change::Refused(shut.into_keys().collect()));
        assert_eq!(*engine.ruleset(), enforced);
    }

    #[test]
    fn sets_that_others_need_too_are_not_counted_as_freed() {
        let engine = engine(&[("a", 10), ("b", 10)]);
        let shut = excess(engine.ruleset(), &engine.origins(), 0);
        assert_eq!(shut.len(), 2, "what is fixed stays, everything else is shut");
    }
}

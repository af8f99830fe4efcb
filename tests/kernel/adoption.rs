//! Starting over standing rules, and leaving (promises P16, P17): what stands is adopted and only what differs is
//! touched; teardown leaves the host as it was; other tables are never touched. Owned and watched tables alike.
mod counters;
pub mod foreign;

use podwall_engine::{Options, ingest};
use podwall_lab::{Cni, Netns, NodePlan};
use podwall_nftables::{Guard, Nftables};
use podwall_ruleset::stage::stages;
use podwall_ruleset::{Delta, Ruleset};
use podwall_testkit::skip::{Need, ready};

use crate::rig::{ALL, Hop, Rig, fallback, nft, open_backend, policy, town_guarded};

/// Who may write into our table; on a kernel without owners that persist only the second, loudly.
fn guards() -> Vec<Guard> {
    let open = || Nftables::open(podwall_nftables::Options { guard: Guard::Owned }).is_ok();
    let owns = || Netns::new().and_then(|netns| netns.run(open)).unwrap_or(false);
    if ready(&[Need::Ability("owned tables that persist (Linux 6.9)", fallback().is_some() || owns())]) {
        vec![Guard::Owned, Guard::Watched]
    } else {
        vec![Guard::Watched]
    }
}

const CHOOSY: &str = "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {}}]}],
    ingress: [{from: [{podSelector: {matchLabels: {kind: ant}}}, {ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.128/25]}}],
               ports: [{port: web}, {port: 1, endPort: 80}, {port: 8080, protocol: UDP}]}]}";

fn choosy(hop: &Hop) -> bool {
    use podwall_lab::Protocol::Udp;
    let asked = hop.is_web() || hop.is_to(Udp, crate::rig::WEB);
    let admitted = !hop.to.is("red/cat") || (hop.from.is("red/ant") && asked);
    admitted && (!hop.from.is("red/cat") || hop.to.is_pod())
}

fn ruled(guard: Guard) -> Option<Rig> {
    let mut rig = town_guarded(Cni::Routed, guard)?;
    rig.policy("red/cat", CHOOSY);
    Some(rig)
}

/// What a starting agent does over what stands: reads it, and commits the difference to what is wanted.
fn adopt(netns: &Netns, guard: Guard, wanted: &Ruleset) -> (Ruleset, Delta) {
    let mut backend = open_backend(netns, guard);
    let observed = backend.observe().expect("it can be read");
    assert_eq!(observed.alien, Vec::<String>::new());
    let standing = observed.or_empty();
    let delta = Delta::between(&standing, wanted);
    for stage in stages(&standing, &delta) {
        backend.commit(&stage.transaction).expect("the kernel takes it");
    }
    (standing, delta)
}

/// Our table as nft(8) shows it, less the first lines: they name the owner, if there is one just now.
fn listing(netns: &Netns) -> String {
    if fallback().is_some() {
        return String::new();
    }
    let all = nft(netns, "list table inet podwall");
    let (_, sets) = all.split_once("\tset ").expect("there are sets");
    sets.to_owned()
}

#[test]
fn a_restarted_agent_finds_what_it_left_and_has_nothing_to_do() {
    for guard in guards() {
        let Some(mut rig) = ruled(guard) else { return };
        for (node, filter) in std::mem::take(&mut rig.filters) {
            let wanted = filter.engine.ruleset().clone();
            let netns = filter.netns.clone();
            let before = listing(&netns);
            drop(filter);
            let (standing, delta) = adopt(&netns, guard, &wanted);
            assert_eq!(standing, wanted, "{guard:?} {node}");
            assert!(delta.is_empty(), "{guard:?} {node}: {delta:?}");
            assert_eq!(listing(&netns), before, "{guard:?} {node}");
        }
    }
}

#[test]
fn rules_outlive_the_one_who_made_them() {
    for guard in guards() {
        let Some(mut rig) = ruled(guard) else { return };
        // Its sockets close without a word, as they do when the process is killed.
        rig.filters.clear();
        rig.expect(ALL, choosy);
    }
}

#[test]
fn an_adopted_table_is_changed_by_exactly_what_differs() {
    for guard in guards() {
        let Some(mut rig) = ruled(guard) else { return };
        let (change, _) = ingest::object(&policy("red/bee", "{podSelector: {matchLabels: {kind: bee}}}"))
            .expect("a good object")
            .expect("a known kind");
        for (node, mut filter) in std::mem::take(&mut rig.filters) {
            // Some rules shall have counted something.
            rig.expect(ALL, choosy);
            filter.engine.apply(change.clone());
            let (expected, wanted) = (filter.engine.take().delta, filter.engine.ruleset().clone());
            let (before, netns) = (counters::of(&mut filter), filter.netns.clone());
            drop(filter);
            let (_, delta) = adopt(&netns, guard, &wanted);
            assert_eq!(delta, expected, "{guard:?} {node}");
            // A rule that is replaced starts to count anew.
            let after = counters::read(&netns, guard);
            let kept = before.iter().filter(|(rule, _)| !delta.chains.contains_key(&rule.0));
            let counted = kept.clone().any(|(_, packets)| *packets > 0);
            assert_eq!(counted, node == "east", "{guard:?} {node}: red/cat is judged there");
            for (rule, packets) in kept {
                assert!(
                    after.get(rule).is_some_and(|now| now >= packets),
                    "{guard:?} {node}: {rule:?} was remade"
                );
            }
        }
    }
}

#[test]
fn teardown_leaves_every_byte_of_the_host_as_it_was() {
    for guard in guards() {
        let Some(rig) = town_guarded(Cni::Routed, guard) else { return };
        let nodes = [NodePlan::routed("other")];
        let fresh = Rig::guarded(&nodes, &[], &Options::default()).expect("one was started before");
        let netns = fresh.lab.node("other").expect("it is there").netns();
        foreign::plant(netns);
        let before = foreign::everything(netns);
        let wanted = rig.filters["east"].engine.ruleset();
        adopt(netns, guard, wanted);
        assert!(foreign::everything(netns).len() > before.len() + 1000);
        let (standing, _) = adopt(netns, guard, &Ruleset::default());
        assert_eq!(standing, *wanted);
        assert_eq!(foreign::everything(netns), before, "{guard:?}");
    }
}

#[test]
fn other_tables_are_the_same_bytes_whatever_we_commit() {
    for guard in guards() {
        let Some(mut rig) = town_guarded(Cni::Routed, guard) else { return };
        let netns = rig.lab.node("east").expect("it is there").netns().clone();
        foreign::plant(&netns);
        let before = foreign::theirs(&netns);
        rig.policy("red/cat", CHOOSY);
        rig.policy("red/shut", "{}");
        rig.delete("NetworkPolicy", "red/cat");
        rig.change(&podwall_engine::Change::Refused(std::collections::BTreeSet::new()));
        rig.commit();
        // Counters of kube-proxy's rules move with packets; there were none.
        assert_eq!(foreign::theirs(&netns), before, "{guard:?}");
    }
}

#[test]
fn a_foreign_hand_is_refused_by_an_owned_table_and_seen_in_a_watched_one() {
    for guard in guards() {
        let Some(mut rig) = ruled(guard) else { return };
        let filter = rig.filters.get_mut("east").expect("it is there");
        let wanted = filter.engine.ruleset().clone();
        let done = foreign::meddle(&filter.netns);
        let observed = filter.backend.observe().expect("it can be read");
        let differs = !observed.alien.is_empty();
        let observed = observed.or_empty();
        if guard == Guard::Owned && fallback().is_none() {
            assert_eq!((done, observed), (false, wanted));
            continue;
        }
        assert!(done);
        let repair = Delta::between(&observed, &wanted);
        assert!(repair.sets.len() == 1 || differs);
        for stage in stages(&observed, &repair) {
            filter.backend.commit(&stage.transaction).expect("it is repaired");
        }
        filter.backend.sweep().expect("it is repaired");
        let observed = filter.backend.observe().expect("it can be read");
        assert_eq!((observed.alien.as_slice(), observed.ruleset), (&[][..], Some(wanted)));
    }
}

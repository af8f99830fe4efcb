//! Audited policies in random histories: they change no verdict, and tell exactly what they would refuse.
use podwall_engine::compile::names;
use podwall_engine::model::ban::Mode;
use podwall_engine::model::{Policy, PolicyId};
use podwall_engine::{Change, Cluster, Engine, Options, PendingMode, plan};
use podwall_ruleset::evaluate::{Decision, Trace, evaluate, evaluate_chain};
use podwall_ruleset::packet::Packet;
use podwall_ruleset::{ChainName, Ruleset};
use proptest::prelude::*;

use super::event::{Event, events};
use super::options::options;
use super::{NODE, config, witness};

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn an_audited_policy_changes_no_verdict_and_keeps_no_address_shut(
        options in options(),
        events in events(1..40),
        packets in witness::packets(48),
    ) {
        let new = || Engine::new(NODE.into(), options.clone());
        let (mut audited, mut without) = (new(), new());
        for change in told(events) {
            audited.apply(change.clone());
            without.apply(without_audit(change));
            prop_assert_eq!(audited.cluster().held(), without.cluster().held());
            for packet in &packets {
                let decision = |engine: &Engine| evaluate(engine.ruleset(), packet).decision == Decision::Accept;
                prop_assert_eq!(decision(&audited), decision(&without), "{:?}", packet);
            }
        }
    }

    #[test]
    fn turning_an_audit_on_cuts_nobody_who_is_not_cut_without_it(options in options(), events in events(1..40)) {
        let new = || Engine::new(NODE.into(), options.clone());
        let (mut audited, mut without) = (new(), new());
        for change in told(events).into_iter().filter(|change| !is_cluster_wide(change)) {
            audited.apply(change.clone());
            without.apply(without_audit(change));
            let (audited, without) = (audited.take(), without.take());
            prop_assert_eq!(audited.tightened, without.tightened);
            prop_assert_eq!(audited.released, without.released);
        }
    }

    #[test]
    fn what_would_be_dropped_is_what_passes_now_and_not_once_all_is_enforced(
        options in options(),
        events in events(4..40),
        packets in witness::packets(48),
    ) {
        // Other things that enforcement brings along are not the policies' own word.
        let options = Options { pending: PendingMode::Off, ..options };
        let mut engine = Engine::new(NODE.into(), options);
        told(events).into_iter().for_each(|change| engine.apply(change));
        let enforced = plan(&promoted(engine.cluster()), engine.node(), engine.options()).ruleset;
        for packet in &packets {
            for end in [names::egress(), names::ingress()] {
                let now = evaluate_chain(engine.ruleset(), &end, packet);
                let then = evaluate_chain(&enforced, &end, packet);
                let refused = now.decision == Decision::Accept && by_policies(&then);
                prop_assert_eq!(now.would_drop().next().is_some(), refused, "{:?}: {:?}, {:?}", packet, now, then);
            }
        }
    }

    #[test]
    fn without_an_audited_policy_nothing_audits(options in options(), events in events(1..40)) {
        let mut engine = Engine::new(NODE.into(), options);
        told(events).into_iter().map(without_audit).for_each(|change| engine.apply(change));
        prop_assert_eq!(engine.ruleset().chains.keys().find(|name| names::is_audit(name)), None);
    }
}

/// What needs no ruleset to be told.
fn told(events: Vec<Event>) -> Vec<Change> {
    let change = |event| match event {
        Event::Told(change) => Some(change),
        Event::Refused(_) | Event::Freed(_) => None,
    };
    events.into_iter().filter_map(change).collect()
}

fn is_cluster_wide(change: &Change) -> bool {
    Event::Told(change.clone()).is_about_a_cluster_policy()
}

fn without_audit(change: Change) -> Change {
    match change {
        Change::Policy(Policy { id, mode: Mode::Audit, .. }) => Change::PolicyGone(id),
        other => other,
    }
}

/// The same cluster with every policy enforced.
fn promoted(cluster: &Cluster) -> Cluster {
    let mut all = cluster.clone();
    for policy in cluster.policies() {
        all.apply(Change::Policy(Policy { mode: Mode::Enforce, ..policy.as_ref().clone() }));
    }
    all
}

/// Was it a chain of policies that refused?
fn by_policies(trace: &Trace) -> bool {
    match &trace.decision {
        Decision::Accept => false,
        Decision::Drop { chain, .. } => {
            chain.as_str().starts_with(['i', 'e']) && chain.as_str().contains('_')
        }
    }
}

/// A pod that an audited policy selects, a policy of its own way, and who talks to it.
fn isolated_the_other_way() -> (Engine, PolicyId) {
    let mut engine = Engine::new(NODE.into(), Options::default());
    let policy = |name: &str, way: &str, mark: &str| {
        let raw = serde_json::json!({
            "metadata": {"namespace": "a", "name": name, "annotations": {"podwall.dev/mode": mark}},
            "spec": {"policyTypes": [way]},
        });
        podwall_engine::ingest::network_policy(&raw).unwrap().policy
    };
    let audited = policy("audited", "Ingress", "audit");
    let id = audited.id.clone();
    engine.apply(Change::GraceOver);
    engine.apply(Change::Pod(super::objects::pod(0, 0, 0, 0, podwall_engine::model::Life::Live)));
    engine.apply(Change::Policy(policy("enforced", "Egress", "enforce")));
    engine.apply(Change::Policy(audited));
    (engine, id)
}

fn into_the_pod(ruleset: &Ruleset, opening: bool) -> (Decision, Vec<ChainName>) {
    let transport = podwall_ruleset::packet::Transport::Tcp { port: 80, opening };
    let packet = Packet::opening(super::objects::address(5), super::objects::address(0), transport);
    let trace = evaluate(ruleset, &packet);
    (trace.decision.clone(), trace.would_drop().cloned().collect())
}

#[test]
fn a_pod_isolated_the_other_way_keeps_dropping_what_opens_nothing_while_it_is_audited() {
    let (engine, _) = isolated_the_other_way();
    let (decision, told) = into_the_pod(engine.ruleset(), true);
    assert_eq!(decision, Decision::Accept);
    assert!(matches!(told.as_slice(), [chain] if chain.as_str().starts_with("asi4_")), "{told:?}");
    let (decision, told) = into_the_pod(engine.ruleset(), false);
    assert!(matches!(&decision, Decision::Drop { chain, .. } if *chain == names::strays()), "{decision:?}");
    assert_eq!(told, []);
}

#[test]
fn an_audit_that_the_kernel_refuses_shuts_nobody_and_is_tried_again() {
    let (mut engine, id) = isolated_the_other_way();
    let before = engine.ruleset().clone();
    let audits = before.chains.keys().filter(|name| names::is_audit(name)).cloned();
    engine.apply(Change::Refused(audits.collect()));
    assert_eq!(into_the_pod(engine.ruleset(), true), (Decision::Accept, vec![]));
    engine.apply(Change::Refused([].into()));
    assert_eq!(*engine.ruleset(), before);
    engine.apply(Change::PolicyGone(id));
    assert_eq!(into_the_pod(engine.ruleset(), true), (Decision::Accept, vec![]));
}

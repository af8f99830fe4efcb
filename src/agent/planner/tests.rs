//! When the planner hands on what, with an apply thread played by the test.
mod marks;
mod names;

use std::sync::{Arc, mpsc as channel};

use podwall_crd::ResourceVersion;
use podwall_crd::node_report::ReportedKind;
use podwall_engine::Options;
use podwall_engine::model::{
    Labels, Life, Network, Node, NodeName, PeerSelector, Pod, PodUid, Policy, PolicyId, PolicyKind, Scope,
    Selector, Tier,
};
use podwall_ruleset::{Deadline, Digest, Key};
use tokio::sync::oneshot;

use super::*;
use crate::agent::host::view::View;
use crate::agent::input::{Input, Inputs};
use crate::agent::node_report::marks::News;
use crate::agent::work::Standing;
use crate::telemetry::events::Events;

struct Case {
    inputs: Inputs,
    outcomes: mpsc::UnboundedSender<Outcome>,
    works: channel::Receiver<Work>,
    sheet: Sheet,
    telemetry: Telemetry,
}

fn start(feeds: impl IntoIterator<Item = Feed>) -> Case {
    start_in(feeds, crate::agent::domains::classroom(std::path::Path::new("/nonexistent")).0)
}

fn start_in(feeds: impl IntoIterator<Item = Feed>, classroom: Classroom) -> Case {
    let telemetry = Telemetry::default();
    let (inputs, received) = Inputs::channel();
    let (outcomes, outcomes_received) = mpsc::unbounded_channel();
    let (sender, works) = channel::channel();
    let events = Events::nowhere(Arc::clone(&telemetry.metrics));
    let sheet = Sheet::default();
    let planner = Planner::new(Setup {
        engine: Engine::new(NodeName::from("a"), Options::default()),
        feeds: feeds.into_iter().collect(),
        grace: Duration::from_secs(60),
        reports: Reports::new(events, telemetry.clone()),
        works: sender,
        sheet: sheet.clone(),
        classroom,
        drops: mpsc::channel(1).0,
        telemetry: telemetry.clone(),
    });
    tokio::spawn(planner.run(received, outcomes_received, mpsc::channel(1).1));
    Case { inputs, outcomes, works, sheet, telemetry }
}

/// A planner that has handed on its first ruleset and knows that it stands.
async fn following() -> Case {
    let case = start([Feed::Pods, Feed::Host]);
    case.outcomes.send(Outcome::Standing(Standing::Strict)).unwrap();
    case.change(Change::Node(node())).await;
    case.change(Change::Policy(policy())).await;
    case.send(Input::Complete(Feed::Pods)).await;
    case.send(Input::Host(Arc::new(View::default()))).await;
    case.turn().await;
    assert!(matches!(case.work(), Some(Work::Wanted(_))));
    case.outcomes.send(Outcome::Done).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    case
}

impl Case {
    async fn send(&self, input: Input) {
        self.inputs.send(input).await.unwrap();
    }

    async fn change(&self, change: Change) {
        self.send(Input::Object { change, warnings: Vec::new() }).await;
    }

    /// Lets the planner take in what was sent; time stands still.
    async fn turn(&self) {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    fn work(&self) -> Option<Work> {
        self.works.try_recv().ok()
    }

    /// Addresses the update gives a verdict, if there is one.
    fn addresses(&self) -> Option<BTreeSet<IpAddr>> {
        match self.work()? {
            Work::Update { update, .. } => {
                let elements = update.delta.sets.values().flat_map(|edit| edit.elements.keys());
                Some(elements.filter_map(Key::address).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    fn concerns(&self) -> String {
        self.telemetry.health.report().to_string()
    }
}

fn node() -> Node {
    Node {
        name: NodeName::from("a"),
        labels: Labels::default(),
        addresses: Vec::new(),
        pod_ranges: vec!["10.0.0.0/24".parse().unwrap()],
        link_groups: Default::default(),
    }
}

fn policy() -> Policy {
    Policy {
        id: PolicyId {
            tier: Tier::Namespace,
            namespace: "shop".into(),
            name: "deny".into(),
            kind: PolicyKind::NetworkPolicy,
        },
        uid: "p1".into(),
        digest: Digest::of(["deny"]),
        priority: 0,
        mode: podwall_engine::model::ban::Mode::Enforce,
        subject: PeerSelector { scope: Scope::Named("shop".into()), pods: Selector::everything() },
        ingress: Some(Vec::new()),
        egress: None,
    }
}

fn pod(number: u8) -> Change {
    Change::Pod(Pod {
        uid: PodUid(format!("u{number}").into()),
        namespace: "shop".into(),
        name: format!("p{number}").into(),
        labels: Labels::default(),
        node: Some(NodeName::from("a")),
        network: Network::Own,
        addresses: vec![address(number)],
        life: Life::Live,
        started: None,
        ports: Vec::new(),
        host_ports: Vec::new(),
        own: None,
        workload: None,
    })
}

fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_every_source_is_complete_and_the_kernel_was_looked_at() {
    let case = start([Feed::Pods, Feed::Policies, Feed::Host]);
    case.change(Change::Node(node())).await;
    case.change(pod(1)).await;
    case.send(Input::Complete(Feed::Pods)).await;
    case.send(Input::Host(Arc::default())).await;
    case.send(Input::Watch(Feed::Policies, Some("forbidden".to_owned()))).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(case.work().is_none());
    let waiting = "waiting for networkpolicies (forbidden), the rules that stand";
    assert!(case.concerns().contains(waiting), "{}", case.concerns());
    case.outcomes.send(Outcome::Standing(Standing::Nothing)).unwrap();
    case.turn().await;
    assert!(case.work().is_none());
    case.send(Input::Complete(Feed::Policies)).await;
    case.turn().await;
    let Some(Work::Wanted(wanted)) = case.work() else { panic!("no ruleset") };
    assert!(wanted.ruleset.elements() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_single_change_after_silence_goes_out_at_once() {
    let case = following().await;
    case.change(pod(1)).await;
    case.turn().await;
    assert_eq!(case.addresses(), Some(BTreeSet::from([address(1)])));
}

#[tokio::test(start_paused = true)]
async fn a_burst_goes_out_at_most_ten_times_a_second_and_nothing_is_lost() {
    let case = following().await;
    let mut seen = BTreeSet::new();
    let mut commits = 0;
    for number in 1..=200 {
        case.change(pod(number)).await;
        case.turn().await;
        if let Some(addresses) = case.addresses() {
            commits += 1;
            seen.extend(addresses);
            case.outcomes.send(Outcome::Done).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    if let Some(addresses) = case.addresses() {
        commits += 1;
        seen.extend(addresses);
    }
    assert_eq!(seen, (1..=200).map(address).collect());
    assert!((9..=12).contains(&commits), "{commits} commits in 1.2 s");
}

#[tokio::test(start_paused = true)]
async fn while_the_kernel_is_busy_changes_gather_into_one_update() {
    let case = following().await;
    case.change(pod(1)).await;
    case.turn().await;
    assert!(case.work().is_some());
    for number in 2..=9 {
        case.change(pod(number)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(case.work().is_none());
    case.outcomes.send(Outcome::Done).unwrap();
    case.turn().await;
    assert_eq!(case.addresses(), Some((2..=9).map(address).collect()));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_does_not_concern_this_node_is_not_handed_on() {
    let case = following().await;
    case.change(Change::Namespace("elsewhere".into(), Labels::default())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(case.work().is_none());
    case.change(pod(1)).await;
    case.turn().await;
    assert!(case.work().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_lost_kernel_is_given_the_whole_ruleset_again() {
    let case = following().await;
    case.change(pod(1)).await;
    case.turn().await;
    case.work();
    case.outcomes.send(Outcome::Lost).unwrap();
    case.outcomes.send(Outcome::Done).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let Some(Work::Wanted(wanted)) = case.work() else { panic!("no ruleset") };
    let verdicts = wanted.ruleset.sets.values().filter_map(|set| set.verdict(&Key::Address(address(1))));
    assert_eq!(verdicts.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_chain_the_kernel_refuses_shuts_its_pods_and_is_tried_again_later() {
    let case = following().await;
    case.change(pod(1)).await;
    case.turn().await;
    let Some(Work::Update { update, .. }) = case.work() else { panic!("no update") };
    let chain = update.delta.chains.keys().find(|name| name.as_str().starts_with("i4_")).unwrap().clone();
    let refused = BTreeMap::from([(chain.clone(), "EINVAL".to_owned())]);
    case.outcomes.send(Outcome::Refused(refused)).unwrap();
    case.outcomes.send(Outcome::Done).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let Some(Work::Wanted(wanted)) = case.work() else { panic!("no ruleset") };
    assert!(!wanted.ruleset.chains.contains_key(&chain));
    assert!(case.concerns().contains("1 chains are refused"), "{}", case.concerns());
    assert_eq!(case.telemetry.metrics.warnings.get(), 1);
    case.outcomes.send(Outcome::Done).unwrap();
    tokio::time::sleep(RETRY_REFUSED + TICK).await;
    let Some(Work::Wanted(wanted)) = case.work() else { panic!("no second try") };
    assert!(wanted.ruleset.chains.contains_key(&chain));
}

#[tokio::test(start_paused = true)]
async fn a_node_is_not_given_more_sets_than_it_bears_and_only_who_needs_most_is_shut() {
    use serde_json::json;
    let case = following().await;
    let selector =
        |policy: usize, n: usize| json!({"podSelector": {"matchLabels": {"k": format!("{policy}.{n}")}}});
    let mut objects = vec![json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "greedy", "name": "g", "uid": "g"}, "spec": {"nodeName": "a"},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.99"}]}})];
    objects.extend((0..9).map(|policy| {
        let from: Vec<_> = (0..1000).map(|n| selector(policy, n)).collect();
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "greedy", "name": format!("p{policy}")},
            "spec": {"podSelector": {}, "ingress": [{"from": from}]}})
    }));
    for object in &objects {
        case.change(podwall_engine::ingest::object(object).unwrap().unwrap().0).await;
    }
    case.change(pod(1)).await;
    case.turn().await;
    let Some(Work::Update { update, .. }) = case.work() else { panic!("no update") };
    assert!(update.delta.sets.len() < 100, "{}", update.delta.sets.len());
    assert!(update.delta.chains.keys().any(|chain| chain.as_str().starts_with("i4_")), "of pod 1");
    assert!(case.concerns().contains("1 chains are refused"), "{}", case.concerns());
    assert_eq!(case.telemetry.metrics.warnings.get(), 9, "each policy of the chain");
}

#[tokio::test(start_paused = true)]
async fn mid_stream_packets_are_let_through_only_for_a_while_after_the_first_adoption() {
    for (standing, delay) in [(Standing::Strict, 0), (Standing::Lenient, 60), (Standing::Nothing, 60)] {
        let case = start([Feed::Host]);
        case.change(Change::Node(node())).await;
        case.outcomes.send(Outcome::Standing(standing)).unwrap();
        case.send(Input::Host(Arc::default())).await;
        case.turn().await;
        let Some(Work::Wanted(wanted)) = case.work() else { panic!("no ruleset") };
        let strays = |ruleset: &podwall_ruleset::Ruleset| {
            let rules = &ruleset.chains[&podwall_engine::compile::names::strays()].rules;
            rules.iter().any(|rule| rule.matches.contains(&podwall_ruleset::Match::TcpNotOpening))
        };
        assert_eq!(strays(&wanted.ruleset), delay == 0);
        case.outcomes.send(Outcome::Done).unwrap();
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(case.work().is_some(), delay > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_watch_is_told_and_shuts_unknown_addresses_until_it_is_back() {
    let case = following().await;
    case.send(Input::Watch(Feed::Pods, Some("connection refused".to_owned()))).await;
    case.turn().await;
    assert!(
        case.concerns().contains("told watch: not watching pods: connection refused"),
        "{}",
        case.concerns()
    );
    let Some(Work::Update { update, .. }) = case.work() else { panic!("no update") };
    assert!(update.delta.sets.keys().any(|name| name.as_str() == "c_local4"));
    case.outcomes.send(Outcome::Done).unwrap();
    case.send(Input::Watch(Feed::Pods, None)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(case.work().is_some());
    assert!(!case.concerns().contains("watch"));
}

#[tokio::test(start_paused = true)]
async fn after_a_teardown_nothing_is_handed_on_any_more() {
    let case = following().await;
    case.outcomes.send(Outcome::TornDown).unwrap();
    case.turn().await;
    let (pupil, taught) = oneshot::channel();
    case.send(Input::Teach(Vec::new(), pupil)).await;
    assert!(taught.await.is_err(), "the DNS proxy waits for what nobody holds");
    case.change(pod(1)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(case.work().is_none());
    assert!(case.concerns().contains("torn_down"));
}

#[tokio::test(start_paused = true)]
async fn a_node_name_nobody_knows_is_told_with_what_to_do_and_nothing_is_written() {
    let case = start([Feed::Host, Feed::Nodes]);
    case.outcomes.send(Outcome::Standing(Standing::Nothing)).unwrap();
    case.change(Change::Node(Node { name: NodeName::from("b"), ..node() })).await;
    case.send(Input::Complete(Feed::Nodes)).await;
    case.send(Input::Host(Arc::default())).await;
    case.turn().await;
    assert!(case.concerns().contains("there is no node \"a\": "), "{}", case.concerns());
    assert!(case.work().is_none());
    case.change(Change::Node(node())).await;
    case.turn().await;
    assert!(matches!(case.work(), Some(Work::Wanted(_))));
    assert!(!case.concerns().contains("there is no node"));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_was_judged_before_the_start_and_that_nobody_owns_is_kept_shut() {
    let case = start([Feed::Pods, Feed::Host]);
    let (mine, gone) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 9]));
    case.outcomes.send(Outcome::Judged([mine, gone].into())).unwrap();
    case.outcomes.send(Outcome::Standing(Standing::Strict)).unwrap();
    case.change(Change::Node(node())).await;
    case.change(pod(1)).await;
    case.send(Input::Complete(Feed::Pods)).await;
    case.send(Input::Host(Arc::new(View::default()))).await;
    case.turn().await;
    let Some(Work::Wanted(wanted)) = case.work() else { panic!("nothing to do") };
    let shut = |address: IpAddr| {
        let key = Key::Address(address);
        let verdicts = wanted.ruleset.sets.values().filter_map(move |set| set.verdict(&key).cloned());
        verdicts.map(|verdict| verdict.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(shut(gone), ["goto pending", "goto pending"]);
    assert_eq!(shut(mine), ["return", "return"]);
}

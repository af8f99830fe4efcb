//! What is handed on for pods that wait for the answer to a query.
use super::*;

#[tokio::test(start_paused = true)]
async fn pods_with_policies_of_names_and_no_proxy_are_told_of_unless_it_is_only_replaced() {
    let case = following().await;
    let raw = serde_json::json!({
        "metadata": {"namespace": "shop", "name": "names", "uid": "n"},
        "spec": {"podSelector": {}, "egress": [{"domains": ["api.example.com"]}], "dnsServers": ["192.0.2.53"]},
    });
    case.change(Change::Policy(podwall_engine::ingest::domain_policy(&raw).unwrap().policy)).await;
    case.change(pod(1)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!case.concerns().contains("podwall dns"));
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(case.concerns().contains("nowhere new (1 pods)"), "{}", case.concerns());
}

/// What was handed on is in the kernel, and whoever waits for it hears so; he may have given up.
fn stands(pupils: Vec<oneshot::Sender<()>>) {
    for pupil in pupils {
        let _ = pupil.send(());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_told_before_all_pods_are_known_is_held_once_they_are_and_confirmed_then_only() {
    use podwall_engine::Lesson;
    let policy = serde_json::json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "DomainPolicy",
        "metadata": {"namespace": "shop", "name": "x", "uid": "x"},
        "spec": {"podSelector": {}, "egress": [{"domains": ["a.example"]}], "dnsServers": ["192.0.2.53"]}});
    let policy = podwall_engine::ingest::object(&policy).unwrap().unwrap().0;
    let mut twin = Engine::new(NodeName::from("a"), Options::default());
    [Change::Node(node()), policy.clone(), pod(1)].into_iter().for_each(|change| twin.apply(change));
    let list = twin.book().lists.keys().next().unwrap().clone();
    let there = IpAddr::from([198, 51, 100, 1]);
    let lesson = |number: u8, uid: &str| Lesson {
        pod: address(number),
        owner: PodUid(uid.into()),
        list: podwall_engine::model::ListId(list.as_str().into()),
        address: there,
        ends: Deadline(u64::MAX / 2),
    };
    let case = start([Feed::Pods, Feed::Host]);
    case.outcomes.send(Outcome::Standing(Standing::Strict)).unwrap();
    case.change(Change::Node(node())).await;
    case.change(policy).await;
    let (pupil, mut taught) = oneshot::channel();
    case.send(Input::Teach(vec![lesson(1, "u1")], pupil)).await;
    // Another pod had that address when it was asked.
    let (strange, untaught) = oneshot::channel();
    case.send(Input::Teach(vec![lesson(1, "gone")], strange)).await;
    case.change(pod(1)).await;
    case.send(Input::Complete(Feed::Pods)).await;
    case.send(Input::Host(Arc::new(View::default()))).await;
    case.turn().await;
    let Some(Work::Wanted(wanted)) = case.work() else { panic!("no ruleset") };
    let pair = Key::Pair(address(1), there);
    assert!(wanted.ruleset.sets.values().any(|set| set.iter().any(|(key, _)| *key == pair)));
    assert!(taught.try_recv().is_err());
    stands(wanted.pupils);
    assert!(taught.await.is_ok() && untaught.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_pods_wait_for_is_handed_on_at_once_and_what_comes_meanwhile_together() {
    let case = following().await;
    case.change(pod(1)).await;
    case.turn().await;
    let Some(Work::Update { pupils, .. }) = case.work() else {
        panic!("the pace of everything else is not spent")
    };
    stands(pupils);
    case.outcomes.send(Outcome::Done).unwrap();
    for together in [1, 2, 3] {
        let mut waiting = Vec::new();
        for _ in 0..together {
            let (pupil, taught) = oneshot::channel();
            case.send(Input::Teach(Vec::new(), pupil)).await;
            waiting.push(taught);
        }
        case.turn().await;
        let Some(Work::Update { pupils, .. }) = case.work() else { panic!("no update") };
        let (pupil, _late) = oneshot::channel();
        case.send(Input::Teach(Vec::new(), pupil)).await;
        case.turn().await;
        assert!(case.work().is_none(), "one at a time");
        assert_eq!(pupils.len(), together);
        stands(pupils);
        case.outcomes.send(Outcome::Done).unwrap();
        case.turn().await;
        let Some(Work::Update { pupils, .. }) = case.work() else { panic!("no update") };
        assert_eq!(pupils.len(), 1);
        stands(pupils);
        case.outcomes.send(Outcome::Done).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn rules_wait_for_one_book_however_many_pods_come_meanwhile() {
    let policy = serde_json::json!({
        "metadata": {"namespace": "shop", "name": "names", "uid": "n"},
        "spec": {"podSelector": {}, "egress": [{"domains": ["api.example.com"]}], "dnsServers": ["192.0.2.53"]},
    });
    let (classroom, lectern) = crate::agent::domains::classroom(std::path::Path::new("/nonexistent"));
    let case = start_in([Feed::Pods, Feed::Host], classroom);
    case.outcomes.send(Outcome::Standing(Standing::Strict)).unwrap();
    case.change(Change::Node(node())).await;
    case.change(Change::Policy(podwall_engine::ingest::domain_policy(&policy).unwrap().policy)).await;
    case.send(Input::Complete(Feed::Pods)).await;
    case.send(Input::Host(Arc::new(View::default()))).await;
    case.turn().await;
    assert!(matches!(case.work(), Some(Work::Wanted(_))));
    case.outcomes.send(Outcome::Done).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    lectern.attend();
    // The first is waited for, and nobody reads; those after it do not make the wait longer, and come with the next.
    for number in 1..=13 {
        assert!(case.work().is_none());
        case.change(pod(number)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(case.addresses(), Some([address(1)].into()));
    case.outcomes.send(Outcome::Done).unwrap();
    tokio::time::sleep(Duration::from_millis(101)).await;
    assert!(case.work().is_none());
    case.send(Input::BookRead(u64::MAX)).await;
    case.turn().await;
    assert_eq!(case.addresses(), Some((2..=13).map(address).collect()));
}

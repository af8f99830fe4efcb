use futures::future::BoxFuture;
use podwall_engine::explain::Tail;
use podwall_engine::model::{Direction, PolicyId, PolicyKind, Tier};
use podwall_ruleset::{ChainName, Digest, RuleId};

use super::*;
use crate::drops::world::world;

struct Phonebook;

impl Resolver for Phonebook {
    fn name(&self, _: IpAddr) -> BoxFuture<'static, Option<String>> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some("host.example".to_owned())
        })
    }
}

fn setup(metrics: &Arc<Metrics>, live: &Live) -> Setup {
    Setup {
        node: "n1".to_owned(),
        form: Form::default(),
        client: None,
        resolver: Some(Arc::new(Phonebook)),
        live: live.clone(),
        metrics: Arc::clone(metrics),
        rate: 10,
        expiry: EXPIRED,
    }
}

fn counts(packets: u64) -> Told {
    let chain = ChainName::new("i4_x").unwrap();
    let counter = Counter { chain, rule: RuleId(Digest::of(["deny"])), packets, bytes: packets * 60 };
    let policies = [PolicyKind::NetworkPolicy, PolicyKind::DomainPolicy].map(|kind| PolicyId {
        tier: Tier::Namespace,
        namespace: "shop".into(),
        name: "web-in".into(),
        kind,
    });
    let tail = Tail::Policies(Direction::Ingress);
    let counted = Counted { tail, policies: policies.into(), mode: Mode::Enforce };
    Told::Counts(vec![(counter, counted)])
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_shown_by_the_name_dns_gives_without_holding_up_others() {
    let (metrics, live) = (Arc::default(), Live::default());
    let mut seen = live.look();
    let (onward, told) = mpsc::channel(QUEUE);
    let hub = tokio::spawn(run(setup(&metrics, &live), told));
    let world = world();
    onward.send(Told::Drop(Box::new(world.drop_from("192.0.2.1", 80)))).await.unwrap();
    onward.send(Told::Drop(Box::new(world.drop_from("10.0.0.2", 80)))).await.unwrap();
    let first = seen.recv().await.unwrap();
    assert_eq!((first.report.record.source.to_string(), first.reverse), ("10.0.0.2".to_owned(), None));
    let second = seen.recv().await.unwrap();
    assert_eq!(second.reverse.as_deref(), Some("host.example"));
    drop(onward);
    hub.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn metrics_count_what_the_kernel_counts_from_our_start_on() {
    let (metrics, live): (Arc<Metrics>, _) = (Arc::default(), Live::default());
    let (onward, told) = mpsc::channel(QUEUE);
    let hub = tokio::spawn(run(setup(&metrics, &live), told));
    for packets in [1000, 1010, 5] {
        onward.send(counts(packets)).await.unwrap();
    }
    onward.send(Told::Drop(Box::new(world().drop_from("10.0.0.2", 80)))).await.unwrap();
    drop(onward);
    hub.await.unwrap();
    let page = metrics.page().unwrap();
    for line in [
        "podwall_dropped_packets_total{reason=\"policy\",direction=\"ingress\",mode=\"enforce\"} 15",
        "podwall_policy_dropped_packets_total{kind=\"NetworkPolicy\",policy_namespace=\"shop\",policy=\"web-in\",direction=\"ingress\"} 15",
        "podwall_policy_dropped_packets_total{kind=\"DomainPolicy\",policy_namespace=\"shop\",policy=\"web-in\",direction=\"ingress\"} 15",
        "packet_drops_count{src=\"shop\",dst=\"shop\"} 1",
        "podwall_drop_records_total{result=\"told\"} 1",
    ] {
        assert!(page.contains(&format!("{line}\n")), "{line}\n{page}");
    }
}

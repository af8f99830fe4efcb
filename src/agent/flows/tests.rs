//! Which flows a job cuts, over a table of flows in memory.
use std::collections::VecDeque;
use std::sync::Mutex;

use podwall_netlink::conntrack::{Layer3, Status, Tuple};

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn flow(id: u32, source: &str, asked: &str, reached: &str) -> Flow {
    let ports = |source, destination| Layer4::Ports { source, destination };
    let tuple = |source: &str, destination: &str, layer4| Tuple {
        source: ip(source),
        destination: ip(destination),
        protocol: 6,
        layer4,
        zone: None,
    };
    Flow {
        layer3: Layer3::V4,
        zone: None,
        id,
        original: tuple(source, asked, ports(40000, 80)),
        reply: tuple(reached, source, ports(8080, 40000)),
        status: Status::default(),
        timeout: None,
        mark: 0,
    }
}

/// Tables that are opened one after the other.
struct Table {
    flows: Vec<Flow>,
    deleted: Arc<Mutex<Vec<u32>>>,
}

impl Flows for Table {
    fn list(&mut self, visit: &mut dyn FnMut(Flow)) -> Result<(), Error> {
        self.flows.iter().for_each(|flow| visit(*flow));
        Ok(())
    }

    fn delete(&mut self, flow: &Flow) -> Result<Removal, Error> {
        self.deleted.lock().unwrap().push(flow.id);
        Ok(Removal::Done)
    }
}

fn bench() -> (Bench, Receiver<Work>) {
    let (works, received) = mpsc::channel();
    (Bench { own: OwnAddresses::default(), works, telemetry: Telemetry::default() }, received)
}

fn job(judged: &[&str], released: &[&str]) -> Job {
    let set = |list: &[&str]| list.iter().map(|text| ip(text)).collect();
    Job {
        number: 1,
        judged: set(judged),
        released: set(released),
        barred: Barred::Same,
        ruleset: isolating(),
    }
}

/// 10.0.0.1 is isolated and lets nobody in.
fn isolating() -> Ruleset {
    use podwall_engine::model::{
        Labels, Life, Network, NodeName, PeerSelector, Pod, PodUid, Policy, PolicyId, PolicyKind, Scope,
        Selector, Tier,
    };
    let mut engine = podwall_engine::Engine::new(NodeName::from("a"), podwall_engine::Options::default());
    engine.apply(podwall_engine::Change::Pod(Pod {
        uid: PodUid("u1".into()),
        namespace: "shop".into(),
        name: "web".into(),
        labels: Labels::default(),
        node: Some(NodeName::from("a")),
        network: Network::Own,
        addresses: vec![ip("10.0.0.1")],
        life: Life::Live,
        started: None,
        ports: Vec::new(),
        host_ports: Vec::new(),
        own: None,
        workload: None,
    }));
    engine.apply(podwall_engine::Change::Policy(Policy {
        id: PolicyId {
            tier: Tier::Namespace,
            namespace: "shop".into(),
            name: "deny".into(),
            kind: PolicyKind::NetworkPolicy,
        },
        uid: "p1".into(),
        digest: podwall_ruleset::Digest::of(["deny"]),
        priority: 0,
        mode: podwall_engine::model::ban::Mode::Enforce,
        subject: PeerSelector { scope: Scope::Named("shop".into()), pods: Selector::everything() },
        ingress: Some(Vec::new()),
        egress: None,
    }));
    engine.ruleset().clone()
}

/// Runs the jobs through the thread's body; answers the flows cut and the numbers reported.
fn run(jobs: Vec<Job>, bench: &Bench, reports: &Receiver<Work>, flows: &[Flow]) -> (Vec<u32>, Vec<u64>) {
    let deleted = Arc::new(Mutex::new(Vec::new()));
    let (sender, received) = mpsc::channel();
    jobs.into_iter().for_each(|job| sender.send(job).unwrap());
    drop(sender);
    let open = || {
        let table = Table { flows: flows.to_vec(), deleted: Arc::clone(&deleted) };
        Ok(Box::new(table) as Box<dyn Flows>)
    };
    work(&received, bench, &open);
    let numbers = reports.try_iter().filter_map(|work| match work {
        Work::Rechecked(number) => Some(number),
        _ => None,
    });
    let numbers = numbers.collect();
    (std::mem::take(&mut deleted.lock().unwrap()), numbers)
}

#[test]
fn exactly_the_forbidden_flows_of_the_judged_addresses_are_cut() {
    let (bench, reports) = bench();
    let flows = [
        flow(1, "10.0.0.9", "10.0.0.1", "10.0.0.1"),
        flow(2, "10.0.0.1", "10.0.0.9", "10.0.0.9"),
        flow(3, "10.0.0.9", "10.0.0.8", "10.0.0.8"),
        flow(4, "10.0.0.9", "10.96.0.1", "10.0.0.1"),
    ];
    let (cut, numbers) = run(vec![job(&["10.0.0.1"], &[])], &bench, &reports, &flows);
    assert_eq!((cut, numbers), (vec![1, 4], vec![1]));
    assert_eq!(bench.telemetry.metrics.flows_judged.get(), 3);
    let (cut, _) = run(vec![job(&["10.0.0.7"], &[])], &bench, &reports, &flows);
    assert_eq!(cut, Vec::<u32>::new());
}

#[test]
fn the_end_of_the_thread_is_told() {
    let (bench, reports) = bench();
    drop(start(bench).unwrap());
    assert!(matches!(reports.recv_timeout(Duration::from_secs(10)), Ok(Work::FlowsEnded)));
}

#[test]
fn what_the_node_itself_opened_is_never_cut() {
    let (bench, reports) = bench();
    bench.own.set([ip("10.0.0.254")].into());
    let flows =
        [flow(1, "10.0.0.254", "10.0.0.1", "10.0.0.1"), flow(2, "10.0.0.253", "10.0.0.1", "10.0.0.1")];
    let (cut, _) = run(vec![job(&["10.0.0.1"], &[])], &bench, &reports, &flows);
    assert_eq!(cut, [2]);
}

#[test]
fn every_flow_of_a_released_address_goes() {
    let (bench, reports) = bench();
    let flows = [
        flow(1, "10.0.0.5", "10.0.0.9", "10.0.0.9"),
        flow(2, "10.0.0.9", "10.96.0.1", "10.0.0.5"),
        flow(3, "10.0.0.9", "10.0.0.6", "10.0.0.6"),
    ];
    let (cut, _) = run(vec![job(&[], &["10.0.0.5"])], &bench, &reports, &flows);
    assert_eq!(cut, [1, 2]);
}

#[test]
fn jobs_that_wait_are_served_by_one_look_and_the_last_is_reported() {
    let (bench, reports) = bench();
    let mut jobs: VecDeque<Job> = (0..50).map(|_| job(&["10.0.0.1"], &[])).collect();
    jobs.iter_mut().zip(1..).for_each(|(job, number)| job.number = number);
    let flows = [flow(1, "10.0.0.9", "10.0.0.1", "10.0.0.1")];
    let (cut, numbers) = run(jobs.into(), &bench, &reports, &flows);
    assert_eq!((cut, numbers), (vec![1], vec![50]));
}

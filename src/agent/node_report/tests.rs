use podwall_crd::node_report::{ExceptionReason, ReportedKind};

use super::*;
use crate::agent::node_report::marks::Reached;
use crate::telemetry::metrics::Metrics;

fn version(number: u32) -> ResourceVersion {
    ResourceVersion::parse(&number.to_string()).unwrap()
}

fn writer() -> Writer {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let health = Arc::new(Health::new(Arc::new(Metrics::default())));
    health.clear(Concern::Uncommitted);
    Writer {
        client: kube::Client::try_from(config).unwrap(),
        node: NodeName::from("node-a"),
        sheet: Sheet::default(),
        health,
    }
}

fn content(reached: u32, spec: u32) -> Content {
    let reached = Reached { version: version(reached), spec: version(spec), objects: 3 };
    Content {
        known: true,
        backend: "nftables".to_owned(),
        marks: ByKind::from([(ReportedKind::Ban, reached)]),
        ..Content::default()
    }
}

fn exception(number: usize) -> Exception {
    Exception {
        kind: ReportedKind::Ban,
        namespace: String::new(),
        name: format!("ban-{number}"),
        uid: String::new(),
        reason: ExceptionReason::NotUnderstood,
        field: "f".repeat(300),
        message: "ü".repeat(600),
    }
}

#[tokio::test]
async fn a_report_names_fifty_exceptions_and_counts_all() {
    let writer = writer();
    let many = Content { exceptions: (0..70).map(exception).collect(), ..content(20, 10) };
    let report = writer.draft(&many).report;
    assert_eq!((report.exceptions.len(), report.exception_count), (50, 70));
    let first = report.exceptions.first().unwrap();
    assert_eq!((first.message.chars().count(), first.field.len()), (512, 256));
    assert_eq!((report.ready, report.backend.as_str()), (true, "nftables"));
    let mark = Mark { kind: ReportedKind::Ban, resource_version: "20".to_owned(), objects: 3 };
    assert_eq!(report.marks, [mark]);
}

#[tokio::test]
async fn the_fifty_most_hit_bans_are_told() {
    let writer = writer();
    let hit = |number: i64| BanHits { ban: format!("ban-{number}"), uid: String::new(), packets: number };
    let many = Content { hits: (0..70).map(hit).collect(), ..content(20, 10) };
    let told: Vec<i64> = writer.draft(&many).report.hits.iter().map(|hits| hits.packets).collect();
    assert_eq!(told, (20..70).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn only_what_somebody_may_wait_for_presses() {
    let writer = writer();
    let last = writer.draft(&content(20, 10));
    let differs = |content: &Content| writer.draft(content).differs(Some(&last));
    assert_eq!(differs(&content(20, 10)), Difference::None);
    assert_eq!(differs(&content(30, 10)), Difference::Idle);
    assert_eq!(differs(&content(30, 30)), Difference::Pressing);
    assert_eq!(differs(&Content { exceptions: vec![exception(1)], ..content(20, 10) }), Difference::Pressing);
    assert_eq!(differs(&Content { marks: ByKind::new(), ..content(20, 10) }), Difference::Pressing);
    let hits = vec![BanHits { ban: "x".to_owned(), uid: String::new(), packets: 1 }];
    assert_eq!(differs(&Content { hits, ..content(20, 10) }), Difference::Idle);
    writer.health.raise(Concern::Flows, "conntrack cannot be asked");
    assert_eq!(writer.draft(&content(20, 10)).differs(Some(&last)), Difference::Idle);
    writer.health.raise(Concern::Commits, "commits fail");
    assert_eq!(writer.draft(&content(20, 10)).differs(Some(&last)), Difference::Pressing);
    assert_eq!(last.differs(None), Difference::Pressing);
}

#[tokio::test]
async fn that_reports_do_not_go_through_is_no_part_of_the_report() {
    let writer = writer();
    let last = writer.draft(&content(20, 10));
    writer.health.raise(Concern::Report, "refused");
    assert_eq!(writer.draft(&content(20, 10)).differs(Some(&last)), Difference::None);
}

use podwall_engine::model::{Attachment, Links, Sharing};
use podwall_engine::{Change, model::Text};
use podwall_ruleset::LinkName;
use serde_json::json;

use super::*;
use crate::drops::line::{Line, Packets};
use crate::drops::words::{self, PodName};
use crate::drops::world::{record, tcp, world};

fn full(report: &Report, side: Side) -> String {
    format!("{}: {}", words::sentence(report, side, &PodName::default(), None), words::why(report))
}

#[test]
fn both_ends_read_who_it_was_by_which_policy_and_what_would_have_passed() {
    let report = world().drop_from("10.0.0.3", 8443);
    assert_eq!(
        full(&report, Side::Sending),
        "Packet dropped when sending traffic to shop/web (10.0.0.1) on port 8443/TCP: shop/web is isolated for ingress \
         by shop/web-in; nearest rule: shop/web-in ingress[0]: it allows tcp/8080, asked was tcp/8443"
    );
    assert!(
        full(&report, Side::Receiving).starts_with(
            "Packet dropped when receiving traffic from shop/friend (10.0.0.3) on port 8443/TCP: "
        )
    );
}

#[test]
fn the_old_tools_text_is_kept_word_for_word() {
    let report = world().drop_from("192.0.2.1", 80);
    let said = |side, names: &PodName| words::sentence(&report, side, names, None);
    assert_eq!(
        [said(Side::Sending, &PodName::Namespace), said(Side::Receiving, &PodName::Namespace)],
        [
            "Packet dropped when sending traffic to shop (10.0.0.1) on port 80/TCP",
            "Packet dropped when receiving traffic from 192.0.2.1 on port 80/TCP"
        ]
    );
    assert_eq!(
        words::sentence(&report, Side::Receiving, &PodName::default(), Some("host.example")),
        "Packet dropped when receiving traffic from host.example (192.0.2.1) on port 80/TCP"
    );
    let by = |names| said(Side::Sending, &names);
    assert!(by(PodName::Name).contains("to web (10.0.0.1)"));
    assert!(by(PodName::Label("app".to_owned())).contains("to web (10.0.0.1)"));
}

#[test]
fn the_other_end_is_a_pod_a_service_a_node_or_nobody() {
    let mut world = world();
    world.apply(
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "front"},
        "spec": {"selector": {"app": "web"}, "clusterIPs": ["10.96.0.9"], "ports": [{"port": 80}]}}),
    );
    let chain = world.chain();
    let who = |source: &str| world.report(&chain, source, "10.0.0.1", tcp(80)).source.who;
    assert!(matches!(who("10.0.0.2"), Who::Pod(pod) if &*pod.name == "stranger"));
    assert!(matches!(who("10.96.0.9"), Who::Service(service) if &*service.name == "front"));
    assert_eq!(who("192.168.0.1"), Who::Node("n1".into()));
    assert_eq!(who("192.0.2.1"), Who::Stranger);
    let web = world.drop_from("192.0.2.1", 80);
    let line = Line::of(&web, "n1", Some("host.example"), Packets::Without);
    assert_eq!(line.destination.services, ["shop/front"]);
    assert_eq!(line.destination.workload.as_deref(), Some("StatefulSet web"));
    assert_eq!(
        (line.source.name.as_deref(), line.policies),
        (Some("host.example"), vec!["shop/web-in".to_owned()])
    );
}

#[test]
fn a_pod_of_the_nodes_network_is_meant_where_only_one_has_the_port() {
    let mut world = world();
    let host = |name: &str, port: u16| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "kube-system", "name": name, "uid": name},
            "spec": {"nodeName": "n1", "hostNetwork": true,
                "containers": [{"ports": [{"containerPort": port, "hostPort": port}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "192.168.0.1"}]}})
    };
    world.apply(&host("exporter", 9100));
    let who = |world: &crate::drops::world::World, port| {
        world.report("e4_x", "10.0.0.1", "192.168.0.1", tcp(port)).destination.who
    };
    assert!(matches!(who(&world, 9100), Who::Pod(pod) if &*pod.name == "exporter"));
    assert_eq!(who(&world, 10250), Who::Node("n1".into()));
    world.apply(&host("other", 9100));
    assert_eq!(who(&world, 9100), Who::Node("n1".into()), "either may be meant");
}

#[test]
fn a_label_of_the_pod_or_else_of_its_namespace_says_whether_it_is_told() {
    let mut world = world();
    let space = |word: &str| {
        let labels = [(REPORTS_LABEL.to_owned(), word.to_owned())].into_iter().collect();
        Change::Namespace(Text::from("shop"), labels)
    };
    let told = |world: &crate::drops::world::World| {
        let report = world.drop_from("10.0.0.3", 8443);
        [report.concerns(Side::Sending), report.concerns(Side::Receiving)]
    };
    assert_eq!(told(&world), [true, true]);
    world.pod("friend", 3, json!({"app": "friend", REPORTS_LABEL: "off"}));
    assert_eq!(told(&world), [false, true]);
    world.change(space("off"));
    assert_eq!(told(&world), [false, false]);
    world.pod("friend", 3, json!({"app": "friend", REPORTS_LABEL: "on"}));
    assert_eq!(told(&world), [true, false]);
}

#[test]
fn a_forged_packet_is_its_senders_and_not_its_addresss() {
    let mut world = world();
    let attachment = Attachment { link: LinkName::new("veth2").unwrap(), sharing: Sharing::Exclusive };
    let attachments = [("10.0.0.2".parse().unwrap(), attachment)].into();
    world.change(Change::Links(Links { attachments }));
    let forged =
        Record { arrived_by: Some("veth2".to_owned()), ..record("forged", "10.0.0.3", "10.0.0.1", tcp(80)) };
    let (report, _) = report(&world.engine, &world.tenants, forged, Sample::default());
    assert!(matches!(&report.source.who, Who::Pod(pod) if &*pod.name == "stranger"), "{:?}", report.source);
    assert_eq!([report.concerns(Side::Sending), report.concerns(Side::Receiving)], [true, false]);
    assert_eq!(words::why(&report), "10.0.0.3 is not an address of the pod that sent it");
}

#[test]
fn a_judged_end_that_is_nobody_yet_is_waited_for() {
    let world = world();
    let certainty = |chain: &str, source: &str, destination: &str| {
        name(world.engine.cluster(), &world.tenants, &record(chain, source, destination, tcp(80))).2
    };
    assert_eq!(certainty("i4_x", "192.0.2.1", "10.0.0.1"), Certainty::Settled);
    assert_eq!(certainty("i4_x", "192.0.2.1", "10.0.0.99"), Certainty::Early);
    assert_eq!(certainty("pending", "10.0.0.1", "10.0.0.99"), Certainty::Early);
    assert_eq!(certainty("b4_x", "192.0.2.1", "192.0.2.2"), Certainty::Settled);
}

#[test]
fn an_address_of_a_pod_range_is_some_pods_whose_name_may_still_come() {
    let mut world = world();
    world.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"},
        "spec": {"podCIDRs": ["10.0.7.0/24"]}}));
    let certainty = |source: &str| {
        name(world.engine.cluster(), &world.tenants, &record("i4_x", source, "10.0.0.1", tcp(80))).2
    };
    assert_eq!([certainty("10.0.7.9"), certainty("192.0.2.1")], [Certainty::Early, Certainty::Settled]);
}

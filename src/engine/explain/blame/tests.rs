use serde_json::json;

use super::*;
use crate::change::Change;
use crate::ingest;
use crate::model::NodeName;
use crate::options::Options;

/// A node with `shop/web`, into which `shop/web-in` lets `app=friend` by TCP 8080; and `shop/stranger`.
fn engine() -> Engine {
    let mut engine = Engine::new(NodeName::from("n1"), Options::default());
    let pod = |name: &str, address: &str| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": name, "uid": name, "labels": {"app": name}},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIPs": [{"ip": address}]}})
    };
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "web-in", "uid": "p1"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": 8080}]}]}});
    for object in [pod("web", "10.0.0.1"), pod("stranger", "10.0.0.2"), pod("friend", "10.0.0.3"), policy] {
        engine.apply(ingest::object(&object).unwrap().unwrap().0);
    }
    engine
}

fn chain(engine: &Engine) -> String {
    engine.origins().chains.into_keys().find(|name| name.as_str().starts_with("i4_")).unwrap().to_string()
}

fn blame(engine: &Engine, chain: &str, from: &str, port: u16) -> Option<Blame> {
    let source = from.parse().unwrap();
    let destination = "10.0.0.1".parse().unwrap();
    engine.blame(&Asked {
        chain,
        source,
        destination,
        transport: Transport::Tcp { port, opening: true },
        from: engine.cluster().owner(source).map(AsRef::as_ref),
        to: engine.cluster().owner(destination).map(AsRef::as_ref),
    })
}

fn nearest_of(blame: Option<Blame>) -> (Vec<String>, Option<String>) {
    match blame {
        Some(Blame::Policies { policies, nearest, .. }) => {
            (policies.iter().map(ToString::to_string).collect(), nearest.map(|nearest| nearest.misses))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_drop_names_who_isolates_and_the_rule_that_nearly_allowed_it() {
    let engine = engine();
    let chain = chain(&engine);
    let shop = vec!["shop/web-in".to_owned()];
    assert_eq!(
        nearest_of(blame(&engine, &chain, "10.0.0.3", 8443)),
        (shop.clone(), Some("it allows tcp/8080, asked was tcp/8443".to_owned()))
    );
    assert_eq!(
        nearest_of(blame(&engine, &chain, "10.0.0.2", 8080)),
        (
            shop.clone(),
            Some("it allows traffic from pods app=friend in namespace shop, asked was shop/stranger (app=stranger)".to_owned())
        )
    );
    assert_eq!(nearest_of(blame(&engine, &chain, "192.0.2.1", 9)), (shop, None), "nothing fits");
}

#[test]
fn a_policy_that_went_before_anybody_asked_is_still_named() {
    let mut engine = engine();
    let chain = chain(&engine);
    let id = engine.cluster().policies().next().unwrap().id.clone();
    engine.apply(Change::PolicyGone(id));
    assert!(engine.origins().chains.is_empty());
    assert_eq!(nearest_of(blame(&engine, &chain, "10.0.0.2", 8080)), (vec!["shop/web-in".to_owned()], None));
}

#[test]
fn chains_tell_by_their_names_whether_and_why_they_drop() {
    let kinds = [
        "i4_abc", "e6_abc", "b4_abc", "d6_abc", "pending", "forged", "strays", "x4_abc", "forward", "i4",
        "i5_a",
    ];
    assert_eq!(
        kinds.map(Tail::of),
        [
            Some(Tail::Policies(Direction::Ingress)),
            Some(Tail::Policies(Direction::Egress)),
            Some(Tail::Ban),
            Some(Tail::Door),
            Some(Tail::Pending),
            Some(Tail::Forged),
            Some(Tail::Strays),
            None,
            None,
            None,
            None,
        ]
    );
}

#[test]
fn only_what_was_dropped_is_counted_as_dropped() {
    let engine = engine();
    let mut counted = Vec::new();
    for (chain, content) in &engine.ruleset().chains {
        for rule in &content.rules {
            let counter = Counter { chain: chain.clone(), rule: rule.id, packets: 1, bytes: 1 };
            let drops =
                rule.effect.outcome == podwall_ruleset::Outcome::Verdict(podwall_ruleset::Verdict::Drop);
            assert_eq!(engine.counted(&counter).is_some(), drops, "{chain} {rule:?}");
            counted.extend(engine.counted(&counter).map(|counted| counted.tail.as_str()));
        }
    }
    assert!(
        counted.contains(&"policy") && counted.contains(&"pending") && counted.contains(&"stray"),
        "{counted:?}"
    );
}

#[test]
fn a_drop_of_a_policy_of_names_is_blamed_on_it_by_its_kind_annotations_of_the_pod_included() {
    let mut engine = Engine::new(NodeName::from("n1"), Options::default());
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "web", "uid": "web", "annotations": {
            "podwall.dev/hosts_csv": "api.example.com", "podwall.dev/listening_ports_csv": "80",
            "podwall.dev/extra_whitelist_ips_csv": "203.0.113.7"}},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}});
    let names = json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "DomainPolicy",
        "metadata": {"namespace": "shop", "name": "names", "uid": "p1"},
        "spec": {"podSelector": {}, "egress": [
            {"domains": ["api.example.com"], "ports": [{"port": 443}]},
            {"cidrs": ["192.0.2.0/24"], "ports": [{"port": 443}]}]}});
    for object in [pod, names] {
        engine.apply(ingest::object(&object).unwrap().unwrap().0);
    }
    let chains = engine.origins().chains.into_keys();
    let chain = chains.map(|name| name.to_string()).find(|name| name.starts_with("e4_")).unwrap();
    let to = |address: &str, port| {
        engine.blame(&Asked {
            chain: &chain,
            source: "10.0.0.1".parse().unwrap(),
            destination: address.parse().unwrap(),
            transport: Transport::Tcp { port, opening: true },
            from: engine.cluster().owner("10.0.0.1".parse().unwrap()).map(AsRef::as_ref),
            to: None,
        })
    };
    let both = ["DomainPolicy shop/names", "annotations of pod shop/web"].map(str::to_owned).to_vec();
    let near = Some("it allows tcp/443, asked was tcp/80".to_owned());
    assert_eq!(nearest_of(to("192.0.2.9", 80)), (both.clone(), near));
    assert_eq!(nearest_of(to("198.51.100.9", 443)).0, both);
}

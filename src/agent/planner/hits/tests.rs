use podwall_engine::{Change, NodeName, Options, ingest};
use podwall_ruleset::Family;
use serde_json::json;

use super::*;

fn engine(bans: &[(&str, &[&str])]) -> Engine {
    let mut engine = Engine::new(NodeName::from("a"), Options::default());
    for (name, addresses) in bans {
        let ban = json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "Ban",
            "metadata": {"name": name, "uid": format!("uid of {name}")}, "spec": {"addresses": addresses}});
        engine.apply(ingest::object(&ban).unwrap().unwrap().0);
    }
    engine
}

/// The element of the engine's sets in which an address is, met so often.
fn hit(engine: &Engine, address: &str, packets: u64) -> Hit {
    let address = address.parse().unwrap();
    let sets = engine.banned_sets();
    let elements = sets.keys().flat_map(|set| {
        let keys = engine.ruleset().sets[set].iter().map(|(key, _)| key.clone());
        keys.map(|key| (set.clone(), key))
    });
    let holds = |key: &Key| match key {
        Key::Address(one) => *one == address,
        Key::Range(first, last) => {
            Family::of(first) == Family::of(&address) && (*first..=*last).contains(&address)
        }
        Key::Service(..) | Key::Endpoint(..) | Key::Pair(..) | Key::Link(_) => false,
    };
    let (set, key) = elements.filter(|(_, key)| holds(key)).min().unwrap();
    Hit { set, key, packets, bytes: packets * 60 }
}

fn told(hits: &mut Hits, engine: &Engine, metrics: &Metrics, met: &[(&str, u64)]) -> Vec<(String, i64)> {
    let met = met.iter().map(|(address, packets)| hit(engine, address, *packets)).collect();
    hits.take(met, engine, metrics).into_iter().map(|hits| (hits.ban, hits.packets)).collect()
}

fn owned(told: &[(&str, i64)]) -> Vec<(String, i64)> {
    told.iter().map(|(ban, packets)| ((*ban).to_owned(), *packets)).collect()
}

#[test]
fn a_packet_counts_for_each_ban_behind_its_element_and_for_no_other() {
    let engine = engine(&[
        ("one", &["192.0.2.1", "2001:db8::1"]),
        ("two", &["192.0.2.1"]),
        ("inner", &["198.51.100.64/26", "2001:db8::/48"]),
        ("outer", &["198.51.100.0/24"]),
        ("other", &["203.0.113.0/24", "192.0.2.2"]),
    ]);
    let (mut hits, metrics) = (Hits::default(), Metrics::default());
    let met = [("192.0.2.1", 3), ("2001:db8::1", 4), ("198.51.100.70", 9), ("2001:db8:0:1::", 1)];
    let wanted = [("inner", 10), ("outer", 9), ("one", 7), ("two", 3)];
    assert_eq!(told(&mut hits, &engine, &metrics, &met), owned(&wanted));
    assert_eq!((metrics.banned_packets.get(), metrics.banned_bytes.get()), (17, 17 * 60));
    let page = metrics.page().unwrap();
    for line in [
        "podwall_ban_packets_total{kind=\"Ban\",namespace=\"\",name=\"one\"} 7\n",
        "podwall_ban_bytes_total{kind=\"Ban\",namespace=\"\",name=\"two\"} 180\n",
    ] {
        assert!(page.contains(line), "{line}{page}");
    }
    assert!(!page.contains("\"other\""), "{page}");
}

#[test]
fn counts_go_on_when_the_kernel_begins_anew_and_end_with_the_ban() {
    let mut engine = engine(&[("one", &["192.0.2.1"])]);
    let (mut hits, metrics) = (Hits::default(), Metrics::default());
    for (met, wanted) in [(5, 5), (5, 5), (8, 8), (2, 10)] {
        assert_eq!(told(&mut hits, &engine, &metrics, &[("192.0.2.1", met)]), owned(&[("one", wanted)]));
    }
    assert_eq!(told(&mut hits, &engine, &metrics, &[]), owned(&[("one", 10)]));
    let id = engine.cluster().bans().next().unwrap().id.clone();
    engine.apply(Change::BanGone(id));
    assert_eq!(told(&mut hits, &engine, &metrics, &[]), []);
    assert!(!metrics.page().unwrap().contains("name=\"one\""));
}

#[test]
fn a_ban_of_the_same_name_begins_at_nothing() {
    let mut engine = engine(&[("one", &["192.0.2.1"])]);
    let (mut hits, metrics) = (Hits::default(), Metrics::default());
    told(&mut hits, &engine, &metrics, &[("192.0.2.1", 5)]);
    let ban = json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "Ban",
        "metadata": {"name": "one", "uid": "another"}, "spec": {"addresses": ["192.0.2.1"]}});
    engine.apply(ingest::object(&ban).unwrap().unwrap().0);
    assert_eq!(told(&mut hits, &engine, &metrics, &[("192.0.2.1", 6)]), owned(&[("one", 1)]));
}

#[test]
fn only_the_bans_that_are_met_most_have_metrics() {
    let all: Vec<(String, String)> =
        (0..70).map(|n| (format!("ban-{n:02}"), format!("192.0.2.{n}"))).collect();
    let of: Vec<(&str, Vec<&str>)> =
        all.iter().map(|(name, address)| (name.as_str(), vec![address.as_str()])).collect();
    let bans: Vec<(&str, &[&str])> =
        of.iter().map(|(name, addresses)| (*name, addresses.as_slice())).collect();
    let engine = engine(&bans);
    let (mut hits, metrics) = (Hits::default(), Metrics::default());
    let met: Vec<(&str, u64)> = (0..).zip(&all).map(|(n, (_, address))| (address.as_str(), n + 1)).collect();
    assert_eq!(told(&mut hits, &engine, &metrics, &met).len(), MOST_HITS);
    let page = metrics.page().unwrap();
    assert_eq!(page.matches("podwall_ban_packets_total{").count(), MOST_HITS);
    assert!(page.contains("ban-69") && !page.contains("ban-19"), "{page}");
    // The last becomes the first: somebody else has to make room.
    assert_eq!(
        told(&mut hits, &engine, &metrics, &[("192.0.2.0", 99)]).first(),
        owned(&[("ban-00", 99)]).first()
    );
    let page = metrics.page().unwrap();
    assert_eq!(page.matches("podwall_ban_packets_total{").count(), MOST_HITS);
    assert!(page.contains("ban-00") && !page.contains("ban-20"), "{page}");
}

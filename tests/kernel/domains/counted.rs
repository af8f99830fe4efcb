//! What the proxy counts, as whoever scrapes it reads it.
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::ground::{Ground, SERVER};
use super::{ZONE, ground, spec};

/// The page, but for how long what took; and the seconds that were added in all.
fn page(ground: &Ground) -> (BTreeMap<String, u64>, f64) {
    let node = ground.rig.lab.node("east").unwrap().netns();
    let curl = || Command::new("curl").args(["-sf", "http://127.0.0.1:9475/metrics"]).output();
    let output = node.run(curl).unwrap().unwrap();
    let (mut counts, mut seconds) = (BTreeMap::new(), None);
    for line in String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let name = name.strip_prefix("podwall_dns_").unwrap();
        if name == "added_seconds_sum" {
            seconds = Some(value.parse().unwrap());
        } else if !name.starts_with("added_seconds_bucket") {
            counts.insert(name.to_owned(), value.parse().unwrap());
        }
    }
    (counts, seconds.unwrap())
}

#[test]
fn queries_refusals_lessons_and_added_time_are_counted_one_by_one() {
    let listed = ["api.example.com", "www.example.com", "inside.example.com", "wild.example.com"];
    let Some(mut ground) = ground(ZONE, &spec(&listed), &[]) else { return };
    let asks = |ground: &Ground, name: &'static str| {
        let once = move || ground::ask(SERVER[0], name, RecordType::A, Duration::from_secs(4));
        ground.pod("blue/ant").run(once).unwrap().unwrap().metadata.response_code
    };
    let mut wanted: BTreeMap<String, u64> =
        // Two pods of two addresses.
        [("added_seconds_count", 0), ("agent_connected", 1), ("known_total", 0), ("lessons_total", 0), ("pods", 4)]
            .map(|(name, count)| (name.to_owned(), count))
            .into();
    assert_eq!(page(&ground), (wanted.clone(), 0.0));
    let mut expect = |ground: &Ground, changed: &[(&str, u64)]| {
        wanted.extend(changed.iter().map(|(name, count)| ((*name).to_owned(), *count)));
        let (counts, seconds) = page(ground);
        assert_eq!(counts, wanted);
        seconds
    };
    const UDP: &str = "queries_total{transport=\"udp\"}";
    assert_eq!(asks(&ground, "api.example.com."), ResponseCode::NoError);
    let first = expect(&ground, &[(UDP, 1), ("lessons_total", 1), ("added_seconds_count", 1)]);
    assert!(first > 0.0 && first < 4.0, "{first}");
    assert_eq!(asks(&ground, "api.example.com."), ResponseCode::NoError);
    let second = expect(&ground, &[(UDP, 2), ("known_total", 1), ("added_seconds_count", 2)]);
    assert!(second > first && second < first + 4.0, "{first} {second}");
    println!("what was to be opened took {first} s longer, what was open {} s", second - first);
    // By an alias, by no policy, by the other transport.
    assert_eq!(asks(&ground, "www.example.com."), ResponseCode::NoError);
    assert_eq!(asks(&ground, "other.example.com."), ResponseCode::NoError);
    let (said, _) = ground.run("blue/ant", &format!("dig +tcp +short @{} api.example.com AAAA", SERVER[0]));
    assert_eq!(said.trim(), "2001:db8:18::1");
    let tcp = "queries_total{transport=\"tcp\"}";
    expect(&ground, &[(UDP, 4), (tcp, 1), ("lessons_total", 3), ("added_seconds_count", 5)]);
    assert_eq!(asks(&ground, "inside.example.com."), ResponseCode::Refused);
    expect(&ground, &[(UDP, 5), ("refused_total{reason=\"Rebinding\"}", 1)]);
    ground.agents.kill("east");
    assert_eq!(asks(&ground, "wild.example.com."), ResponseCode::ServFail);
    let unconfirmed = "refused_total{reason=\"Unconfirmed\"}";
    expect(&ground, &[(UDP, 6), (unconfirmed, 1), ("lessons_total", 4), ("agent_connected", 0)]);
    ground.knot.stop();
    assert_eq!(asks(&ground, "api.example.com."), ResponseCode::ServFail);
    expect(&ground, &[(UDP, 7), ("refused_total{reason=\"Silent\"}", 1)]);
}

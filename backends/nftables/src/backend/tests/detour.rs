//! The way of DNS queries to the proxy, against this kernel.
use std::collections::BTreeMap;

use super::namespace::{attempt, in_namespace, nft};
use podwall_ruleset::detour::LIFE;
use podwall_ruleset::{Askers, Detour as _, Proxy};

use crate::detour::NftablesDetour;

const TABLE: &str = "list table inet podwall_dns";

fn detour() -> NftablesDetour {
    let proxy = Proxy { v4: "169.254.53.1".parse().unwrap(), v6: "fd53::1".parse().unwrap() };
    NftablesDetour::open(proxy).unwrap()
}

fn askers(texts: &[(&str, &str)]) -> Askers {
    texts.iter().map(|(pod, server)| (pod.parse().unwrap(), server.parse().unwrap())).collect()
}

fn ways(texts: &[(&str, u16)]) -> BTreeMap<std::net::IpAddr, u16> {
    texts.iter().map(|(text, port)| (text.parse().unwrap(), *port)).collect()
}

/// Is the server's way open? A time is told while it is.
fn is_open(server: &str) -> bool {
    nft(TABLE).lines().any(|line| {
        line.contains(&format!("{server} expires")) || line.contains(&format!("{server} timeout"))
    })
}

#[test]
fn the_table_is_what_it_shall_be_and_goes_with_its_owner() {
    in_namespace(|| {
        let mut detour = detour();
        detour
            .set(
                &askers(&[("10.0.0.2", "10.96.0.10"), ("fd00::2", "fd96::a")]),
                &ways(&[("10.96.0.10", 15353), ("fd96::a", 15354)]),
            )
            .unwrap();
        let shown = nft(TABLE);
        for rule in [
            "type nat hook prerouting priority dstnat - 1; policy accept;",
            "udp dport 53 ip saddr . ip daddr @askers4 dnat ip to 169.254.53.1:ip daddr map @ways4",
            "tcp dport 53 ip6 saddr . ip6 daddr @askers6 dnat ip6 to [fd53::1]:ip6 daddr map @ways6",
            "type filter hook prerouting priority raw - 1; policy accept;",
            "10.0.0.2 . 10.96.0.10",
        ] {
            assert!(shown.contains(rule), "{rule}\n{shown}");
        }
        assert!(is_open("10.96.0.10") && is_open("fd96::a"), "{shown}");
        // Nobody else writes into it, and what a proxy before left is no hindrance to the next.
        assert!(!attempt("nft", &["flush", "table", "inet", "podwall_dns"]).status.success());
        drop(detour);
        assert!(!attempt("nft", &["list", "table", "inet", "podwall_dns"]).status.success());
        nft("add table inet podwall_dns");
        let _next = self::detour();
        assert!(nft(TABLE).contains("askers4"));
    });
}

#[test]
fn ways_follow_what_is_set_and_close_by_themselves() {
    in_namespace(|| {
        let mut detour = detour();
        let of = |pods: [&str; 2]| askers(&pods.map(|pod| (pod, "10.96.0.10")));
        detour.set(&of(["10.0.0.2", "10.0.0.3"]), &ways(&[("10.96.0.10", 15353)])).unwrap();
        detour.set(&of(["10.0.0.3", "10.0.0.4"]), &ways(&[("10.96.0.11", 15353)])).unwrap();
        let shown = nft(TABLE);
        for (pod, there) in [("10.0.0.2", false), ("10.0.0.3", true), ("10.0.0.4", true)] {
            assert_eq!(shown.contains(&format!("{pod} . 10.96.0.10")), there, "{pod}\n{shown}");
        }
        assert!(is_open("10.96.0.11") && !is_open("10.96.0.10"), "{shown}");
        for _ in 0..3 {
            std::thread::sleep(LIFE / 2);
            detour.renew().unwrap();
            assert!(is_open("10.96.0.11"));
        }
        std::thread::sleep(LIFE + LIFE / 10);
        assert!(!is_open("10.96.0.11"));
        detour.renew().unwrap();
        assert!(is_open("10.96.0.11"));
    });
}

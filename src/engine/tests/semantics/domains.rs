//! Section 15: names (Q1 to Q13), as DomainPolicies ask for them.
use std::net::IpAddr;

use podwall_engine::model::PodUid;
use podwall_engine::options::DnsProxy;
use podwall_engine::readers::Book;
use podwall_engine::{Change, Lesson, Options, ingest};
use podwall_ruleset::packet::Packet;
use podwall_ruleset::{Deadline, Family, Hook, PortRange};
use serde_json::{Value, json};

use super::ALL_BUT_XA;
use super::world::{World, transport};

/// An address of `api.example.com` in each family.
const API: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];

fn domain_policy(name: &str, spec: &str) -> Value {
    let (namespace, own) = super::manifest::split(name);
    let spec: Value = serde_saphyr::from_str(spec).unwrap();
    json!({
        "apiVersion": "podwall.dev/v1alpha1", "kind": "DomainPolicy",
        "metadata": {"namespace": namespace, "name": own, "uid": format!("domain {name}")}, "spec": spec,
    })
}

/// x/a may talk to one name on one port, by the cluster's DNS and one other server.
const ONE: &str = "{podSelector: {matchLabels: {pod: a}}, egress: [{domains: [api.example.com], ports: [{port: 443}]}], \
                   dnsServers: [ClusterDNS, 192.0.2.53, '2001:db8::53']}";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Addresses of a pod that has one of each family.
fn addresses(world: &World, pod: &str) -> Vec<IpAddr> {
    world.addresses_of(pod)
}

fn book_of(world: &World, node: &str) -> Book {
    world.engine(node).book()
}

/// The pod learns the address for every list of names it may use.
fn learn(world: &mut World, pod: &str, learned: &[&str], ends: u64) {
    for own in addresses(world, pod) {
        for node in ["n1", "n2"] {
            let Some(reader) = book_of(world, node).readers.get(&own).cloned() else { continue };
            for (list, address) in
                reader.lists.iter().flat_map(|list| learned.iter().map(move |address| (list, ip(address))))
            {
                world.change(&Change::Learned(Lesson {
                    pod: own,
                    owner: PodUid(reader.uid.as_str().into()),
                    list: podwall_engine::model::ListId(list.as_str().into()),
                    address,
                    ends: Deadline(ends),
                }));
            }
        }
    }
}

/// Does the node of the pod let it out to an address of its family?
fn out(world: &World, pod: &str, to: [&str; 2], what: &str) -> bool {
    let mine = addresses(world, pod);
    let judged = mine.iter().map(|from| {
        let to = to.into_iter().map(ip).find(|to| Family::of(to) == Family::of(from)).unwrap();
        world.judge(world.node_of(pod), &Packet::opening(*from, to, transport(what, Family::of(from))))
    });
    let judged: Vec<bool> = judged.collect();
    assert!(judged.iter().all(|one| *one == judged[0]), "{pod} to {to:?}: {judged:?}");
    judged[0]
}

#[test]
fn a_name_opens_nothing_before_it_was_resolved_and_then_to_the_pod_that_asked_alone() {
    let mut world = World::standard();
    world.put(&domain_policy("x/one", &ONE.replace("{matchLabels: {pod: a}}", "{}")));
    assert!(!out(&world, "x/a", API, "tcp/443") && out(&world, "y/a", API, "tcp/443"));
    learn(&mut world, "x/a", &API, 1000);
    assert!(out(&world, "x/a", API, "tcp/443"));
    assert!(!out(&world, "x/b", API, "tcp/443") && !out(&world, "x/c", API, "tcp/443"));
    for (to, what) in [(API, "tcp/80"), (API, "udp/443"), (["198.51.100.2", "2001:db8:1::2"], "tcp/443")] {
        assert!(!out(&world, "x/a", to, what), "{what}");
    }
}

#[test]
fn dns_itself_goes_to_the_servers_named_and_nowhere_else() {
    let mut world = World::standard();
    world.put(&domain_policy("x/one", ONE));
    for what in ["udp/53", "tcp/53"] {
        assert!(out(&world, "x/a", ["192.0.2.53", "2001:db8::53"], what));
        assert!(!out(&world, "x/a", ["192.0.2.54", "2001:db8::54"], what));
    }
    assert!(!out(&world, "x/a", ["192.0.2.53", "2001:db8::53"], "tcp/853"), "no DNS over TLS");
    world.put(&domain_policy("x/one", &ONE.replace("[ClusterDNS, 192.0.2.53, '2001:db8::53']", "[]")));
    assert!(!out(&world, "x/a", ["192.0.2.53", "2001:db8::53"], "udp/53"));
}

#[test]
fn the_clusters_dns_is_its_pods_on_the_port_they_name() {
    let mut world = World::standard();
    world.put(&super::manifest::namespace("kube-system", ""));
    let dns = super::manifest::pod("kube-system/coredns").labels("k8s-app=kube-dns").on("n2");
    world.pod(dns.ips(&["10.244.2.200", "fd00:244:2::200"]).port("dns/UDP/5353").port("dns-tcp/TCP/5353"));
    world.put(&domain_policy("x/one", "{podSelector: {}, egress: [{domains: [api.example.com]}]}"));
    for what in ["udp/53", "tcp/53", "udp/5353", "tcp/5353"] {
        assert!(world.open("x/a", "kube-system/coredns", what), "{what}");
    }
    assert!(!world.open("x/a", "kube-system/coredns", "tcp/80") && !world.open("x/a", "y/a", "udp/53"));
}

#[test]
fn the_nodes_proxy_is_open_to_those_who_ask_for_names_and_to_nobody_isolated_otherwise() {
    let proxy = DnsProxy {
        v4: "169.254.53.53".parse().unwrap(),
        v6: "fd53::53".parse().unwrap(),
        ports: PortRange::new(15353, 15400).unwrap(),
    };
    let mut world = World::standard_with(&Options { dns_proxy: Some(proxy), ..Options::default() });
    world.put(&domain_policy("x/one", ONE));
    world.policy("x/closed", "{podSelector: {matchLabels: {pod: c}}, policyTypes: [Egress]}");
    let asks = |world: &World, pod: &str, what: &str| {
        addresses(world, pod).into_iter().all(|from| {
            let to = proxy.address(Family::of(&from));
            let packet = Packet::opening(from, to, transport(what, Family::of(&from)));
            world.judge(world.node_of(pod), &Packet { hook: Hook::Input, ..packet })
        })
    };
    for what in ["udp/15353", "tcp/15353", "udp/15400"] {
        assert!(asks(&world, "x/a", what) && !asks(&world, "x/c", what), "{what}");
    }
    assert!(!asks(&world, "x/a", "udp/15401") && !asks(&world, "x/a", "tcp/22"));
}

#[test]
fn what_was_learned_ends_and_a_fresh_answer_renews_it() {
    let mut world = World::standard();
    world.put(&domain_policy("x/one", ONE));
    learn(&mut world, "x/a", &API, 1000);
    world.change(&Change::Clock(Deadline(500)));
    learn(&mut world, "x/a", &API, 1500);
    learn(&mut world, "x/a", &API, 1200);
    for (now, open) in [(999, true), (1000, true), (1499, true), (1500, false)] {
        world.change(&Change::Clock(Deadline(now)));
        assert_eq!(out(&world, "x/a", API, "tcp/443"), open, "{now}");
        assert_eq!(world.engine("n1").next_end(), open.then_some(Deadline(1500)), "{now}");
    }
    learn(&mut world, "x/a", &API, 1400);
    assert!(!out(&world, "x/a", API, "tcp/443"), "an answer from the past");
}

#[test]
fn the_next_pod_of_an_address_knows_nothing_of_what_the_last_one_learned() {
    let mut world = World::standard();
    world.put(&domain_policy("x/one", ONE));
    learn(&mut world, "x/a", &API, 1000);
    let own = addresses(&world, "x/a");
    let old = book_of(&world, "n1").readers[&own[0]].clone();
    let texts: Vec<String> = own.iter().map(ToString::to_string).collect();
    world.pod_gone("x/a");
    let heir = super::manifest::pod("x/heir").labels("pod=a").on("n1");
    world.pod(heir.ips(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(!out(&world, "x/heir", API, "tcp/443"));
    // An answer to the old one that comes late.
    for list in &old.lists {
        world.change(&Change::Learned(Lesson {
            pod: own[0],
            owner: PodUid(old.uid.as_str().into()),
            list: podwall_engine::model::ListId(list.as_str().into()),
            address: ip(API[0]),
            ends: Deadline(1000),
        }));
    }
    assert!(!out(&world, "x/heir", API, "tcp/443"));
    learn(&mut world, "x/heir", &API, 1000);
    assert!(out(&world, "x/heir", API, "tcp/443"));
}

#[test]
fn it_adds_up_with_other_policies_and_a_policy_that_comes_back_finds_what_was_learned() {
    let mut world = World::standard();
    world.put(&domain_policy("x/one", ONE));
    learn(&mut world, "x/a", &API, 1000);
    world.policy(
        "x/net",
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]}",
    );
    assert!(out(&world, "x/a", API, "tcp/443") && world.open("x/a", "x/b", "tcp/80"));
    assert!(!world.open("x/a", "x/c", "tcp/80") && !out(&world, "x/b", API, "tcp/443"));
    let gone = ingest::object(&domain_policy("x/one", ONE)).unwrap().unwrap().0;
    world.change(&ingest::removal(&gone).unwrap());
    assert!(!out(&world, "x/a", API, "tcp/443") && world.open("x/a", "x/b", "tcp/80"));
    world.put(&domain_policy("x/again", ONE));
    assert!(out(&world, "x/a", API, "tcp/443"));
}

#[test]
fn networks_and_listening_ports_are_judged_like_those_of_a_network_policy() {
    let mut world = World::standard();
    world.put(&domain_policy(
        "x/one",
        "{podSelector: {matchLabels: {pod: a}}, egress: [{cidrs: [198.51.100.0/24, '2001:db8:1::/48'], ports: [{port: 443}]}], listeningPorts: [{port: 80}]}",
    ));
    assert!(out(&world, "x/a", API, "tcp/443") && !out(&world, "x/a", API, "tcp/80"));
    for peer in ALL_BUT_XA.split(' ') {
        assert!(world.open(peer, "x/a", "tcp/80") && !world.open(peer, "x/a", "tcp/81"), "{peer}");
    }
    world.put(&domain_policy("x/one", "{podSelector: {matchLabels: {pod: a}}}"));
    assert!(world.open("y/a", "x/a", "tcp/81") && !out(&world, "x/a", API, "tcp/443"));
    world.put(&domain_policy("x/one", "{podSelector: {matchLabels: {pod: a}}, listeningPorts: []}"));
    assert!(!world.open("y/a", "x/a", "tcp/80"));
}

#[test]
fn the_book_names_whom_a_pod_may_ask_and_for_what() {
    let mut world = World::standard();
    assert_eq!(book_of(&world, "n1"), Book::default());
    let dns = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "kube-system", "name": "kube-dns"},
        "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd96::a"], "ports": [{"port": 53, "protocol": "UDP"}]}});
    world.put(&dns);
    world.put(&domain_policy("x/one", ONE));
    let book = book_of(&world, "n1");
    let own = addresses(&world, "x/a");
    assert_eq!(book.readers.keys().copied().collect::<Vec<_>>(), own);
    let reader = &book.readers[&own[1]];
    let servers = ["10.96.0.10", "192.0.2.53", "2001:db8::53", "fd96::a"].map(ip);
    assert_eq!((reader.pod.as_str(), &reader.servers), ("x/a", &servers.into()));
    let [list] = reader.lists.iter().collect::<Vec<_>>()[..] else { panic!("{reader:?}") };
    assert_eq!(book.lists[list].patterns, ["api.example.com"]);
    assert_eq!(book.lists[list].policies, ["x/one".to_owned()].into());
}

#[test]
fn the_clusters_dns_may_get_other_addresses_while_pods_use_it() {
    let mut world = World::standard();
    let dns = |v4: &str, v6: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "kube-system", "name": "kube-dns"},
            "spec": {"clusterIP": v4, "clusterIPs": [v4, v6], "ports": [{"port": 53, "protocol": "UDP"}]}})
    };
    world.put(&domain_policy("x/one", "{podSelector: {}, egress: [{domains: [api.example.com]}]}"));
    let own = addresses(&world, "x/a")[0];
    let asked = |world: &World| book_of(world, "n1").readers.get(&own).map(|reader| reader.servers.clone());
    assert_eq!(asked(&world), None);
    for [v4, v6] in [["10.96.0.10", "fd96::a"], ["10.96.0.99", "fd96::63"]] {
        world.put(&dns(v4, v6));
        assert_eq!(asked(&world), Some([v4, v6].map(ip).into()));
    }
    let gone = ingest::object(&dns("10.96.0.99", "fd96::63")).unwrap().unwrap().0;
    world.change(&ingest::removal(&gone).unwrap());
    assert_eq!(asked(&world), None);
}

#[test]
fn a_server_that_is_a_pod_with_policies_of_its_own_is_never_asked_in_the_nodes_name() {
    let mut world = World::standard();
    let servers = addresses(&world, "y/a");
    let text: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let spec = format!(
        "{{podSelector: {{matchLabels: {{pod: a}}}}, egress: [{{domains: [api.example.com]}}], dnsServers: ['{}']}}",
        text.join("', '")
    );
    world.put(&domain_policy("x/one", &spec));
    let own = addresses(&world, "x/a");
    let asked =
        |world: &World| book_of(world, "n1").readers.get(&own[0]).map(|reader| reader.servers.clone());
    assert_eq!(asked(&world), Some(servers.iter().copied().collect()));
    // Its policy lets in z alone; the node, and so the proxy, would get in all the same.
    world.policy(
        "y/in",
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: z}}}]}]}",
    );
    assert_eq!(asked(&world), None);
    assert!(!world.open("x/a", "y/a", "udp/53"));
    world.policy("y/in", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}");
    assert_eq!(asked(&world), None);
    assert!(world.open("x/a", "y/a", "udp/53") && !world.open("x/a", "y/a", "udp/54"));
}

#[test]
fn pods_in_the_nodes_own_network_are_not_in_the_book() {
    let mut world = World::standard();
    world.put(&domain_policy("x/one", ONE));
    let before = book_of(&world, "n1");
    let mut node = super::manifest::pod("x/host").labels("pod=a").on("n1").ips(&["10.0.0.1", "fd00::1"]);
    node.0["spec"]["hostNetwork"] = json!(true);
    world.pod(node);
    assert_eq!(book_of(&world, "n1"), before);
}

#[test]
fn annotations_of_a_pod_say_what_a_policy_for_it_alone_would() {
    let mut world = World::standard();
    let annotated = |text: &str| {
        let mut pod = World::place(super::manifest::pod("x/a").labels("pod=a"), 0);
        pod.0["metadata"]["annotations"] = serde_saphyr::from_str::<Value>(text).unwrap();
        pod
    };
    world.pod(annotated(
        "{podwall.dev/hosts_csv: api.example.com, podwall.dev/listening_ports_csv: '80', podwall.dev/extra_whitelist_ips_csv: '192.0.2.7, 2001:db8::7'}",
    ));
    // The cluster's DNS is nowhere here, so nobody's queries are taken; what is learned is learned all the same.
    assert!(world.open("x/a", "outside", "tcp/1") && !out(&world, "x/a", API, "tcp/443"));
    for peer in ALL_BUT_XA.split(' ') {
        assert!(world.open(peer, "x/a", "tcp/80") && !world.open(peer, "x/a", "tcp/81"), "{peer}");
    }
    assert!(world.open("x/a", "x/b", "tcp/80") == world.open("x/a", "y/b", "tcp/80"));
    assert!(!world.open("x/a", "x/b", "tcp/80") && world.open("x/b", "y/a", "tcp/80"));
    world.pod(World::place(super::manifest::pod("x/a").labels("pod=a"), 0));
    assert!(world.open("x/a", "x/b", "tcp/80") && world.open("y/a", "x/a", "tcp/81"));
    let warnings = world.put_odd(&annotated("{podwall.dev/listening_ports_csv: '80'}").0);
    assert!(warnings[0].problem.contains("hosts_csv names no host"), "{warnings:?}");
    assert!(!world.open("x/a", "outside", "tcp/1") && !world.open("y/a", "x/a", "tcp/80"));
}

#[test]
fn a_policy_that_names_domains_is_enforced_though_it_asks_to_be_audited() {
    let mut world = World::standard();
    let mut one = domain_policy("x/one", ONE);
    one["metadata"]["annotations"] = json!({"podwall.dev/mode": "audit"});
    let ingested = ingest::domain_policy(&one).unwrap();
    let told: Vec<(String, String)> =
        ingested.warnings.into_iter().map(|warning| (warning.field, warning.problem)).collect();
    let problem = "names cannot be audited; the policy is enforced".to_owned();
    assert_eq!(told, [("metadata.annotations[podwall.dev/mode]".to_owned(), problem)]);
    world.change(&Change::Policy(ingested.policy));
    assert!(!world.open("x/a", "outside", "tcp/443") && world.open("x/b", "outside", "tcp/443"));
}

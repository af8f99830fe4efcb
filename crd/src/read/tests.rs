use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::exposure::ExposureMode;

fn with_spec(spec: &Value) -> Value {
    json!({
        "metadata": {"name": "x", "namespace": "ktban", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    })
}

fn networks(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn fields<T>(read: &Read<T>) -> Vec<&str> {
    read.problems.iter().map(|problem| problem.field.as_str()).collect()
}

fn span(first: u16, last: u16) -> Option<PortSpan> {
    PortSpan::new(first, last)
}

#[test]
fn a_ban_that_says_everything_is_read_as_it_stands() {
    let read = ban(&with_spec(&json!({
        "addresses": ["192.0.2.7", "2001:db8::/32", "192.0.2.7/32"], "direction": "Both",
        "ports": [{"protocol": "TCP", "localPort": 22, "localEndPort": 25, "remotePort": 7}, {"protocol": "89"}],
        "nodeSelector": {"matchLabels": {"role": "edge"}},
        "interfaces": {"names": ["eth1", "eth0"], "groups": ["public"]},
        "duration": "1h", "afterExpiry": "Keep", "reason": "noise", "action": "Reject", "mode": "Audit",
        "managementPorts": "Ban",
    })));
    let asks = BanOrder {
        addresses: networks(&["192.0.2.7", "2001:db8::/32"]),
        direction: BanDirection::Both,
        ports: Some(vec![
            PortOrder { protocol: 6, local: span(22, 25), remote: span(7, 7) },
            PortOrder { protocol: 89, local: None, remote: None },
        ]),
        nodes: Some(LabelSelector {
            match_labels: BTreeMap::from([("role".to_owned(), "edge".to_owned())]),
            match_expressions: Vec::new(),
        }),
        interfaces: Some(BanInterfaces {
            names: vec!["eth0".to_owned(), "eth1".to_owned()],
            groups: vec!["public".to_owned()],
        }),
        ends: Some("2026-01-01T01:00:00Z".parse().unwrap()),
        after_expiry: AfterExpiry::Keep,
        reason: "noise".to_owned(),
        action: BanAction::Reject,
        mode: BanMode::Audit,
        management_ports: ManagementPorts::Ban,
    };
    assert_eq!(read, Read { asks, problems: Vec::new() });
}

#[test]
fn a_ban_with_a_field_nobody_knows_bans_nothing_and_says_which() {
    let read = ban(&with_spec(&json!({"addresses": ["192.0.2.7"], "port": 22, "via": null})));
    assert_eq!(read.asks, BanOrder::NOTHING);
    assert_eq!(read.problems.len(), 1);
    assert_eq!(read.problems[0].to_string(), "spec.port: this field is not known to podwall");
}

#[test]
fn one_bad_entry_of_a_ban_takes_nothing_else_with_it() {
    let read = ban(&with_spec(&json!({
        "addresses": ["nonsense", "192.0.2.7", "10.0.0.1/8", 7],
        "ports": [{"protocol": "TCP", "localPort": 22, "side": "any"}, {"protocol": "UDP", "localPort": 53}],
        "interfaces": {"names": ["eth*", "eth0"]},
    })));
    assert_eq!(read.asks.addresses, networks(&["192.0.2.7"]));
    assert_eq!(read.asks.ports, Some(vec![PortOrder { protocol: 17, local: span(53, 53), remote: None }]));
    assert_eq!(read.asks.interfaces.unwrap().names, ["eth0"]);
    let read = ban(&with_spec(&json!({"addresses": ["nonsense", "192.0.2.7", "10.0.0.1/8", 7]})));
    assert_eq!(fields(&read), ["spec.addresses[0]", "spec.addresses[2]", "spec.addresses[3]"]);
}

#[test]
fn ports_of_which_none_is_understood_are_no_ports_instead_of_all() {
    let read = ban(&with_spec(&json!({"addresses": ["192.0.2.7"], "ports": [{"protocol": "tcp"}]})));
    assert_eq!(read.asks.ports, Some(Vec::new()));
    assert_eq!(fields(&read), ["spec.ports[0].protocol"]);
}

#[test]
fn what_limits_a_ban_and_is_unclear_leaves_nothing_banned() {
    let limits = [
        (json!({"direction": "in"}), "spec.direction"),
        (json!({"action": "Accept"}), "spec.action"),
        (json!({"mode": "DryRun"}), "spec.mode"),
        (json!({"ports": 22}), "spec.ports"),
        (json!({"nodeSelector": {}}), "spec.nodeSelector"),
        (json!({"nodeSelector": {"matchLabel": {}}}), "spec.nodeSelector.matchLabel"),
        (
            json!({"nodeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            "spec.nodeSelector.matchExpressions[0].values",
        ),
        (json!({"interfaces": {"name": "eth0"}}), "spec.interfaces.name"),
        (json!({"expiresAt": "soon"}), "spec.expiresAt"),
        (json!({"duration": "1 hour"}), "spec.duration"),
        (json!({"duration": "1h", "expiresAt": "2031-01-01T00:00:00Z"}), "spec.duration"),
    ];
    for (mut limit, field) in limits {
        limit.as_object_mut().unwrap().insert("addresses".to_owned(), json!(["192.0.2.7"]));
        let read = ban(&with_spec(&limit));
        assert_eq!((&read.asks, fields(&read)), (&BanOrder::NOTHING, vec![field]), "{limit}");
    }
    assert_eq!(ban(&json!({"spec": []})).asks, BanOrder::NOTHING);
    assert_eq!(ban(&Value::Null).asks, BanOrder::NOTHING);
}

#[test]
fn what_does_not_limit_a_ban_is_reported_and_the_ban_holds() {
    let read = ban(&with_spec(&json!({
        "addresses": ["192.0.2.7"], "afterExpiry": 7, "managementPorts": "All", "reason": {},
    })));
    let asks = BanOrder { addresses: networks(&["192.0.2.7"]), ..BanOrder::NOTHING };
    assert_eq!(read.asks, asks);
    assert_eq!(fields(&read), ["spec.afterExpiry", "spec.reason", "spec.managementPorts"]);
}

#[test]
fn a_duration_without_a_time_of_creation_bans_nothing() {
    let read = ban(&json!({"spec": {"addresses": ["192.0.2.7"], "duration": "1h"}}));
    assert_eq!((read.asks.clone(), fields(&read)), (BanOrder::NOTHING, vec!["spec.duration"]));
}

#[test]
fn a_ban_is_over_at_the_very_moment_it_ends() {
    let read = ban(&with_spec(&json!({"addresses": ["192.0.2.7"], "expiresAt": "2026-01-01T01:00:00Z"})));
    let at = |text: &str| read.asks.is_over(text.parse().unwrap());
    assert_eq!((at("2026-01-01T00:59:59Z"), at("2026-01-01T01:00:00Z")), (false, true));
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_ipv4() {
    let read = ban(&with_spec(&json!({"addresses": ["::ffff:192.0.2.7", "::ffff:10.0.0.0/104", "::/0"]})));
    assert_eq!(read.asks.addresses, networks(&["10.0.0.0/8", "192.0.2.7", "::/0"]));
}

#[test]
fn an_exposure_that_says_everything_is_read_as_it_stands() {
    let read = exposure(&with_spec(&json!({
        "services": {"names": ["web", "api"]},
        "allow": [{
            "from": [{"cidr": "203.0.113.0/24", "except": ["203.0.113.7/32"]}, {"cidr": "::/0"}],
            "ports": [{"name": "https"}, {"port": 53, "protocol": "UDP"}, {"port": 80}],
        }],
        "mode": "Audit",
    })));
    let block = |cidr: &str, except: &[&str]| Block { cidr: cidr.parse().unwrap(), except: networks(except) };
    let asks = ExposureOrder {
        services: Services::Named(vec!["api".to_owned(), "web".to_owned()]),
        allow: vec![AllowOrder {
            from: vec![block("203.0.113.0/24", &["203.0.113.7/32"]), block("::/0", &[])],
            ports: Some(vec![
                ServicePort::Named("https".to_owned()),
                ServicePort::Numbered { protocol: 17, port: 53 },
                ServicePort::Numbered { protocol: 6, port: 80 },
            ]),
        }],
        mode: ExposureMode::Audit,
    };
    assert_eq!(read, Read { asks, problems: Vec::new() });
}

#[test]
fn an_exposure_that_is_unclear_allows_less_and_never_more() {
    let everybody = json!([{"from": [{"cidr": "0.0.0.0/0"}]}]);
    let every = Services::Labelled(LabelSelector::default());
    let closed = |services: &Services| ExposureOrder {
        services: services.clone(),
        allow: Vec::new(),
        mode: ExposureMode::Enforce,
    };
    let web = Services::Named(vec!["web".to_owned()]);
    let cases = [
        (json!({"services": {"names": ["web"]}, "allow": everybody, "via": "NodePort"}), "spec.via", &web),
        (json!({"services": {"name": "web"}, "allow": everybody}), "spec.services.name", &every),
        (json!({"services": {}, "allow": everybody}), "spec.services", &every),
        (json!({"allow": everybody}), "spec.services", &every),
        (json!({"services": {"names": ["web"]}, "allow": [{}]}), "spec.allow[0].from", &web),
        (json!({"services": {"names": ["web"]}, "allow": [{"form": []}]}), "spec.allow[0].form", &web),
        (json!({"services": {"names": ["web"]}, "allow": everybody, "mode": "Off"}), "spec.mode", &web),
    ];
    for (spec, field, services) in cases {
        let read = exposure(&with_spec(&spec));
        assert_eq!(fields(&read), [field], "{spec}");
        let mut wanted = closed(services);
        if field == "spec.mode" {
            wanted.allow = exposure(&with_spec(&json!({"services": {}, "allow": everybody}))).asks.allow;
            wanted.allow.push(AllowOrder {
                from: vec![Block { cidr: "0.0.0.0/0".parse().unwrap(), except: Vec::new() }],
                ports: None,
            });
        }
        assert_eq!(read.asks, wanted, "{spec}");
    }
}

#[test]
fn a_source_or_a_port_that_is_unclear_is_left_out_of_its_entry() {
    let read = exposure(&with_spec(&json!({
        "services": {"selector": {}},
        "allow": [{
            "from": [
                {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}, {"cidr": "10.0.0.1"}, {"cidr": "10.1.0.0/16"},
                {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}, {"block": "10.0.0.0/8"},
            ],
            "ports": [{"port": 0}, {"name": "a", "port": 1}, {"port": 1, "protocol": "ICMP"}],
        }],
    })));
    let from = vec![Block { cidr: "10.1.0.0/16".parse().unwrap(), except: Vec::new() }];
    assert_eq!(read.asks.allow, [AllowOrder { from, ports: Some(Vec::new()) }]);
    let wanted = [
        "spec.allow[0].from[0].except[0]",
        "spec.allow[0].from[1].cidr",
        "spec.allow[0].from[3].except[0]",
        "spec.allow[0].from[4].block",
        "spec.allow[0].ports[0].port",
        "spec.allow[0].ports[1]",
        "spec.allow[0].ports[2].protocol",
    ];
    assert_eq!(fields(&read), wanted);
}

fn old(changes: &Value) -> Read<BanOrder> {
    let mut spec =
        json!({"ip": "10.0.2.20", "portFrom": 1, "portTo": 80, "protocol": "TCP", "direction": "in"});
    for (key, value) in changes.as_object().unwrap() {
        spec.as_object_mut().unwrap().insert(key.clone(), value.clone());
    }
    ktban(&with_spec(&spec))
}

#[test]
fn an_old_ban_asks_for_the_rule_its_tool_meant() {
    let order = |ip: &str, direction, protocol| BanOrder {
        addresses: networks(&[ip]),
        direction,
        ports: Some(vec![PortOrder {
            protocol,
            local: span(1, 80).filter(|_| has_port(protocol)),
            remote: None,
        }]),
        ..BanOrder::NOTHING
    };
    let clear = |asks| Read { asks, problems: Vec::new() };
    assert_eq!(old(&json!({})), clear(order("10.0.2.20", BanDirection::In, 6)));
    assert_eq!(old(&json!({"direction": "out"})), clear(order("10.0.2.20", BanDirection::Out, 6)));
    assert_eq!(
        old(&json!({"ip": "10.1.2.3/8", "protocol": "udp"})),
        clear(order("10.0.0.0/8", BanDirection::In, 17))
    );
    assert_eq!(
        old(&json!({"ip": "fd00::1", "protocol": "Icmp"})),
        clear(order("fd00::1", BanDirection::In, 1))
    );
    let every = old(&json!({"protocol": "all"})).asks.ports.unwrap();
    assert_eq!(every.iter().map(|port| port.protocol).collect::<Vec<_>>(), [6, 17, 33, 132, 136]);
    assert!(every.iter().all(|port| port.local == span(1, 80)));
}

fn has_port(protocol: u8) -> bool {
    protocol != 1
}

#[test]
fn an_old_ban_its_tool_would_have_crashed_on_is_reported_and_bans_nothing() {
    let cases = [
        (json!({"ip": "nonsense"}), "spec.ip"),
        (json!({"ip": 7}), "spec.ip"),
        (json!({"portTo": 70_000}), "spec.portTo"),
        (json!({"portFrom": 81}), "spec.portTo"),
        (json!({"portFrom": -1}), "spec.portFrom"),
        (json!({"protocol": "!tcp"}), "spec.protocol"),
        (json!({"protocol": "#"}), "spec.protocol"),
        (json!({"direction": "inout"}), "spec.direction"),
        (json!({"interfaceGroup": "public"}), "spec.interfaceGroup"),
    ];
    for (change, field) in cases {
        let read = old(&change);
        assert_eq!((&read.asks, fields(&read)), (&BanOrder::NOTHING, vec![field]), "{change}");
    }
    let elsewhere = ktban(&json!({"metadata": {"namespace": "shop"}, "spec": {}}));
    assert_eq!(fields(&elsewhere), ["metadata.namespace"]);
}

#[test]
fn a_domain_policy_that_says_everything_is_read_as_it_stands() {
    let read = domain_policy(&with_spec(&json!({
        "podSelector": {"matchLabels": {"app": "web"}},
        "egress": [
            {"domains": ["*.Example.com.", "example.com", "EXAMPLE.com"], "ports": [{"port": 443}, {"protocol": "UDP"}]},
            {"cidrs": ["192.0.2.0/24"]},
        ],
        "listeningPorts": [{"port": 3000, "endPort": 3001}],
        "dnsServers": ["9.9.9.9", "ClusterDNS"],
        "privateAnswers": "Allow",
    })));
    let port = |protocol, span| DomainPortOrder { protocol, span };
    let asks = DomainOrder {
        pods: LabelSelector {
            match_labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            ..LabelSelector::default()
        },
        egress: vec![
            DomainRuleOrder {
                domains: vec!["*.example.com".to_owned(), "example.com".to_owned()],
                cidrs: Vec::new(),
                ports: Some(vec![port(6, span(443, 443)), port(17, None)]),
            },
            DomainRuleOrder { domains: Vec::new(), cidrs: networks(&["192.0.2.0/24"]), ports: None },
        ],
        listening: Some(vec![port(6, span(3000, 3001))]),
        dns_servers: vec![DnsServer::Cluster, DnsServer::At("9.9.9.9".parse().unwrap())],
        private_answers: PrivateAnswers::Allow,
    };
    assert_eq!(read, Read { asks, problems: Vec::new() });
}

#[test]
fn what_is_unclear_in_a_domain_policy_allows_nothing_and_isolates_all_the_same() {
    let closed = |spec: Value| {
        let read = domain_policy(&with_spec(&spec));
        (
            read.asks.pods == LabelSelector::default() && read.asks.listening == Some(Vec::new()),
            fields(&read).join(" "),
        )
    };
    assert_eq!(closed(json!({})), (true, "spec.podSelector".to_owned()));
    assert_eq!(closed(json!({"podSelector": {}, "mode": "Audit"})), (true, "spec.mode".to_owned()));
    let read = domain_policy(&with_spec(&json!({
        "podSelector": {},
        "egress": [
            {"domains": ["example.com"], "unless": 1},
            {"domains": ["com", "*", "a.*.b", "*.com", "192.0.2.7", "a_b.example.com"], "ports": 7},
            {"ports": [{"port": 443}]},
            {"cidrs": ["10.0.0.1/8", "10.0.0.1"]},
        ],
        "dnsServers": ["dns.example.com"], "privateAnswers": "Perhaps",
    })));
    let empty = DomainRuleOrder::default;
    let named =
        DomainRuleOrder { domains: vec!["a_b.example.com".to_owned()], ports: Some(Vec::new()), ..empty() };
    let ported = DomainRuleOrder {
        ports: Some(vec![DomainPortOrder { protocol: 6, span: span(443, 443) }]),
        ..empty()
    };
    assert_eq!(read.asks.egress, [empty(), named, ported, empty()]);
    assert_eq!((read.asks.dns_servers.len(), read.asks.private_answers), (0, PrivateAnswers::Refuse));
    assert_eq!(read.problems.len(), 12, "{:?}", read.problems);
}

#[test]
fn servers_that_are_another_machine_for_the_node_than_for_its_pods_are_left_out() {
    let odd = [
        "127.0.0.53",
        "::1",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "255.255.255.255",
        "224.0.0.251",
        "ff02::fb",
        "fe80::1",
    ];
    let clothed = "::ffff:127.0.0.1";
    for server in odd.into_iter().chain([clothed]) {
        let read =
            domain_policy(&with_spec(&json!({"podSelector": {}, "dnsServers": [server, "169.254.20.10"]})));
        assert_eq!(read.asks.dns_servers, [DnsServer::At("169.254.20.10".parse().unwrap())], "{server}");
        assert_eq!(read.problems.len(), 1, "{server}");
    }
}

//! Each rule of the schemas has an example that only it refuses, and the path it points to.
use super::{Failure, Kinds};
use crate::site::namespace;

/// What stands in the ban, and what the API server says.
const BANS: &[(&str, &str)] = &[
    ("{}", "spec.addresses: Required value"),
    ("{addresses: []}", "spec.addresses: Invalid value"),
    ("{addresses: [nonsense]}", "spec.addresses[0]: Invalid value: \"nonsense\": must be an IP address"),
    ("{addresses: [192.0.2.7, 300.0.0.1]}", "spec.addresses[1]: Invalid value"),
    (
        "{addresses: [10.0.0.1/8]}",
        "spec.addresses[0]: Invalid value: \"10.0.0.1/8\": must be an IP address, or a CIDR",
    ),
    ("{addresses: [\"2001:db8::1/32\"]}", "spec.addresses[0]: Invalid value"),
    ("{addresses: [\"::ffff:192.0.2.7\"]}", "spec.addresses[0]: Invalid value"),
    ("{addresses: [\"fe80::1%eth0\"]}", "spec.addresses[0]: Invalid value"),
    ("{addresses: [192.0.2.7/33]}", "spec.addresses[0]: Invalid value"),
    ("{addresses: [010.0.0.1]}", "spec.addresses[0]: Invalid value"),
    ("{addresses: [192.0.2.7, 192.0.2.7]}", "192.0.2.7"),
    ("{addresses: 192.0.2.7}", "addresses"),
    ("{addresses: [192.0.2.7], direction: in}", "spec.direction: Unsupported value: \"in\""),
    ("{addresses: [192.0.2.7], action: Accept}", "spec.action: Unsupported value"),
    ("{addresses: [192.0.2.7], mode: DryRun}", "spec.mode: Unsupported value"),
    ("{addresses: [192.0.2.7], afterExpiry: Never}", "spec.afterExpiry: Unsupported value"),
    ("{addresses: [192.0.2.7], managementPorts: yes}", "managementPorts"),
    (
        "{addresses: [192.0.2.7], duration: 1h, expiresAt: \"2031-01-02T03:04:05Z\"}",
        "spec.duration: Invalid value",
    ),
    ("{addresses: [192.0.2.7], duration: 1 hour}", "spec.duration: Invalid value: \"1 hour\""),
    ("{addresses: [192.0.2.7], duration: 30m1h}", "spec.duration: Invalid value"),
    (
        "{addresses: [192.0.2.7], duration: 0h00m}",
        "spec.duration: Invalid value: \"0h00m\": must be longer than nothing",
    ),
    ("{addresses: [192.0.2.7], duration: -5m}", "spec.duration: Invalid value"),
    ("{addresses: [192.0.2.7], expiresAt: tomorrow}", "spec.expiresAt: Invalid value: \"tomorrow\""),
    ("{addresses: [192.0.2.7], expiresAt: \"2031-01-02\"}", "spec.expiresAt: Invalid value"),
    ("{addresses: [192.0.2.7], ports: []}", "spec.ports: Invalid value"),
    ("{addresses: [192.0.2.7], ports: [{localPort: 22}]}", "spec.ports[0].protocol: Required value"),
    ("{addresses: [192.0.2.7], ports: [{protocol: tcp}]}", "spec.ports[0].protocol: Invalid value"),
    ("{addresses: [192.0.2.7], ports: [{protocol: \"256\"}]}", "spec.ports[0].protocol: Invalid value"),
    (
        "{addresses: [192.0.2.7], ports: [{protocol: ICMP, localPort: 8}]}",
        "spec.ports[0].protocol: Invalid value",
    ),
    (
        "{addresses: [192.0.2.7], ports: [{protocol: \"50\", remotePort: 8}]}",
        "spec.ports[0].protocol: Invalid value",
    ),
    (
        "{addresses: [192.0.2.7], ports: [{protocol: TCP}, {protocol: TCP, localPort: 0}]}",
        "spec.ports[1].localPort: Invalid value",
    ),
    (
        "{addresses: [192.0.2.7], ports: [{protocol: TCP, localPort: 65536}]}",
        "spec.ports[0].localPort: Invalid value",
    ),
    ("{addresses: [192.0.2.7], ports: [{protocol: TCP, localPort: ssh}]}", "localPort"),
    (
        "{addresses: [192.0.2.7], ports: [{protocol: TCP, localPort: 80, localEndPort: 22}]}",
        "spec.ports[0].localEndPort: Invalid value",
    ),
    (
        "{addresses: [192.0.2.7], ports: [{protocol: TCP, localEndPort: 22}]}",
        "spec.ports[0].localEndPort: Invalid value",
    ),
    (
        "{addresses: [192.0.2.7], ports: [{protocol: UDP, remotePort: 80, remoteEndPort: 22}]}",
        "spec.ports[0].remoteEndPort: Invalid value",
    ),
    ("{addresses: [192.0.2.7], nodeSelector: {}}", "spec.nodeSelector: Invalid value"),
    ("{addresses: [192.0.2.7], nodeSelector: {matchLabels: {}}}", "spec.nodeSelector: Invalid value"),
    (
        "{addresses: [192.0.2.7], nodeSelector: {matchExpressions: [{key: a, operator: In}]}}",
        "spec.nodeSelector.matchExpressions[0].operator: Invalid value",
    ),
    (
        "{addresses: [192.0.2.7], nodeSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
        "spec.nodeSelector.matchExpressions[0].operator: Invalid value",
    ),
    (
        "{addresses: [192.0.2.7], nodeSelector: {matchExpressions: [{key: a, operator: Is, values: [b]}]}}",
        "spec.nodeSelector.matchExpressions[0].operator: Unsupported value",
    ),
    ("{addresses: [192.0.2.7], interfaces: {}}", "spec.interfaces: Invalid value"),
    ("{addresses: [192.0.2.7], interfaces: {names: [\"eth*\"]}}", "spec.interfaces.names[0]: Invalid value"),
    (
        "{addresses: [192.0.2.7], interfaces: {names: [an-interface-too-long]}}",
        "spec.interfaces.names[0]: Too long",
    ),
    ("{addresses: [192.0.2.7], interfaces: {names: [a/b]}}", "spec.interfaces.names[0]: Invalid value"),
    ("{addresses: [192.0.2.7], interfaces: {names: [..]}}", "spec.interfaces.names[0]: Invalid value"),
    ("{addresses: [192.0.2.7], interfaces: {groups: [Public]}}", "spec.interfaces.groups[0]: Invalid value"),
];

const EXPOSURES: &[(&str, &str)] = &[
    ("{}", "spec.services: Required value"),
    ("{services: {}}", "spec.services: Invalid value"),
    ("{services: {names: [a], selector: {}}}", "spec.services: Invalid value"),
    ("{services: {names: []}}", "spec.services.names: Invalid value"),
    ("{services: {names: [a_b]}}", "spec.services.names[0]: Invalid value"),
    ("{services: {selector: {}}, allow: [{}]}", "spec.allow[0].from: Required value"),
    ("{services: {selector: {}}, allow: [{from: []}]}", "spec.allow[0].from: Invalid value"),
    ("{services: {selector: {}}, allow: [{from: [{}]}]}", "spec.allow[0].from[0].cidr: Required value"),
    (
        "{services: {selector: {}}, allow: [{from: [{cidr: 10.0.0.1}]}]}",
        "spec.allow[0].from[0].cidr: Invalid value",
    ),
    (
        "{services: {selector: {}}, allow: [{from: [{cidr: 10.0.0.1/8}]}]}",
        "spec.allow[0].from[0].cidr: Invalid value",
    ),
    (
        "{services: {selector: {}}, allow: [{from: [{cidr: 10.0.0.0/8, except: [10.1.0.1/16]}]}]}",
        "spec.allow[0].from[0].except[0]: Invalid value",
    ),
    (
        "{services: {selector: {}}, allow: [{from: [{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}]}]}",
        "spec.allow[0].from[0].except: Invalid value",
    ),
    (
        "{services: {selector: {}}, allow: [{from: [{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}]}]}",
        "spec.allow[0].from[0].except: Invalid value",
    ),
    (
        "{services: {selector: {}}, allow: [{from: [{cidr: 10.0.0.0/8, except: [\"2001:db8::/48\"]}]}]}",
        "spec.allow[0].from[0].except: Invalid value",
    ),
    (
        "{services: {selector: {}}, allow: [{from: [{cidr: 10.0.0.0/8}], ports: []}]}",
        "spec.allow[0].ports: Invalid value",
    ),
    (
        "{services: {selector: {}}, allow: [{from: [{cidr: 10.0.0.0/8}], ports: [{}]}]}",
        "spec.allow[0].ports[0]: Invalid value",
    ),
    (
        "{services: {selector: {}}, allow: [{from: [{cidr: 10.0.0.0/8}], ports: [{name: a, port: 1}]}]}",
        "spec.allow[0].ports[0]: Invalid value",
    ),
    (
        "{services: {selector: {}}, allow: [{from: [{cidr: 10.0.0.0/8}], ports: [{port: 0}]}]}",
        "spec.allow[0].ports[0].port: Invalid value",
    ),
    (
        "{services: {selector: {}}, allow: [{from: [{cidr: 10.0.0.0/8}], ports: [{port: 1, protocol: ICMP}]}]}",
        "spec.allow[0].ports[0].protocol: Unsupported value",
    ),
    ("{services: {selector: {}}, mode: Off}", "spec.mode"),
];

const DOMAINS: &[(&str, &str)] = &[
    ("{}", "spec.podSelector: Required value"),
    ("{podSelector: {}, egress: [{}]}", "spec.egress[0]: Invalid value"),
    ("{podSelector: {}, egress: [{ports: [{port: 1}]}]}", "spec.egress[0]: Invalid value"),
    ("{podSelector: {}, egress: [{domains: []}]}", "spec.egress[0].domains: Invalid value"),
    ("{podSelector: {}, egress: [{domains: [com]}]}", "spec.egress[0].domains[0]: Invalid value"),
    ("{podSelector: {}, egress: [{domains: [\"*\"]}]}", "spec.egress[0].domains[0]: Invalid value"),
    ("{podSelector: {}, egress: [{domains: [\"*.com\"]}]}", "spec.egress[0].domains[0]: Invalid value"),
    (
        "{podSelector: {}, egress: [{domains: [a.b, \"a.*.com\"]}]}",
        "spec.egress[0].domains[1]: Invalid value",
    ),
    ("{podSelector: {}, egress: [{domains: [-a.example.com]}]}", "spec.egress[0].domains[0]: Invalid value"),
    (
        "{podSelector: {}, egress: [{domains: [\"a b.example.com\"]}]}",
        "spec.egress[0].domains[0]: Invalid value",
    ),
    ("{podSelector: {}, egress: [{domains: [a..example.com]}]}", "spec.egress[0].domains[0]: Invalid value"),
    (
        "{podSelector: {}, egress: [{domains: [\"https://example.com\"]}]}",
        "spec.egress[0].domains[0]: Invalid value",
    ),
    (
        "{podSelector: {}, egress: [{domains: [192.0.2.7]}]}",
        "spec.egress[0].domains[0]: Invalid value: \"192.0.2.7\": must be a domain name; addresses go to cidrs",
    ),
    ("{podSelector: {}, egress: [{domains: [a.b, a.b]}]}", ".spec.egress[0].domains: duplicate entries"),
    ("{podSelector: {}, egress: [{cidrs: [10.0.0.1/8]}]}", "spec.egress[0].cidrs[0]: Invalid value"),
    ("{podSelector: {}, egress: [{cidrs: [10.0.0.1]}]}", "spec.egress[0].cidrs[0]: Invalid value"),
    ("{podSelector: {}, egress: [{domains: [a.b], ports: []}]}", "spec.egress[0].ports: Invalid value"),
    (
        "{podSelector: {}, egress: [{domains: [a.b], ports: [{port: 0}]}]}",
        "spec.egress[0].ports[0].port: Invalid value",
    ),
    (
        "{podSelector: {}, egress: [{domains: [a.b], ports: [{endPort: 9}]}]}",
        "spec.egress[0].ports[0].endPort: Invalid value",
    ),
    (
        "{podSelector: {}, egress: [{domains: [a.b], ports: [{port: 9, endPort: 8}]}]}",
        "spec.egress[0].ports[0].endPort: Invalid value",
    ),
    (
        "{podSelector: {}, egress: [{domains: [a.b], ports: [{protocol: ICMP}]}]}",
        "spec.egress[0].ports[0].protocol: Unsupported value",
    ),
    ("{podSelector: {}, listeningPorts: [{port: 70000}]}", "spec.listeningPorts[0].port: Invalid value"),
    ("{podSelector: {}, dnsServers: [dns.example.com]}", "spec.dnsServers[0]: Invalid value"),
    ("{podSelector: {}, dnsServers: [9.9.9.9/32]}", "spec.dnsServers[0]: Invalid value"),
    ("{podSelector: {}, dnsServers: [127.0.0.53]}", "spec.dnsServers[0]: Invalid value"),
    ("{podSelector: {}, dnsServers: [ClusterDNS, 'fe80::53']}", "spec.dnsServers[1]: Invalid value"),
    ("{podSelector: {}, privateAnswers: Maybe}", "spec.privateAnswers: Unsupported value"),
    (
        "{podSelector: {matchExpressions: [{key: a, operator: In}]}}",
        "spec.podSelector.matchExpressions[0].operator: Invalid value",
    ),
];

const REPORTS: &[(&str, &str)] = &[
    ("{marks: [{kind: Ban, resourceVersion: abc}]}", "spec.marks[0].resourceVersion: Invalid value"),
    ("{marks: [{kind: Pod, resourceVersion: \"1\"}]}", "spec.marks[0].kind: Unsupported value"),
    ("{marks: [{kind: Ban, resourceVersion: \"1\"}, {kind: Ban, resourceVersion: \"2\"}]}", "marks"),
    (
        "{exceptions: [{kind: Ban, name: a, uid: u, reason: Tired, message: m}]}",
        "spec.exceptions[0].reason: Unsupported value",
    ),
    ("{exceptionCount: -1}", "spec.exceptionCount: Invalid value"),
];

const KINDS: [(&str, &[(&str, &str)]); 4] =
    [("Ban", BANS), ("ServiceExposure", EXPOSURES), ("DomainPolicy", DOMAINS), ("NodeReport", REPORTS)];

fn object(kind: &str, spec: &str) -> String {
    let home = if matches!(kind, "ServiceExposure" | "DomainPolicy") { ", namespace: shop" } else { "" };
    format!("apiVersion: podwall.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: bad{home}}}\nspec: {spec}\n")
}

#[test]
fn each_bad_example_is_refused_with_the_path_of_its_field() -> Result<(), Failure> {
    let Some(kinds) = Kinds::start()? else { return Ok(()) };
    kinds.apply(&namespace("shop", ""))?;
    let mut wrong = Vec::new();
    for (kind, examples) in KINDS {
        for (spec, wanted) in examples {
            match kinds.complaint(&object(kind, spec)) {
                None => wrong.push(format!("{kind} {spec}: taken")),
                Some(said) if !said.contains(wanted) => wrong.push(format!("{kind} {spec}: {said}")),
                Some(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_list_holds_a_thousand_addresses_and_no_more() -> Result<(), Failure> {
    let Some(kinds) = Kinds::start()? else { return Ok(()) };
    let with = |count: u32| {
        let list: Vec<String> =
            (0..count).map(|n| std::net::Ipv4Addr::from(0xc000_0000 + n).to_string()).collect();
        object("Ban", &format!("{{addresses: [{}]}}", list.join(", ")))
    };
    assert_eq!(kinds.complaint(&with(1000)), None);
    let said = kinds.complaint(&with(1001)).unwrap_or_default();
    assert!(said.contains("spec.addresses: Too many: 1001"), "{said}");
    let mut reports = String::new();
    for _ in 0..51 {
        reports.push_str("{kind: Ban, name: a, uid: u, reason: Failsafe, message: m},");
    }
    let said =
        kinds.complaint(&object("NodeReport", &format!("{{exceptions: [{reports}]}}"))).unwrap_or_default();
    assert!(said.contains("spec.exceptions: Too many: 51"), "{said}");
    Ok(())
}

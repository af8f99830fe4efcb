use super::*;

#[test]
fn names_from_dns_are_names_or_nothing() {
    for (said, wanted) in [
        ("host.example.org.", Some("host.example.org")),
        ("a_b-c.example", Some("a_b-c.example")),
        ("", None),
        (".", None),
        ("evil\nname.example", None),
        ("10.0.0.1", None),
        ("<b>.example", None),
    ] {
        assert_eq!(clean_name(said).as_deref(), wanted, "{said:?}");
    }
    assert_eq!(clean_name(&"x".repeat(300)), None);
}

#[test]
fn protocols_without_a_name_are_told_by_number() {
    assert_eq!(protocol_name(Protocol(250)), "250");
    assert_eq!(by(Carried::Other(Protocol(50))), "by protocol ESP");
    let ping = Carried::Icmp { protocol: Protocol::ICMP, kind: 8, code: 0 };
    assert_eq!(by(ping), "by ICMP type 8 code 0");
}

//! The grammar of `--from` and `--to`: `namespace/pod` or an address, of `--to` a domain name too, and
//! `:port[/protocol]`.
use std::net::IpAddr;

use podwall_engine::explain::End;
use podwall_engine::model::Text;
use podwall_engine::model::domain::DomainName;
use podwall_ruleset::packet::Transport;

/// Where to, and what is sent; no transport means ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Who.
    pub end: End,
    /// What.
    pub transport: Option<Transport>,
}

/// `namespace/pod` or an address, brackets allowed.
pub fn end(text: &str) -> Result<End, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(End::Address(address.to_canonical()));
    }
    match text.split_once('/') {
        Some((namespace, pod)) if is_name(namespace) && !namespace.contains('.') && is_name(pod) => {
            Ok(End::Pod(Text::from(namespace), Text::from(pod)))
        }
        Some(_) | None => Err("expected NAMESPACE/POD or an address".to_owned()),
    }
}

/// An end with `:port[/protocol]`; IPv6 with a port needs brackets.
pub fn target(text: &str) -> Result<Target, String> {
    if let Ok(end) = receiver(text) {
        return Ok(Target { end, transport: None });
    }
    let (who, port) = text
        .rsplit_once(':')
        .ok_or("expected NAMESPACE/POD, an address or a domain name, then :PORT[/PROTOCOL]")?;
    if who.contains(':') && !who.starts_with('[') {
        return Err(format!("write an IPv6 address with a port in brackets: [{who}]:{port}"));
    }
    Ok(Target { end: receiver(who)?, transport: Some(transport(port)?) })
}

fn receiver(text: &str) -> Result<End, String> {
    match domain(text) {
        Some(name) => Ok(End::Name(name)),
        None => end(text).map_err(|_| "expected NAMESPACE/POD, an address or a domain name".to_owned()),
    }
}

/// Two labels or more; the last is no number, as those of addresses are (RFC 3696, section 2).
fn domain(text: &str) -> Option<DomainName> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let last = text.rsplit('.').next().unwrap_or_default();
    let labels = text.split('.').all(|label| !label.is_empty() && label.chars().all(legal));
    let name = text.contains('.') && labels && !last.chars().all(|c| c.is_ascii_digit());
    name.then(|| DomainName::new(text))
}

/// What names may hold (RFC 1123; a namespace has no dots), so that a slip is not looked up as a pod.
fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    !text.is_empty() && text.chars().all(legal)
}

fn transport(text: &str) -> Result<Transport, String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port = port.parse::<u16>().map_err(|_| format!("{port:?} is no port number (1-65535)"))?;
    match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Transport::Tcp { port, opening: true }),
        "udp" => Ok(Transport::Udp(port)),
        "sctp" => Ok(Transport::Sctp(port)),
        other => Err(format!("{other:?} is no protocol with ports; use tcp, udp or sctp")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str) -> End {
        End::Pod(Text::from(namespace), Text::from(name))
    }

    const fn tcp(port: u16) -> Option<Transport> {
        Some(Transport::Tcp { port, opening: true })
    }

    #[test]
    fn pods_and_addresses_are_told_apart() {
        assert_eq!(end("shop/web-0"), Ok(pod("shop", "web-0")));
        assert_eq!(end("10.0.0.1"), Ok(End::Address("10.0.0.1".parse().unwrap())));
        assert_eq!(end("fd00::1"), Ok(End::Address("fd00::1".parse().unwrap())));
        assert_eq!(end("[fd00::1]"), end("fd00::1"));
        assert_eq!(end("::ffff:10.0.0.1"), end("10.0.0.1"));
        for bad in ["web", "shop/", "/web", "shop/web/8080", "Shop/web", "10.0.0.1/24", ""] {
            assert!(end(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_is_tcp_unless_said_otherwise() {
        assert_eq!(target("shop/web:80"), Ok(Target { end: pod("shop", "web"), transport: tcp(80) }));
        assert_eq!(
            target("kube-system/dns:53/udp"),
            Ok(Target { end: pod("kube-system", "dns"), transport: Some(Transport::Udp(53)) })
        );
        assert_eq!(
            target("[fd00::1]:9/SCTP"),
            Ok(Target { end: End::Address("fd00::1".parse().unwrap()), transport: Some(Transport::Sctp(9)) })
        );
        assert_eq!(target("shop/web"), Ok(Target { end: pod("shop", "web"), transport: None }));
    }

    #[test]
    fn a_name_has_two_labels_and_can_only_be_reached() {
        let name = |text| End::Name(DomainName::new(text));
        assert_eq!(
            target("api.example.com:443"),
            Ok(Target { end: name("api.example.com"), transport: tcp(443) })
        );
        assert_eq!(target("API.example.com.").map(|target| target.end), Ok(name("api.example.com")));
        for bad in ["localhost:443", "10.0.0.300:443", "*.example.com:443", "a..b:1"] {
            assert!(target(bad).is_err(), "{bad}");
        }
        assert!(end("api.example.com").is_err());
    }

    #[test]
    fn what_cannot_be_read_is_answered_with_how_to_write_it() {
        assert_eq!(target("shop/web:http"), Err("\"http\" is no port number (1-65535)".to_owned()));
        assert_eq!(
            target("shop/web:80/icmp"),
            Err("\"icmp\" is no protocol with ports; use tcp, udp or sctp".to_owned())
        );
        assert_eq!(
            target("2001:db8::xyz:80"),
            Err("write an IPv6 address with a port in brackets: [2001:db8::xyz]:80".to_owned())
        );
    }
}

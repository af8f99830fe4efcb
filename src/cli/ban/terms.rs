//! What a ban says besides its addresses: the flags that `add` and `import` share.
use std::time::Duration;

use clap::{Args, ValueEnum};
use k8s_openapi::jiff::Timestamp;
use podwall_crd::BanSpec;
use podwall_crd::ban::{AfterExpiry, BanAction, BanDirection, BanMode, BanPort, ManagementPorts};

use super::address::Banned;
use crate::cli::CliError;

/// Flags of a ban.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The ban")]
pub struct Terms {
    /// How long it lasts, by the API server's clock: 90s, 10m, 1h30m, 7d; without --for or --until it has no end
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, conflicts_with = "until")]
    lasting: Option<Duration>,
    /// When it ends, with the time zone: 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Why, for whoever reads the list
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
    /// Which way connections are opened: in from the addresses, out to them
    #[arg(long, value_enum, default_value_t, value_name = "WAY")]
    direction: Way,
    /// Only this protocol, or the ports that connections go to: tcp/22, udp/5000-5100, icmp; may be given again
    #[arg(long = "port", value_name = "PROTOCOL[/PORT]", value_parser = port)]
    ports: Vec<Port>,
    /// Tell the other side that it is refused, instead of silence
    #[arg(long)]
    reject: bool,
    /// Refuse nothing, only count and log
    #[arg(long)]
    audit: bool,
}

/// `--direction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Way {
    /// Connections the addresses open
    #[default]
    In,
    /// Connections opened to them
    Out,
    /// Either
    Both,
}

/// `--port`, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    protocol: String,
    range: Option<(u16, u16)>,
}

impl Terms {
    /// Do they fit together?
    pub fn check(&self) -> Result<(), CliError> {
        if self.direction == Way::Both && self.ports.iter().any(|port| port.range.is_some()) {
            let words = "--direction both with ports: ban in and out apart, each with a --name of its own";
            return Err(CliError::Usage(words.to_owned()));
        }
        Ok(())
    }

    /// When it ends, if it does.
    pub fn end(&self, now: Timestamp) -> Option<Timestamp> {
        self.until.or_else(|| self.lasting.and_then(|lasting| now.checked_add(lasting).ok()))
    }

    /// Does the end depend on what time it is?
    pub fn is_relative(&self) -> bool {
        self.lasting.is_some()
    }

    /// The spec for some addresses.
    pub fn spec(&self, addresses: &[Banned], end: Option<Timestamp>) -> BanSpec {
        BanSpec {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            direction: match self.direction {
                Way::In => BanDirection::In,
                Way::Out => BanDirection::Out,
                Way::Both => BanDirection::Both,
            },
            ports: (!self.ports.is_empty())
                .then(|| self.ports.iter().map(|port| port.rule(self.direction)).collect()),
            node_selector: None,
            interfaces: None,
            expires_at: end.map(|end| end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            duration: None,
            after_expiry: AfterExpiry::Delete,
            reason: self.reason.clone(),
            action: if self.reject { BanAction::Reject } else { BanAction::Drop },
            mode: if self.audit { BanMode::Audit } else { BanMode::Enforce },
            management_ports: ManagementPorts::Spare,
        }
    }

    /// What tells two bans of one address apart, as part of a name: empty for the usual ban of everything coming in.
    pub fn in_name(&self) -> String {
        let way = match self.direction {
            Way::In => "",
            Way::Out => "-out",
            Way::Both => "-both",
        };
        let mut name = way.to_owned();
        for Port { protocol, range } in &self.ports {
            name.push('-');
            name.push_str(&protocol.to_lowercase());
            match range {
                None => {}
                Some((first, last)) if first == last => name.push_str(&format!("-{first}")),
                Some((first, last)) => name.push_str(&format!("-{first}-{last}")),
            }
        }
        name
    }
}

impl Port {
    /// The port that connections go to is ours for those that come in, and the far side's for those that go out.
    fn rule(&self, way: Way) -> BanPort {
        let (first, last) = self.range.map_or((None, None), |(first, last)| {
            (Some(i32::from(first)), (last != first).then(|| i32::from(last)))
        });
        let protocol = self.protocol.clone();
        let none = BanPort {
            protocol,
            local_port: None,
            local_end_port: None,
            remote_port: None,
            remote_end_port: None,
        };
        match way {
            Way::In | Way::Both => BanPort { local_port: first, local_end_port: last, ..none },
            Way::Out => BanPort { remote_port: first, remote_end_port: last, ..none },
        }
    }
}

/// Units largest first, each at most once: as `spec.duration` has it.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write for example 90s, 10m, 1h30m or 7d");
    let (mut seconds, mut left, mut units) =
        (0_u64, text, [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)].iter());
    while !left.is_empty() {
        let digits = left.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, rest) = left.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = rest.chars().next().ok_or_else(wrong)?;
        let (_, length) = units.find(|(letter, _)| *letter == unit).ok_or_else(wrong)?;
        seconds = number.checked_mul(*length).and_then(|more| seconds.checked_add(more)).ok_or_else(wrong)?;
        left = rest.get(1..).unwrap_or_default();
    }
    // A century: beyond it, no end is what is meant.
    if seconds == 0 || seconds > 36_500 * 86_400 { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no time with its zone; write for example 2027-01-31T12:00:00Z"))
}

fn reason(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if length <= 256 { Ok(text.to_owned()) } else { Err(format!("{length} characters; at most 256 fit")) }
}

/// Protocols as a ban writes them; those up to SCTP have ports.
const PROTOCOLS: [&str; 11] =
    ["TCP", "UDP", "UDPLite", "SCTP", "DCCP", "ICMP", "ICMPv6", "GRE", "ESP", "AH", "IPIP"];

fn port(text: &str) -> Result<Port, String> {
    let wrong = || format!("{text:?}: write for example tcp/22, udp/5000-5100 or icmp");
    let (word, range) = text.split_once('/').map_or((text, None), |(word, range)| (word, Some(range)));
    let known = PROTOCOLS.iter().find(|known| known.eq_ignore_ascii_case(word));
    let protocol = match (known, word.parse::<u8>()) {
        (Some(known), _) => (*known).to_owned(),
        (None, Ok(number)) => number.to_string(),
        (None, Err(_)) => return Err(wrong()),
    };
    let Some(range) = range else { return Ok(Port { protocol, range: None }) };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => {
            Ok(Port { protocol, range: Some((first, last)) })
        }
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_the_object_would() {
        let read = |text| duration(text).map(|length| length.as_secs()).ok();
        assert_eq!(read("90s"), Some(90));
        assert_eq!(read("1h30m"), Some(5_400));
        assert_eq!(read("7d"), Some(604_800));
        for wrong in ["", "0s", "1", "h", "1m1h", "1h1h", "1w", "-1h", "99999999d"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ports_are_a_protocol_and_maybe_a_range() {
        let read = |text| port(text).map(|port| port.rule(Way::In));
        let rule = |protocol: &str, first, last| BanPort {
            protocol: protocol.to_owned(),
            local_port: first,
            local_end_port: last,
            remote_port: None,
            remote_end_port: None,
        };
        assert_eq!(read("tcp/22"), Ok(rule("TCP", Some(22), None)));
        assert_eq!(read("UDP/5000-5100"), Ok(rule("UDP", Some(5000), Some(5100))));
        assert_eq!(read("icmpv6"), Ok(rule("ICMPv6", None, None)));
        assert_eq!(read("47"), Ok(rule("47", None, None)));
        let out = port("tcp/25").unwrap().rule(Way::Out);
        assert_eq!((out.local_port, out.remote_port), (None, Some(25)));
        for wrong in ["", "tcp/", "tcp/0", "tcp/9-1", "tcp/70000", "quic", "256"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

use std::fmt::Write as _;

use super::*;
use jiff::tz::TimeZone;

fn clock() -> Clock {
    Clock {
        now: "2025-12-03T12:00:00Z".parse().unwrap(),
        booted: Some("2025-12-03T00:00:00Z".parse().unwrap()),
        zone: TimeZone::UTC,
    }
}

fn only(prefix: &str) -> Grammar {
    Grammar { prefixes: Prefixes::These(vec![Prefix::from(prefix)]), layout: None }
}

const TCP: &str = "IN=eth0 OUT=cali1 MAC=02:00:00:00:00:01:02:00:00:00:00:02:08:00 SRC=10.0.0.1 DST=10.0.0.2 \
    LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=4711 DF PROTO=TCP SPT=40000 DPT=8443 WINDOW=64240 RES=0x00 SYN URGP=0";

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tail/line/corpus.golden");

/// Every line of the corpus with what it is read as. The expected file is read by people, too.
fn corpus() -> String {
    let mut read = String::new();
    for line in include_str!("corpus.txt").lines() {
        match line.strip_prefix('#') {
            Some(remark) => writeln!(read, "#{remark}").unwrap(),
            None => writeln!(read, "{}", told(&Grammar::default().line(line, &clock()))).unwrap(),
        }
    }
    read
}

#[test]
fn the_corpus_of_real_lines_is_read_as_its_golden_file_says() {
    let (read, wanted) = (corpus(), std::fs::read_to_string(GOLDEN).unwrap());
    for (number, (read, wanted)) in read.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(read, wanted, "line {} of the corpus", number + 1);
    }
    assert_eq!(read.lines().count(), wanted.lines().count());
}

#[test]
#[ignore = "writes the expected file: cargo test --lib rewrite_the_golden_file_of_the_corpus -- --ignored"]
fn rewrite_the_golden_file_of_the_corpus() {
    std::fs::write(GOLDEN, corpus()).unwrap();
}

fn told(read: &Result<Record, Unread>) -> String {
    let record = match read {
        Ok(record) => record,
        Err(unread) => return format!("{unread:?}"),
    };
    let link = |link: &Option<String>| link.clone().unwrap_or_else(|| "-".to_owned());
    format!(
        "{} {} -> {} {:?} {}>{} {:?}",
        record.at,
        record.source,
        record.destination,
        record.carried,
        link(&record.arrived_by),
        link(&record.leaving_by),
        record.cause
    )
}

#[test]
fn a_prefix_is_its_words_and_the_kernel_may_add_to_them() {
    let read = |prefix: &str, line: &str| only(prefix).line(line, &clock()).map(|record| record.cause);
    let theirs = |prefix: &str| Ok(Cause::Theirs(prefix.to_owned()));
    for (prefix, before, wanted) in [
        ("calico-drop:", "kernel: calico-drop: ", theirs("calico-drop:")),
        ("calico-drop: ", "kernel: [    7.5] calico-drop: ", theirs("calico-drop:")),
        ("calico-drop:", "calico-drop: ", theirs("calico-drop:")),
        ("calico-drop:", "kernel: calico-drop:", theirs("calico-drop:")),
        ("INPUT-DROP:", "kernel: INPUT-DROP:", theirs("INPUT-DROP:")),
        ("OUT DENY", "kernel: OUT  DENY ", theirs("OUT DENY")),
        ("[UFW BLOCK]", "kernel: [12.5] [UFW BLOCK] ", theirs("[UFW BLOCK]")),
        ("drop", "kernel: zone drop here ", theirs("zone drop here")),
        ("drop", "kernel: drops ", Err(Unread::OtherPrefix)),
        ("[UFW BLOCK]", "kernel: [UFW ALLOW] ", Err(Unread::OtherPrefix)),
        ("drop", "kernel: ", Err(Unread::OtherPrefix)),
        // Who may write to a log must not be able to make up drops.
        ("drop", "evil: drop ", Err(Unread::OtherPrefix)),
        ("drop", "nginx[77]: drop ", Err(Unread::NotTheKernel)),
    ] {
        let line = format!("2025-12-03T10:38:30Z worker-1 {before}{TCP}");
        assert_eq!(read(prefix, &line), wanted, "{line}");
        let line = format!("Dec  3 10:38:30 worker-1 {before}{TCP}");
        assert_eq!(read(prefix, &line), wanted, "{line}");
    }
    // A template without a host.
    assert_eq!(read("drop", &format!("Dec  3 10:38:30 drop {TCP}")), theirs("drop"));
}

#[test]
fn a_message_of_the_journal_needs_no_stamp_and_no_tag() {
    let at = clock().now;
    let record = only("calico-drop:").message(&format!("calico-drop: {TCP}"), at).unwrap();
    assert_eq!((record.at, record.cause), (at, Cause::Theirs("calico-drop:".to_owned())));
    assert_eq!(only("x").message(&format!("y {TCP}"), at), Err(Unread::OtherPrefix));
}

mod any {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use podwall_ruleset::Protocol;
    use proptest::prelude::*;

    use super::*;
    use crate::drops::record::Carried;

    /// As the kernel prints it.
    fn printed(record: &Record) -> String {
        let Cause::Theirs(prefix) = &record.cause else { unreachable!("of another firewall") };
        let link = |link: &Option<String>| link.clone().unwrap_or_default();
        let address = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => address.segments().map(|segment| format!("{segment:04x}")).join(":"),
        };
        let mut line = format!(
            "{:.6} worker-1 kernel: {prefix} IN={} OUT={} MAC= SRC={} DST={} LEN=84 ",
            record.at,
            link(&record.arrived_by),
            link(&record.leaving_by),
            address(&record.source),
            address(&record.destination)
        );
        line.push_str(if record.source.is_ipv4() {
            "TOS=0x00 PREC=0x00 TTL=63 ID=0 DF "
        } else {
            "TC=0 HOPLIMIT=63 FLOWLBL=0 "
        });
        match record.carried {
            Carried::Ports { protocol, source, destination } => {
                write!(line, "PROTO={} SPT={source} DPT={destination} LEN=64 ", name(protocol)).unwrap();
            }
            Carried::Icmp { protocol, kind, code } => {
                write!(line, "PROTO={} TYPE={kind} CODE={code} ", name(protocol)).unwrap();
                line.push_str("[SRC=192.0.2.1 DST=192.0.2.2 LEN=1 PROTO=UDP SPT=1 DPT=2 LEN=3 ] ");
            }
            Carried::Other(protocol) => write!(line, "PROTO={} ", name(protocol)).unwrap(),
        }
        line.push_str("MARK=0x1 ");
        line
    }

    fn name(protocol: Protocol) -> String {
        match protocol {
            Protocol::TCP => "TCP".to_owned(),
            Protocol::UDP => "UDP".to_owned(),
            Protocol::ICMP => "ICMP".to_owned(),
            Protocol::ICMPV6 => "ICMPv6".to_owned(),
            Protocol(number) => number.to_string(),
        }
    }

    fn carried() -> impl Strategy<Value = Carried> {
        let icmp = prop_oneof![Just(Protocol::ICMP), Just(Protocol::ICMPV6)];
        prop_oneof![
            (prop_oneof![Just(6), Just(17), Just(132), Just(136), Just(33)], any::<(u16, u16)>()).prop_map(
                |(protocol, (source, destination))| Carried::Ports {
                    protocol: Protocol(protocol),
                    source,
                    destination
                }
            ),
            (icmp, any::<(u8, u8)>()).prop_map(|(protocol, (kind, code))| Carried::Icmp {
                protocol,
                kind,
                code
            }),
            any::<u8>().prop_map(|protocol| Carried::Other(Protocol(protocol))),
        ]
    }

    fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
        prop_oneof![
            any::<(u32, u32)>()
                .prop_map(|(a, b)| (IpAddr::V4(Ipv4Addr::from_bits(a)), IpAddr::V4(Ipv4Addr::from_bits(b)))),
            any::<(u128, u128)>()
                .prop_map(|(a, b)| (IpAddr::V6(Ipv6Addr::from_bits(a)), IpAddr::V6(Ipv6Addr::from_bits(b)))),
        ]
    }

    prop_compose! {
        fn record()(
            seconds in 0_i64..4_000_000_000,
            micros in 0..1_000_000,
            (source, destination) in addresses(),
            carried in carried(),
            (arrived_by, leaving_by) in (link(), link()),
            prefix in "[!-<>-~]{1,12}( [!-<>-~]{1,8}){0,2}:?",
        ) -> Record {
            let at = Timestamp::new(seconds, micros * 1000).unwrap();
            Record { at, source, destination, carried, arrived_by, leaving_by, cause: Cause::Theirs(prefix) }
        }
    }

    fn link() -> impl Strategy<Value = Option<String>> {
        proptest::option::of("[a-zA-Z0-9.@_-]{1,15}")
    }

    proptest! {
        #[test]
        fn a_packet_the_kernel_prints_is_read_as_it_was(record in record()) {
            let line = printed(&record);
            let Cause::Theirs(prefix) = &record.cause else { unreachable!() };
            prop_assert_eq!(only(prefix).line(&line, &clock()), Ok(record.clone()), "{}", line);
            prop_assert_eq!(Grammar::default().line(&line, &clock()), Ok(record), "{}", line);
        }

        #[test]
        fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = String::from_utf8_lossy(&bytes);
            drop(Grammar::default().line(&text, &clock()));
            drop(Grammar::default().message(&text, clock().now));
        }

        #[test]
        fn a_line_with_bytes_put_in_or_taken_out_never_panics(
            record in record(),
            place in any::<proptest::sample::Index>(),
            length in 0_usize..20,
            bytes in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let mut line = printed(&record).into_bytes();
            let from = place.index(line.len());
            let to = (from + length).min(line.len());
            line.splice(from..to, bytes);
            drop(Grammar::default().line(&String::from_utf8_lossy(&line), &clock()));
        }
    }
}

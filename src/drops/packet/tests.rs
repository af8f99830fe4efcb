use proptest::prelude::*;

use super::*;

/// 10.0.0.1 to 10.0.0.2, its fragment field as given.
fn v4(protocol: u8, fragment: u16, options: &[u8], inner: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    let [f0, f1] = fragment.to_be_bytes();
    let length = u16::try_from(usize::from(words) * 4 + inner.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x40 | words, 0, length[0], length[1], 0, 0, f0, f1, 64, protocol, 0, 0];
    bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(options);
    bytes.extend(inner);
    bytes
}

/// fd00::1 to fd00::2.
fn v6(next: u8, inner: &[u8]) -> Vec<u8> {
    let [l0, l1] = u16::try_from(inner.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, l0, l1, next, 64];
    for last in [1, 2] {
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    bytes.extend(inner);
    bytes
}

const PORTS: [u8; 8] = [0x9c, 0x40, 0x1f, 0x90, 0, 0, 0, 0];

const fn from_40000_to_8080(protocol: Protocol) -> Carried {
    Carried::Ports { protocol, source: 40_000, destination: 8080 }
}

fn carried_by(bytes: &[u8]) -> Carried {
    read(bytes).unwrap().carried
}

#[test]
fn every_protocol_with_ports_tells_them_in_both_families() {
    for number in [6, 17, 132, 33, 136] {
        let wanted = from_40000_to_8080(Protocol(number));
        assert_eq!(carried_by(&v4(number, 0, &[], &PORTS)), wanted);
        assert_eq!(carried_by(&v4(number, 0x4000, &[1; 8], &PORTS)), wanted, "options, don't fragment");
        assert_eq!(carried_by(&v6(number, &PORTS)), wanted);
    }
}

#[test]
fn addresses_and_lengths_are_those_of_the_header() {
    let headers = read(&v4(6, 0, &[], &PORTS)).unwrap();
    let ends = |a: &str, b: &str| (a.parse::<IpAddr>().unwrap(), b.parse::<IpAddr>().unwrap());
    assert_eq!((headers.source, headers.destination), ends("10.0.0.1", "10.0.0.2"));
    assert_eq!(headers.length, 28);
    let headers = read(&v6(6, &PORTS)).unwrap();
    assert_eq!((headers.source, headers.destination), ends("fd00::1", "fd00::2"));
    assert_eq!(headers.length, 48);
}

#[test]
fn pings_tell_type_and_code_and_protocols_without_ports_their_number() {
    let icmp = |protocol, kind, code| Carried::Icmp { protocol, kind, code };
    assert_eq!(carried_by(&v4(1, 0, &[], &[8, 0, 1, 2])), icmp(Protocol::ICMP, 8, 0));
    assert_eq!(carried_by(&v6(58, &[1, 4, 0, 0])), icmp(Protocol::ICMPV6, 1, 4));
    assert_eq!(carried_by(&v4(47, 0, &[], &PORTS)), Carried::Other(Protocol(47)));
    assert_eq!(carried_by(&v6(50, &PORTS)), Carried::Other(Protocol(50)));
    assert_eq!(carried_by(&v6(59, &[])), Carried::Other(Protocol(59)));
}

#[test]
fn extension_headers_are_passed_by_and_what_was_not_copied_is_not_guessed() {
    let mut chain = vec![43, 0, 0, 0, 0, 0, 0, 0]; // hop-by-hop, then routing
    chain.extend([60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // routing of sixteen bytes, then options
    chain.extend([51, 0, 0, 0, 0, 0, 0, 0]); // options, then authentication
    chain.extend([44, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // 24 bytes, then fragment
    chain.extend([6, 0, 0, 1, 0, 0, 0, 9]); // the first one, more follow
    let bytes = v6(0, &[chain.as_slice(), &PORTS].concat());
    assert_eq!(carried_by(&bytes), from_40000_to_8080(Protocol::TCP));
    assert_eq!(carried_by(bytes.get(..60).unwrap()), Carried::Other(Protocol(60)), "cut within the options");
    assert_eq!(carried_by(&v4(6, 0, &[], PORTS.get(..3).unwrap())), Carried::Other(Protocol::TCP));
}

#[test]
fn later_fragments_have_no_ports_however_their_bytes_look() {
    assert_eq!(carried_by(&v4(17, 0x2001, &[], &PORTS)), Carried::Other(Protocol::UDP));
    let later = [&[17, 0, 0, 9, 0, 0, 0, 1], PORTS.as_slice()].concat();
    assert_eq!(carried_by(&v6(44, &later)), Carried::Other(Protocol::UDP));
}

#[test]
fn what_is_no_packet_is_none() {
    for bytes in [vec![], vec![0x45; 19], vec![0x41; 40], vec![0x60; 39], vec![0x70; 80]] {
        assert_eq!(read(&bytes), None);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic_or_loop(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn no_chain_of_extension_headers_makes_it_panic_or_loop(
        next in prop::sample::select(vec![0_u8, 43, 44, 51, 60, 135, 6]),
        inner in prop::collection::vec(prop_oneof![Just(0_u8), Just(43), Just(44), Just(51), Just(60), any::<u8>()], 0..300)
    ) {
        prop_assert!(read(&v6(next, &inner)).is_some());
    }

    #[test]
    fn any_cut_of_a_packet_tells_its_addresses_or_nothing(cut in 0_usize..60, number in any::<u8>()) {
        let whole = v4(number, 0, &[], &[7; 40]);
        let read_cut = read(whole.get(..cut).unwrap());
        prop_assert_eq!(read_cut.is_some(), cut >= 20);
    }
}

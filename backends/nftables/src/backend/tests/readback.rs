//! What was loaded is what stands, read by us, by nft(8), and by a codec of others.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner};
use podwall_ruleset::Counter;
use podwall_ruleset::text::nft_listing;

use super::namespace::{nft, run};
use super::*;

#[test]
fn what_was_loaded_is_observed_again_and_again() {
    for guard in [Guard::Owned, Guard::Watched] {
        in_namespace(move || {
            let mut kernel = open(guard);
            assert_eq!(standing(&mut kernel), None);
            bring(&mut kernel, &Ruleset::default(), &sample::node());
            assert_eq!(standing(&mut kernel), Some(sample::node()));
            assert_eq!(standing(&mut kernel), Some(sample::node()));
        });
    }
}

#[test]
fn edits_arrive_and_undoing_them_leads_back() {
    in_namespace(|| {
        let mut kernel = open(Guard::Auto);
        bring(&mut kernel, &Ruleset::default(), &sample::node());
        bring(&mut kernel, &sample::node(), &sample::later());
        assert_eq!(standing(&mut kernel), Some(sample::later()));
        bring(&mut kernel, &sample::later(), &sample::node());
        assert_eq!(standing(&mut kernel), Some(sample::node()));
        bring(&mut kernel, &sample::node(), &Ruleset::default());
        assert_eq!(standing(&mut kernel), None);
        assert_eq!(nft("list ruleset"), "");
    });
}

#[test]
fn a_rule_that_logs_and_decides_reads_back_as_one() {
    in_namespace(|| {
        let mut node = sample::node();
        let pending = node.chains.get_mut(&sample::chain("pending")).unwrap();
        let rules = &mut std::sync::Arc::make_mut(pending).rules;
        rules[1].effect.outcome = podwall_ruleset::Outcome::Verdict(podwall_ruleset::Verdict::Drop);
        rules[1].effect.count = podwall_ruleset::Count::Yes;
        let mut kernel = open(Guard::Auto);
        bring(&mut kernel, &Ruleset::default(), &node);
        assert_eq!(standing(&mut kernel), Some(node));
    });
}

#[test]
fn nft_lists_every_object_we_loaded() {
    in_namespace(|| {
        let node = sample::node();
        let mut kernel = open(Guard::Watched);
        bring(&mut kernel, &Ruleset::default(), &node);
        let listed: serde_json::Value =
            serde_json::from_str(&run("nft", &["-j", "list", "table", "inet", "podwall"])).unwrap();
        let objects = listed["nftables"].as_array().unwrap();
        let named = |kind: &str| -> BTreeSet<String> {
            let names = objects.iter().filter_map(|object| object[kind]["name"].as_str());
            names.map(str::to_owned).collect()
        };
        let chains = node.chains.keys().map(ToString::to_string).collect();
        let sets: BTreeSet<_> = node.sets.keys().map(ToString::to_string).collect();
        assert_eq!(named("chain"), chains);
        assert_eq!(&named("set") | &named("map"), sets);
        let rules = objects.iter().filter(|object| object["rule"].is_object()).count();
        assert_eq!(rules, node.chains.values().map(|chain| chain.rules.len()).sum::<usize>());
        let text = nft("list ruleset");
        for line in [
            "10.1.0.2 : goto i4_x",
            "ip saddr vmap @eg4",
            "tcp dport 30000-32767 counter packets 0 bytes 0 return",
            "fib saddr . iif oif missing goto pending",
            "meta l4proto . th dport @pt_many",
            "ip6 saddr . meta l4proto . th dport @n6_web",
            "icmpv6 type 133-137 accept",
            "update @n_meter4 { ip saddr limit rate 10/second burst 20 packets } log prefix \"podwall:i4_x:\" group 64",
            "240.0.0.0/4",
        ] {
            assert!(text.contains(line), "{line:?} is not in:\n{text}");
        }
        assert!(!text.contains("invalid type"), "{text}");
    });
}

#[test]
fn what_nft_loads_from_our_text_is_what_we_load() {
    in_namespace(|| {
        let node = sample::node();
        let file = std::env::temp_dir().join(format!("podwall-nftables-{}.nft", std::process::id()));
        fs::write(&file, nft_listing(&node)).unwrap();
        run("nft", &["-f", file.to_str().unwrap()]);
        fs::remove_file(&file).unwrap();
        let mut kernel = open(Guard::Auto);
        assert_eq!(standing(&mut kernel), Some(node));
        assert_eq!(kernel.capabilities().guard, Guarded::Watched);
    });
}

#[test]
fn counters_lead_back_to_chain_and_rule() {
    in_namespace(|| {
        let node = sample::node();
        let mut kernel = open(Guard::Auto);
        bring(&mut kernel, &Ruleset::default(), &node);
        let wanted: Vec<_> = node
            .chains
            .iter()
            .flat_map(|(chain, rules)| {
                let counted =
                    rules.rules.iter().filter(|rule| rule.effect.count == podwall_ruleset::Count::Yes);
                counted.map(|rule| Counter { chain: chain.clone(), rule: rule.id, packets: 0, bytes: 0 })
            })
            .collect();
        assert!(wanted.len() > 5);
        assert_eq!(kernel.counters().unwrap(), wanted);
    });
}

#[test]
fn counters_count_packets() {
    in_namespace(|| {
        let counted = sample::rule("all", vec![], podwall_ruleset::Verdict::Accept.counted());
        let base = podwall_ruleset::Base { hook: podwall_ruleset::Hook::Input, priority: -1 };
        let chain = podwall_ruleset::Chain { base: Some(base), rules: vec![counted] };
        let mut node = Ruleset::default();
        node.chains.insert(sample::chain("input"), std::sync::Arc::new(chain));
        let mut kernel = open(Guard::Auto);
        bring(&mut kernel, &Ruleset::default(), &node);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"seven..", socket.local_addr().unwrap()).unwrap();
        let counters = kernel.counters().unwrap();
        assert_eq!((counters[0].packets, counters[0].bytes), (1, 28 + 7));
    });
}

#[test]
fn a_codec_of_others_reads_the_same_objects() {
    in_namespace(|| {
        let node = sample::node();
        let mut kernel = open(Guard::Auto);
        bring(&mut kernel, &Ruleset::default(), &node);
        let (mut chains, mut sets, mut rules) = (vec![], vec![], BTreeMap::<String, usize>::new());
        for ask in [
            NfTablesMessage::GetChain(ChainMessage { attributes: vec![] }),
            NfTablesMessage::GetSet(SetMessage { attributes: vec![] }),
            NfTablesMessage::GetRule(RuleMessage { attributes: vec![] }),
        ] {
            for read in second_reader(ask) {
                match read {
                    NfTablesMessage::NewChain(chain) => chains.extend(chain.attributes),
                    NfTablesMessage::NewSet(set) => sets.extend(set.attributes),
                    NfTablesMessage::NewRule(rule) => {
                        let chain = rule.attributes.iter().find_map(|attribute| match attribute {
                            RuleAttribute::Chain(name) => Some(name.clone()),
                            _ => None,
                        });
                        *rules.entry(chain.unwrap()).or_default() += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        for (name, chain) in &node.chains {
            assert!(chains.contains(&ChainAttribute::Name(name.to_string())), "{name}");
            assert_eq!(rules.get(name.as_str()).copied().unwrap_or_default(), chain.rules.len(), "{name}");
        }
        for name in node.sets.keys() {
            assert!(sets.contains(&SetAttribute::Name(name.to_string())), "{name}");
        }
    });
}

/// Dumps objects of the inet family through netlink-packet-netfilter.
fn second_reader(ask: NfTablesMessage) -> Vec<NfTablesMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let inner =
        NetfilterMessage::new(NetfilterHeader::new(1u8.into(), 0, 0), NetfilterMessageInner::NfTables(ask));
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(inner));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::NETLINK,
        rustix::net::SocketType::RAW,
        rustix::net::SocketFlags::CLOEXEC,
        Some(rustix::net::netlink::NETFILTER),
    )
    .unwrap();
    rustix::net::send(&socket, &bytes, rustix::net::SendFlags::empty()).unwrap();
    let (mut found, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let (length, _) =
            rustix::net::recv(&socket, &mut buffer[..], rustix::net::RecvFlags::empty()).unwrap();
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest).unwrap();
            rest = &rest[(message.header.length as usize).next_multiple_of(4)..];
            match message.payload {
                NetlinkPayload::Done(_) => return found,
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::NfTables(read),
                    ..
                }) => found.push(read),
                other => panic!("{other:?}"),
            }
        }
    }
}

//! Bans that overlap: inside one object, among objects, and in manners of their own. Whatever comes and goes, an
//! address is banned exactly while some ban says so, and at no moment between two that both do is it let through.
use podwall_lab::Cni;
use podwall_ruleset::Key;

use super::*;
use crate::rig::stream::{self, Stream, Tally};

/// What random bans name: some hold the first host, some the second, some both, some nobody who is there.
const BLOCKS: [[&str; 2]; 10] = [
    ["203.0.113.10", "2001:db8::a"],
    ["203.0.113.11", "2001:db8::b"],
    ["203.0.113.10/31", "2001:db8::a/127"],
    ["203.0.113.8/29", "2001:db8::8/125"],
    ["203.0.113.0/28", "2001:db8::/124"],
    ["203.0.113.8/31", "2001:db8::8/127"],
    ["203.0.113.12/30", "2001:db8::c/126"],
    ["203.0.113.9", "2001:db8::9"],
    ["203.0.0.0/15", "2001::/16"],
    ["203.0.113.0/24", "2001:db8::/64"],
];

/// How random bans judge, and whether that refuses TCP and UDP to the web.
fn manners() -> Vec<(Value, [bool; 2])> {
    vec![
        (json!({}), [true, true]),
        (json!({"action": "Reject"}), [true, true]),
        (json!({"mode": "Audit"}), [false, false]),
        (json!({"ports": [{"protocol": "TCP", "localPort": WEB}]}), [true, false]),
        (json!({"ports": [{"protocol": "UDP"}]}), [false, true]),
        (json!({"direction": "Out"}), [false, false]),
        (json!({"direction": "Both"}), [true, true]),
        (json!({"managementPorts": "Ban"}), [true, true]),
        (json!({"interfaces": {"names": ["eth0"]}}), [true, true]),
        (json!({"interfaces": {"names": ["wg0"]}}), [false, false]),
        (json!({"expiresAt": moment(3_600_000)}), [true, true]),
        (json!({"ports": [{"protocol": "TCP", "localPort": 1, "localEndPort": 1023}]}), [false, false]),
    ]
}

/// A generator that tells the same again (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("fits") % count
    }
}

/// Which blocks one of the bans names, and how it judges.
type Drawn = (Vec<usize>, usize);

fn draw(dice: &mut Dice) -> Drawn {
    let blocks = (0..1 + dice.below(4)).map(|_| dice.below(BLOCKS.len())).collect();
    (blocks, dice.below(manners().len()))
}

fn object(name: &str, (blocks, manner): &Drawn) -> Value {
    let mut addresses: Vec<&str> = blocks.iter().flat_map(|block| BLOCKS[*block]).collect();
    addresses.sort_unstable();
    addresses.dedup();
    ban(name, &addresses, manners()[*manner].0.clone())
}

/// Is it refused TCP, and UDP?
fn refused(bans: &[Option<Drawn>], address: IpAddr) -> [bool; 2] {
    let holds = |block: &usize| {
        let named = BLOCKS[*block].iter().map(|text| match text.parse::<IpAddr>() {
            Ok(single) => single.into(),
            Err(_) => text.parse::<ipnetwork::IpNetwork>().expect("written so"),
        });
        named.filter(|network| network.is_ipv4() == address.is_ipv4()).any(|n| n.contains(address))
    };
    let manners = manners();
    let holding = bans.iter().flatten().filter(|(blocks, _)| blocks.iter().any(holds));
    holding.fold([false; 2], |[tcp, udp], (_, manner)| {
        let of = manners[*manner].1;
        [tcp || of[0], udp || of[1]]
    })
}

/// Everybody outside is let through or not as the bans say, and the kernel holds what it should.
fn judge(rig: &mut Rig, bans: &[Option<Drawn>], story: &[String]) {
    rig.forget_flows();
    let to = [of(rig, "red/ant"), of(rig, "@west")].concat();
    let mut asked = Vec::new();
    for from in ["outside", "elsewhere"] {
        for address in &to {
            let source = *of(rig, from).iter().find(|own| own.is_ipv4() == address.is_ipv4()).expect("both");
            for (protocol, is_refused) in
                [Protocol::Tcp, Protocol::Udp].into_iter().zip(refused(bans, source))
            {
                let timeout = if is_refused { SILENCE } else { PATIENCE };
                let netns = rig.netns(&Actor(from.to_owned()));
                asked.push((is_refused, (netns, Probe::new(protocol, *address, WEB).timeout(timeout))));
            }
        }
    }
    let probes: Vec<_> = asked.iter().map(|(_, probe)| *probe).collect();
    let answers = probe_all(&probes).expect("probes can be sent");
    for ((is_refused, (_, probe)), answer) in asked.iter().zip(answers) {
        let passed = answer.outcome == Outcome::Open;
        assert_ne!(passed, *is_refused, "{probe:?}: {}\n{}", answer.outcome, story.join("\n"));
    }
    for filter in rig.filters.values_mut() {
        let observed = filter.backend.observe().expect("readable");
        assert_eq!(observed.alien, Vec::<String>::new(), "{}", story.join("\n"));
        assert!(observed.or_empty() == *filter.standing(), "the kernel differs\n{}", story.join("\n"));
    }
}

#[test]
fn whatever_bans_come_change_and_go_an_address_is_banned_exactly_while_one_of_them_says_so() {
    let Some(mut rig) = ground() else { return };
    let steps = if fallback().is_none() { 40 } else { 20 };
    let (mut dice, mut story) = (Dice(4), Vec::new());
    let mut bans: Vec<Option<Drawn>> = vec![None; 5];
    for step in 0..steps {
        let at = dice.below(bans.len());
        let name = format!("ban-{at}");
        if bans[at].is_some() && dice.below(3) == 0 {
            bans[at] = None;
            story.push(format!("{step}: {name} goes"));
            rig.delete("Ban", &name);
        } else {
            let drawn = draw(&mut dice);
            let object = object(&name, &drawn);
            story.push(format!("{step}: {name} {}", object["spec"]));
            bans[at] = Some(drawn);
            rig.apply(&[object]);
        }
        judge(&mut rig, &bans, &story);
    }
}

#[test]
fn blocks_of_several_bans_are_merged_and_come_apart_again() {
    let Some(mut rig) = ground() else { return };
    let drawn = |blocks: &[usize], manner| Some((blocks.to_vec(), manner));
    // All of one manner, but the last.
    let mut bans = vec![drawn(&[0, 2, 3, 4, 9], 0), drawn(&[2, 5, 6], 0), drawn(&[0, 1], 0), drawn(&[9], 3)];
    for (at, drawn) in bans.iter().enumerate() {
        rig.apply(&[object(&format!("ban-{at}"), drawn.as_ref().expect("none is gone yet"))]);
    }
    let mut story = Vec::new();
    for at in 0..bans.len() {
        judge(&mut rig, &bans, &story);
        bans[at] = None;
        story.push(format!("ban-{at} goes"));
        rig.delete("Ban", &format!("ban-{at}"));
    }
    judge(&mut rig, &bans, &story);
}

#[test]
fn a_wide_ban_spares_administrators_but_not_the_one_who_is_banned_besides() {
    let Some(mut rig) = ground() else { return };
    rig.add_pod(PodPlan::new("red/ssh").on("east").host_network().serve(Protocol::Tcp, 22), &[]);
    let ssh = [(Protocol::Tcp, 22)];
    rig.apply(&[ban("wide", &["128.0.0.0/1", "2000::/3"], json!({})), ban("one", &BANNED, json!({}))]);
    rig.forget_flows();
    shut(&rig, "outside", &of(&rig, "@east"), &ssh);
    open(&rig, "elsewhere", &of(&rig, "@east"), &ssh);
    shut(&rig, "elsewhere", &everywhere(&rig), &ALL);
    rig.apply(&[ban("one", &BANNED, json!({"mode": "Audit"}))]);
    rig.forget_flows();
    open(&rig, "outside", &of(&rig, "@east"), &ssh);
}

/// The sets by which the first host was counted, without what tells their manners apart.
fn counted(rig: &mut Rig) -> Vec<String> {
    let hits = rig.filters.get_mut("east").expect("it is there").backend.hits().expect("readable");
    let own = hits
        .iter()
        .filter(|hit| hit.packets > 0 && BANNED.map(|text| Key::Address(ip(text))).contains(&hit.key));
    let mut sets: Vec<String> = own.map(|hit| hit.set.to_string().chars().take(5).collect()).collect();
    sets.sort();
    sets
}

#[test]
fn an_audit_of_a_banned_address_opens_nothing_and_counts_what_passes() {
    let Some(mut rig) = ground() else { return };
    rig.apply(&[ban("look", &BANNED, json!({"mode": "Audit"})), ban("out", &BANNED, json!({}))]);
    rig.forget_flows();
    shut(&rig, "outside", &everywhere(&rig), &ALL);
    assert_eq!(counted(&mut rig), ["c_bi4", "c_bi6"]);
    rig.delete("Ban", "out");
    rig.forget_flows();
    open(&rig, "outside", &everywhere(&rig), &ALL);
    assert_eq!(counted(&mut rig), ["n_bi4", "n_bi6"]);
}

/// A ban of the first host in one way after the other; each of them refuses UDP to pods.
fn ways_to_ban() -> Vec<Value> {
    let out = |addresses: &[&str], more| ban("out", addresses, more);
    vec![
        out(&BANNED, json!({"action": "Reject"})),
        out(&BANNED, json!({"ports": [{"protocol": "UDP"}]})),
        out(&["203.0.113.8/29", "2001:db8::8/125"], json!({})),
        out(&["203.0.113.0/28", "2001:db8::/124"], json!({})),
        out(&["203.0.113.10/31", "2001:db8::a/127"], json!({})),
        out(&["203.0.113.8/30", "2001:db8::8/126", BANNED[0]], json!({})),
        out(&BANNED, json!({"expiresAt": moment(3_600_000)})),
        out(&BANNED, json!({"expiresAt": moment(7_200_000)})),
        out(&BANNED, json!({"interfaces": {"names": ["eth0", "wg0"]}})),
        out(&["203.0.0.0/15", "2001::/16"], json!({})),
        out(&["203.0.0.0/15", "2001::/16"], json!({"managementPorts": "Ban"})),
        out(&BANNED, json!({"direction": "Both"})),
        out(&BANNED, json!({})),
    ]
}

/// The first host floods a pod, in both families, with packets that are each judged.
fn flood(rig: &Rig) -> Vec<Stream> {
    let stream = |address: IpAddr| Stream {
        name: format!("outside to {address}"),
        from: rig.netns(&Actor("outside".to_owned())).clone(),
        to: rig.lab.pod("red/ant").expect("it is there").netns().clone(),
        at: (address, 5555).into(),
        pause: None,
    };
    of(rig, "red/ant").into_iter().map(stream).collect()
}

fn nothing_passed(tallies: &[Tally]) {
    println!("{tallies:?}");
    let leaked: Vec<&Tally> = tallies.iter().filter(|tally| tally.received > 0).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    assert!(tallies.iter().all(|tally| tally.sent > 1000), "{tallies:?}");
}

#[test]
fn while_a_ban_is_changed_into_another_of_the_same_address_not_one_packet_passes() {
    let Some(mut rig) = ground() else { return };
    rig.apply(&[ban("out", &BANNED, json!({}))]);
    let ((), tallies) = stream::during(&flood(&rig), || {
        for round in 0..2 {
            for way in ways_to_ban() {
                rig.apply(&[way]);
            }
            // The same by another object, and back.
            let second = ban("second", &BANNED, json!({"reason": format!("round {round}")}));
            rig.apply(&[second]);
            rig.delete("Ban", "out");
            rig.learn(&[ban("out", &BANNED, json!({"action": "Reject"}))]);
            rig.forget("Ban", "second");
            rig.commit();
        }
    });
    nothing_passed(&tallies);
}

#[test]
fn while_blocks_of_other_lengths_come_and_go_not_one_packet_passes_of_whom_another_block_holds() {
    let Some(mut rig) = ground() else { return };
    let wide = ["203.0.113.0/28", "2001:db8::/124"];
    rig.apply(&[ban("out", &wide, json!({}))]);
    let ((), tallies) = stream::during(&flood(&rig), || {
        for _ in 0..40 {
            rig.apply(&[ban("other", &["198.18.0.0/31", "2001:db8:1::/127"], json!({}))]);
            rig.delete("Ban", "other");
        }
    });
    nothing_passed(&tallies);
}

#[test]
fn while_others_are_banned_and_released_an_open_way_loses_no_packet() {
    let Some(mut rig) = ground() else { return };
    let streams: Vec<Stream> = of(&rig, "red/ant")
        .into_iter()
        .map(|address| Stream {
            name: format!("elsewhere to {address}"),
            from: rig.netns(&Actor("elsewhere".to_owned())).clone(),
            to: rig.lab.pod("red/ant").expect("it is there").netns().clone(),
            at: (address, 5556).into(),
            pause: Some(Duration::from_millis(1)),
        })
        .collect();
    streams.iter().for_each(stream::acquaint);
    rig.forget_flows();
    let ((), tallies) = stream::during(&streams, || {
        for way in ways_to_ban() {
            let only_him = way["spec"]["addresses"].as_array().expect("a list").len() == BANNED.len()
                && way["spec"]["addresses"][0] == BANNED[0];
            if only_him {
                rig.apply(&[way]);
            }
        }
        rig.delete("Ban", "out");
    });
    println!("{tallies:?}");
    let lost: Vec<&Tally> = tallies.iter().filter(|tally| tally.received < tally.sent).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn whom_the_operator_names_and_who_serves_the_api_is_never_banned() {
    let options =
        Options { never_banned: vec!["203.0.113.10/32".parse().expect("written so")], ..Options::default() };
    let Some(mut rig) = ground_with(&options) else { return };
    let [v4, v6] = BANNED.map(ip);
    let both = |rig: &Rig, name: &str| -> [Vec<IpAddr>; 2] {
        let all = of(rig, name);
        all.into_iter().partition(IpAddr::is_ipv4).into()
    };
    let all = ["203.0.113.0/24", "2001:db8::/64", BANNED[0], BANNED[1]];
    rig.apply(&[ban("all", &all, json!({"direction": "Both"}))]);
    rig.forget_flows();
    for name in ["red/ant", "@west"] {
        let [four, six] = both(&rig, name);
        open(&rig, "outside", &four, &ALL);
        open(&rig, name, &[v4], &ALL);
        shut(&rig, "outside", &six, &ALL);
        shut(&rig, "elsewhere", &of(&rig, name), &ALL);
    }
    // The API server moves to the other address, and away again.
    rig.change(&podwall_engine::Change::ApiServers([v6].into()));
    rig.commit();
    rig.forget_flows();
    open(&rig, "outside", &everywhere(&rig), &ALL);
    open(&rig, "@east", &[v4, v6], &ALL);
    shut(&rig, "elsewhere", &everywhere(&rig), &ALL);
    rig.change(&podwall_engine::Change::ApiServers([].into()));
    rig.commit();
    rig.forget_flows();
    shut(&rig, "outside", &both(&rig, "@east")[1], &ALL);
    open(&rig, "outside", &both(&rig, "@east")[0], &ALL);
}

#[test]
fn on_a_bridge_bans_hold_for_pods_and_for_the_node() {
    let Some(mut rig) = crate::rig::town(Cni::Bridged) else { return };
    rig.lab.add_host("elsewhere", &[]).expect("a host can be added");
    let to = |rig: &Rig| [of(rig, "red/ant"), of(rig, "red/bee")].concat();
    open(&rig, "outside", &to(&rig), &ALL);
    rig.apply(&[ban("out", &BANNED, json!({"direction": "Both"}))]);
    rig.forget_flows();
    shut(&rig, "outside", &to(&rig), &ALL);
    shut(&rig, "red/ant", &BANNED.map(ip), &[(Protocol::Tcp, WEB)]);
    open(&rig, "elsewhere", &to(&rig), &ALL);
    open(&rig, "red/bee", &of(&rig, "red/ant"), &ALL);
}

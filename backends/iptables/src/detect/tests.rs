//! The evidence weighed, and read from a host.
use super::*;
use crate::backend::tests::namespace::{in_namespace, run};

fn survey(text: &str) -> Survey {
    let mut survey = Survey::default();
    survey.read(text);
    survey
}

const HINTED: &str = "*mangle\n:PREROUTING ACCEPT [0:0]\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
const TWO: &str = "*nat\n-A PREROUTING -j THEIRS\nCOMMIT\n*filter\n-A FORWARD -j THEIRS\nCOMMIT\n";
const OURS: &str = "*mangle\n:PW-forward - [0:0]\n:PWM-in4-0 - [0:0]\n\
    -A FORWARD -m comment --comment \"podwall forward -1\" -j PW-forward\n-A PW-forward -j PW-recheck\n\
    -A PWM-in4-0 -d 10.0.0.1/32 -g PW-i4_x\n-A PWR -i eth0 -j PWL-x\nCOMMIT\n";

#[test]
fn kubelets_chain_decides_before_any_count() {
    let detected = weigh(&survey(TWO), &survey(HINTED), Variant::Nft);
    let why = "kubelet's chain KUBE-IPTABLES-HINT is in the mangle table of iptables-legacy".to_owned();
    assert_eq!(detected, Detected { variant: Variant::Legacy, why, mixed: None });
    let canary = HINTED.replace("KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY");
    assert_eq!(weigh(&survey(&canary), &survey(TWO), Variant::Legacy).variant, Variant::Nft);
}

#[test]
fn a_chain_of_that_name_in_another_table_is_no_hint() {
    assert_eq!(survey(&HINTED.replace("*mangle", "*filter")).hint, None);
}

#[test]
fn without_a_hint_or_with_two_who_has_more_rules_decides_and_a_mixture_names_its_tables() {
    let one = "*filter\n-A FORWARD -j DROP\nCOMMIT\n";
    let detected = weigh(&survey(one), &survey(TWO), Variant::Nft);
    let words = "this host mixes two kinds of iptables: tables filter, nat are legacy (2 rules), tables filter are nft \
                 (1 rules); both see every packet, and podwall uses iptables-legacy: others have 2 rules in \
                 iptables-legacy and 1 in iptables-nft";
    assert_eq!((detected.variant, detected.mixed.as_deref()), (Variant::Legacy, Some(words)));
    let both = [HINTED, one].concat();
    assert_eq!(weigh(&survey(&both), &survey(&both), Variant::Legacy).variant, Variant::Nft);
}

#[test]
fn our_own_rules_are_no_evidence() {
    assert_eq!(survey(OURS), Survey::default());
    let detected = weigh(&survey(TWO), &survey(OURS), Variant::Nft);
    assert_eq!((detected.variant, detected.mixed), (Variant::Nft, None));
}

#[test]
fn where_nobody_has_rules_the_one_that_works_is_used() {
    let nothing = Survey::default();
    assert_eq!(weigh(&nothing, &nothing, Variant::Legacy).variant, Variant::Legacy);
    assert_eq!(
        weigh(&nothing, &nothing, Variant::Nft).why,
        "nobody uses iptables here, and iptables-nft works"
    );
}

#[test]
fn a_host_is_asked_what_it_really_uses() {
    in_namespace(|variant| {
        let [ours, others] = match variant {
            Variant::Nft => ["iptables-nft", "ip6tables-legacy"],
            Variant::Legacy => ["iptables-legacy", "ip6tables-nft"],
        };
        assert_eq!(detect().unwrap().variant, Variant::Nft, "nothing stands");
        run(others, &["-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE"]);
        assert_ne!(detect().unwrap().variant, variant, "only the other has rules");
        run(ours, &["-t", "mangle", "-N", "KUBE-KUBELET-CANARY"]);
        assert_eq!((detect().unwrap().variant, detect().unwrap().mixed), (variant, None));
        run(ours, &["-A", "FORWARD", "-j", "ACCEPT"]);
        let found = detect().unwrap();
        let words = found.mixed.expect("both have rules");
        assert!(words.contains("filter are ") && words.contains("nat are "), "{words}");
        assert_eq!(found.variant, variant);
    });
}

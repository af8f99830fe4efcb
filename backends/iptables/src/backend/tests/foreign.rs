//! Others at work: in our chains and sets, and beside them.
use podwall_ruleset::Key;

use super::namespace::run;
use super::*;

fn iptables(variant: Variant, arguments: &[&str]) -> String {
    let program = match variant {
        Variant::Legacy => "iptables-legacy",
        Variant::Nft => "iptables-nft",
    };
    run(program, &[&["-w", "5", "-t", "mangle"], arguments].concat())
}

fn loaded(variant: Variant) -> Iptables {
    let mut kernel = open(variant);
    bring(&mut kernel, &Ruleset::default(), &sample::node());
    kernel
}

/// What is alien must be gone once the diff was carried out.
fn repaired(kernel: &mut Iptables) {
    let observed = kernel.observe().unwrap();
    let differs = !observed.alien.is_empty();
    let seen = observed.or_empty();
    assert!(differs || seen != sample::node());
    bring(kernel, &seen, &sample::node());
    kernel.sweep().unwrap();
    assert_eq!(standing(kernel), Some(sample::node()));
}

#[test]
fn rules_and_sets_of_others_stay_as_they_are() {
    in_namespace(|variant| {
        iptables(variant, &["-N", "THEIRS"]);
        iptables(variant, &["-A", "THEIRS", "-s", "192.0.2.1", "-j", "DROP"]);
        iptables(variant, &["-A", "FORWARD", "-j", "THEIRS"]);
        run("ipset", &["create", "theirs", "hash:ip"]);
        let before = readback::listing(variant);
        let mut kernel = loaded(variant);
        assert!(iptables(variant, &["-S", "FORWARD"]).contains("-A FORWARD -j THEIRS"));
        bring(&mut kernel, &sample::node(), &Ruleset::default());
        assert_eq!(readback::listing(variant), before);
    });
}

#[test]
fn a_rule_put_before_ours_is_alien_and_goes() {
    in_namespace(|variant| {
        let mut kernel = loaded(variant);
        iptables(variant, &["-I", "PW-forward", "1", "-j", "ACCEPT"]);
        iptables(variant, &["-A", "PW-strays", "-j", "RETURN"]);
        let alien = kernel.observe().unwrap().alien;
        assert_eq!(alien, ["chain forward: is not as we wrote it", "chain strays: is not as we wrote it"]);
        repaired(&mut kernel);
    });
}

#[test]
fn a_lost_jump_is_put_back() {
    in_namespace(|variant| {
        let mut kernel = loaded(variant);
        iptables(variant, &["-F", "FORWARD"]);
        repaired(&mut kernel);
        iptables(variant, &["-F", "PREROUTING"]);
        repaired(&mut kernel);
        assert!(iptables(variant, &["-S", "FORWARD"]).contains("-j PW-forward"));
    });
}

#[test]
fn after_everything_was_flushed_everything_comes_back() {
    in_namespace(|variant| {
        let mut kernel = loaded(variant);
        iptables(variant, &["-F"]);
        iptables(variant, &["-X"]);
        repaired(&mut kernel);
    });
}

#[test]
fn foreign_elements_are_seen_as_what_they_are() {
    in_namespace(|variant| {
        let mut kernel = loaded(variant);
        run("ipset", &["add", "pwa_s4_web", "10.9.9.9"]);
        run("ipset", &["add", "pwr_c_local4", "10.7.0.0/16"]);
        run("ipset", &["del", "pwe_n4_web", "10.1.0.2,tcp:80"]);
        let seen = standing(&mut kernel).unwrap();
        let stranger = Key::Address(sample::ip("10.9.9.9"));
        assert!(seen.sets[&sample::set("s4_web")].get(&stranger).is_some());
        repaired(&mut kernel);
    });
}

#[test]
fn a_torn_tree_is_mended() {
    in_namespace(|variant| {
        let mut kernel = loaded(variant);
        iptables(variant, &["-F", "PWM-in4-200"]);
        assert_eq!(kernel.observe().unwrap().alien, ["set in4: is not as we wrote it"]);
        repaired(&mut kernel);
    });
}

#[test]
fn what_wears_our_prefix_and_is_nothing_of_ours_goes() {
    in_namespace(|variant| {
        let mut kernel = loaded(variant);
        iptables(variant, &["-N", "PW-Leftover"]);
        iptables(variant, &["-A", "INPUT", "-j", "PW-Leftover"]);
        run("ipset", &["create", "pwz_leftover", "hash:ip"]);
        let alien = kernel.observe().unwrap().alien;
        assert_eq!(alien.len(), 3, "{alien:?}");
        repaired(&mut kernel);
    });
}

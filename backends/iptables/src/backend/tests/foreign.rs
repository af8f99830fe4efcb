//! Others at work: in our chains and sets, and beside them.
use podwall_ruleset::Key;

use super::namespace::run;
use super::*;

/// Has the variant do something in the mangle table; answers what it prints.
pub(super) fn iptables(variant: Variant, arguments: &[&str]) -> String {
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
        iptables(variant, &["-F", "PWM-in4-20000"]);
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
        run("ipset", &["create", "pwr_leftover", "hash:ip"]);
        let alien = kernel.observe().unwrap().alien;
        assert_eq!(alien.len(), 3, "{alien:?}");
        repaired(&mut kernel);
    });
}

#[test]
fn a_jump_that_others_let_packets_go_by_is_put_first_again() {
    in_namespace(|variant| {
        let mut kernel = loaded(variant);
        let first = || iptables(variant, &["-S", "FORWARD"]).lines().nth(1).unwrap().to_owned();
        let ours = first();
        // What goes on to the next rule does no harm in front.
        iptables(
            variant,
            &[
                "-I",
                "FORWARD",
                "1",
                "-m",
                "comment",
                "--comment",
                "go -j ACCEPT",
                "-j",
                "MARK",
                "--set-mark",
                "1",
            ],
        );
        assert_eq!(standing(&mut kernel), Some(sample::node()));
        assert!(!kernel.looks_changed().unwrap());
        iptables(variant, &["-I", "FORWARD", "1", "-i", "lo", "-j", "ACCEPT"]);
        assert_eq!(kernel.observe().unwrap().alien.len(), 1);
        repaired(&mut kernel);
        assert_eq!(first(), ours);
        assert_eq!(iptables(variant, &["-S", "FORWARD"]).lines().count(), 4, "theirs stay");
    });
}

#[test]
fn a_jump_that_stands_twice_stands_once_again() {
    in_namespace(|variant| {
        let mut kernel = loaded(variant);
        let before = iptables(variant, &["-S", "FORWARD"]);
        let jump = before.lines().nth(1).unwrap().replace('"', "");
        let (words, target) = jump.split_once(" --comment ").unwrap();
        let (comment, target) = target.split_once(" -j ").unwrap();
        let words: Vec<&str> = words.split(' ').chain(["--comment", comment, "-j", target]).collect();
        iptables(variant, &words);
        iptables(variant, &words);
        assert_eq!(iptables(variant, &["-S", "FORWARD"]).lines().count(), 4);
        repaired(&mut kernel);
        assert_eq!(iptables(variant, &["-S", "FORWARD"]), before);
    });
}

#[test]
fn names_that_only_begin_like_ours_are_left_alone() {
    in_namespace(|variant| {
        iptables(variant, &["-N", "PWNED"]);
        iptables(variant, &["-A", "PWNED", "-j", "RETURN"]);
        iptables(variant, &["-A", "FORWARD", "-j", "PWNED"]);
        run("ipset", &["create", "pwned", "hash:ip"]);
        run("ipset", &["create", "pwx_blocklist", "hash:ip"]);
        let before = readback::listing(variant);
        let mut kernel = loaded(variant);
        assert_eq!(standing(&mut kernel), Some(sample::node()));
        kernel.sweep().unwrap();
        bring(&mut kernel, &sample::node(), &Ruleset::default());
        assert_eq!(readback::listing(variant), before);
    });
}

#[test]
fn a_cheap_look_sees_every_kind_of_foreign_hand_and_nothing_else() {
    let hands: [fn(Variant) -> String; 6] = [
        |variant| iptables(variant, &["-F", "PREROUTING"]),
        |variant| iptables(variant, &["-F", "PW-strays"]),
        |variant| iptables(variant, &["-A", "PW-judge", "-j", "ACCEPT"]),
        |_| run("ipset", &["flush", "pwa_s4_web"]),
        |_| run("ipset", &["add", "pwa_s4_web", "10.9.9.9"]),
        |_| run("ipset", &["create", "pwa_new", "hash:ip"]),
    ];
    in_namespace(move |variant| {
        let mut kernel = loaded(variant);
        for hand in hands {
            let rested = |kernel: &mut Iptables| {
                kernel.rest = Rest::default();
                kernel.looks_changed().unwrap()
            };
            iptables(variant, &["-A", "INPUT", "-i", "lo", "-j", "MARK", "--set-mark", "1"]);
            assert!(!rested(&mut kernel));
            hand(variant);
            assert!(rested(&mut kernel));
            repaired(&mut kernel);
        }
    });
}

#[test]
fn a_second_process_that_opens_the_backend_disturbs_nothing() {
    in_namespace(|variant| {
        let mut kernel = loaded(variant);
        iptables(variant, &["-N", "PWT"]);
        run("ipset", &["create", "pwt4", "hash:ip"]);
        assert!(!kernel.looks_changed().unwrap());
        drop(open(variant));
        assert!(!iptables(variant, &["-S"]).contains("PWT"), "what a killed one left goes with the next");
        assert_eq!(standing(&mut kernel), Some(sample::node()));
    });
}

#[test]
fn a_table_that_iptables_cannot_read_any_more_is_said_to_be_one() {
    in_namespace(|variant| {
        if variant == Variant::Legacy {
            // Nobody but iptables writes there.
            return;
        }
        let mut kernel = loaded(variant);
        run("nft", &["add rule ip mangle FORWARD meta mark set numgen random mod 2"]);
        assert!(kernel.looks_changed().is_err());
        let told = kernel.observe().unwrap_err().to_string();
        assert!(told.contains("iptables-nft-save: # Table `mangle' is incompatible"), "{told}");
        run("nft", &["flush chain ip mangle FORWARD"]);
        repaired(&mut kernel);
    });
}

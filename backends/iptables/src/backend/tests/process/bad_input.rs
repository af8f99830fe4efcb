//! Hosts that lack something: one line each that says what.
use super::namespace::run;
use super::*;

fn open_words(variant: Variant) -> String {
    format!("open {}", word(variant))
}

/// A program that fails with these words when the text it is given, or its arguments, hold a word.
fn failing(word: &str, words: &str) -> String {
    format!(
        "input=$(cat)
case \"$input $*\" in *'{word}'*) printf '%s\\n' '{words}' >&2; exit 1 ;; esac
printf '%s\\n' \"$input\" | \"$real\" \"$@\""
    )
}

#[test]
fn missing_programs_are_named() {
    in_namespace(|variant| {
        let install = "install iptables 1.8 and ipset 6 or later";
        let nothing = Programs::passing(&[]);
        assert_eq!(
            nothing.told(&open_words(variant)),
            format!("not supported here: the program ipset: {install}")
        );
        let sets = Programs::passing(&["ipset"]);
        let restore = variant.program(Family::V4, Program::Restore);
        assert_eq!(
            sets.told(&open_words(variant)),
            format!("not supported here: the program {restore}: {install}")
        );
    });
}

#[test]
fn without_ipv6_programs_ipv4_is_enforced_and_a_host_that_speaks_ipv6_is_warned() {
    in_namespace(|variant| {
        let [ipset, restore, save, ..] = names(variant);
        let programs = Programs::passing(&[ipset, restore, save]);
        let six = variant.program(Family::V6, Program::Restore);
        let lacking = format!("the program {six}: install iptables 1.8 and ipset 6 or later");
        assert_eq!(
            programs.told(&open_words(variant)),
            format!("works, IPv6 false, unjudged {:?}", Some(lacking))
        );
        let bring = format!("bring {} none node", word(variant));
        assert_eq!(programs.told(&bring), "committed, alien [], as wanted");
        let adopt = format!("adopt {} later", word(variant));
        assert_eq!(programs.told(&adopt), "committed, alien [], as wanted");
        let saved = |family| run(variant.program(family, Program::Save), &["-t", "mangle"]);
        assert!(saved(Family::V4).contains("-j PW-forward"));
        assert!(!saved(Family::V6).contains("PW-"));
        run("ip", &["link", "set", "lo", "down"]);
        assert_eq!(programs.told(&open_words(variant)), "works, IPv6 false, unjudged None");
    });
}

#[test]
fn ipv6_tables_that_do_not_work_leave_ipv4_enforced() {
    in_namespace(|variant| {
        let programs = Programs::all(variant);
        let six = variant.program(Family::V6, Program::Restore);
        programs
            .put(six, &failing("", &format!("{six} v1.8.9 (legacy): unable to initialize table `mangle`")));
        let told = programs.told(&open_words(variant));
        assert!(
            told.starts_with("works, IPv6 false, unjudged Some(\"the mangle table of ip6tables-"),
            "{told}"
        );
        assert!(told.contains("unable to initialize table `mangle`"), "{told}");
    });
}

#[test]
fn missing_kernel_modules_are_named() {
    in_namespace(|variant| {
        let missing = "Warning: Extension set revision 0 not supported, missing kernel module?";
        let programs = Programs::all(variant);
        programs.put(variant.program(Family::V4, Program::Restore), &failing("-m set ", missing));
        assert_eq!(
            programs.told(&open_words(variant)),
            format!("not supported here: modprobe xt_set: {missing}")
        );
        let unknown = "ipset v7.17: Error in line 3: Kernel error received: set type not supported";
        let programs = Programs::all(variant);
        programs.put("ipset", &failing("hash:net", unknown));
        let expected = format!(
            "not supported here: sets of type hash:net: modprobe ip_set_hash_net, CAP_NET_ADMIN: {unknown}"
        );
        assert_eq!(programs.told(&open_words(variant)), expected);
        assert!(!run(variant.program(Family::V4, Program::Save), &["-t", "mangle"]).contains("PWT"));
    });
}

#[test]
fn versions_that_are_too_old_or_print_other_words_are_refused() {
    in_namespace(|variant| {
        let programs = Programs::all(variant);
        let restore = variant.program(Family::V4, Program::Restore);
        let old = "case \"$*\" in --version) echo 'iptables v1.4.21' ;; *) echo \"unknown option -w\" >&2; exit 2 ;; esac";
        programs.put(restore, old);
        let expected = "not supported here: iptables 1.8 or later: this is iptables v1.4.21";
        assert_eq!(programs.told(&open_words(variant)), expected);
        let programs = Programs::all(variant);
        let save = variant.program(Family::V4, Program::Save);
        programs.put(save, "\"$real\" \"$@\" | sed 's/-m conntrack --ctstate/-m state --state/'");
        let told = programs.told(&open_words(variant));
        assert!(told.contains("prints `-m state --state INVALID,NEW"), "{told}");
    });
}

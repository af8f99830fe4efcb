//! What was loaded is what stands.
use super::namespace::run;
use super::*;

/// Everything of others and ours, without the lines that carry the time.
fn listing(variant: Variant) -> String {
    let mut text = String::new();
    for family in Family::BOTH {
        let saved = run(variant.program(family, Program::Save), &["-t", "mangle"]);
        text.extend(saved.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")));
    }
    text + &run("ipset", &["save"])
}

#[test]
fn what_was_loaded_is_observed_again_and_again() {
    in_namespace(|variant| {
        let mut kernel = open(variant);
        assert_eq!(standing(&mut kernel), None);
        bring(&mut kernel, &Ruleset::default(), &sample::node());
        assert_eq!(standing(&mut kernel), Some(sample::node()));
        assert_eq!(standing(&mut open(variant)), Some(sample::node()));
    });
}

#[test]
fn edits_arrive_and_undoing_them_leads_back_to_nothing() {
    in_namespace(|variant| {
        let mut kernel = open(variant);
        let before = listing(variant);
        bring(&mut kernel, &Ruleset::default(), &sample::node());
        bring(&mut kernel, &sample::node(), &sample::later());
        assert_eq!(standing(&mut kernel), Some(sample::later()));
        bring(&mut kernel, &sample::later(), &sample::node());
        assert_eq!(standing(&mut kernel), Some(sample::node()));
        bring(&mut kernel, &sample::node(), &Ruleset::default());
        assert_eq!(standing(&mut kernel), None);
        assert_eq!(listing(variant), before);
    });
}

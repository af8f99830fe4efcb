//! Killed between any two programs, also while everything is loaded or taken away: the next one makes it whole.
//! That nothing opens meanwhile is asked of real packets in `tests/kernel/crash.rs`.
use super::*;

/// Ends the process that starts one more than `limit` says, before it is done.
const COUNTING: &str = "if [ -e limit ]; then
  echo x >>told
  if [ \"$(wc -l <told)\" -gt \"$(cat limit)\" ]; then kill -9 $PPID; exit 9; fi
fi
exec \"$real\" \"$@\"";

/// A step needs fewer programs than this.
const ENOUGH: usize = 60;

/// Kills at every place on the way; answers how many there were.
fn killed_everywhere(variant: Variant, from: &str, to: &str) -> usize {
    let programs = Programs::all(variant);
    names(variant).iter().for_each(|name| programs.put(name, COUNTING));
    for limit in 0..ENOUGH {
        let mut kernel = open(variant);
        let seen = kernel.observe().unwrap().or_empty();
        bring(&mut kernel, &seen, &ruleset(from));
        for file in ["limit", "told"] {
            drop(fs::remove_file(programs.path().join(file)));
        }
        let output = programs.run(&format!("bring {} {from} {to}", word(variant)), Some(limit));
        drop(fs::remove_file(programs.path().join("limit")));
        let mut next = open(variant);
        let seen = next.observe().unwrap();
        let wanted = ruleset(to);
        bring(&mut next, &seen.or_empty(), &wanted);
        next.sweep().unwrap();
        assert_eq!(standing(&mut next).unwrap_or_default(), wanted, "{from} to {to}, {limit} programs");
        if output.status.success() {
            return limit;
        }
    }
    panic!("{from} to {to}: never done");
}

#[test]
fn whoever_is_killed_between_two_programs_is_followed_by_one_who_makes_it_whole() {
    in_namespace(|variant| {
        drop(open(variant));
        let before = readback::listing(variant);
        let steps = [("none", "node"), ("node", "later"), ("later", "none")];
        let places = steps.map(|(from, to)| killed_everywhere(variant, from, to));
        println!("{}: killed at {places:?} places", variant.as_str());
        assert!(places.iter().all(|places| *places > 4), "{places:?}");
        assert_eq!(readback::listing(variant), before);
    });
}

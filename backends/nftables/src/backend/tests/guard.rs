//! Who may write into the table, and what becomes of it when its owner goes.
use super::namespace::{attempt, nft};
use super::*;

fn loaded(guard: Guard) -> Nftables {
    let mut kernel = open(guard);
    bring(&mut kernel, &Ruleset::default(), &sample::node());
    kernel
}

#[test]
fn an_owned_table_refuses_others_and_survives_their_flush() {
    in_namespace(|| {
        let mut kernel = loaded(Guard::Owned);
        assert_eq!(kernel.capabilities().guard, Guarded::Owned);
        let refused = attempt("nft", &["add element inet podwall s4_web { 10.9.9.9 }"]);
        assert!(!refused.status.success());
        nft("flush ruleset");
        assert_eq!(standing(&mut kernel), Some(sample::node()));
    });
}

#[test]
fn a_watched_table_lets_others_write() {
    in_namespace(|| {
        let mut kernel = loaded(Guard::Watched);
        assert_eq!(kernel.capabilities().guard, Guarded::Watched);
        nft("flush ruleset");
        assert_eq!(standing(&mut kernel), None);
    });
}

#[test]
fn an_owned_table_outlives_its_owner_and_the_next_takes_it_as_it_is() {
    in_namespace(|| {
        drop(loaded(Guard::Owned));
        assert!(nft("list ruleset").contains("goto i4_x"));
        let mut next = open(Guard::Auto);
        assert_eq!(next.capabilities().guard, Guarded::Owned);
        assert!(!attempt("nft", &["delete table inet podwall"]).status.success());
        assert_eq!(standing(&mut next), Some(sample::node()));
        bring(&mut next, &sample::node(), &sample::later());
        assert_eq!(standing(&mut next), Some(sample::later()));
    });
}

#[test]
fn a_table_without_owner_is_adopted_as_it_is_and_watched() {
    in_namespace(|| {
        drop(loaded(Guard::Watched));
        let mut next = open(Guard::Auto);
        assert_eq!(next.capabilities().guard, Guarded::Watched);
        assert_eq!(standing(&mut next), Some(sample::node()));
        assert!(matches!(
            Nftables::open(Options { guard: Guard::Owned }),
            Err(BackendError::Unsupported { .. })
        ));
    });
}

#[test]
fn a_table_somebody_alive_owns_is_refused_by_name() {
    in_namespace(|| {
        let _owner = loaded(Guard::Owned);
        for guard in [Guard::Auto, Guard::Owned, Guard::Watched] {
            let Err(BackendError::Owned { detail }) = Nftables::open(Options { guard }) else {
                panic!("{guard:?}")
            };
            assert!(detail.ends_with(&format!("(pid {})", std::process::id())), "{detail}");
        }
    });
}

#[test]
fn losing_the_race_for_a_table_names_the_winner() {
    in_namespace(|| {
        let mut late = open(Guard::Auto);
        let _winner = loaded(Guard::Auto);
        let node = sample::node();
        let [load] = &stages(&Ruleset::default(), &Delta::between(&Ruleset::default(), &node))[..] else {
            panic!()
        };
        let error = late.commit(&load.transaction).unwrap_err();
        assert!(matches!(error, BackendError::Owned { .. }), "{error}");
    });
}

#[test]
fn an_empty_table_that_was_left_is_filled() {
    in_namespace(|| {
        nft("add table inet podwall");
        let mut kernel = open(Guard::Auto);
        assert_eq!(standing(&mut kernel), Some(Ruleset::default()));
        bring(&mut kernel, &Ruleset::default(), &sample::node());
        assert_eq!(standing(&mut kernel), Some(sample::node()));
    });
}

#[test]
fn a_table_deleted_by_us_can_be_made_again() {
    in_namespace(|| {
        let mut kernel = loaded(Guard::Auto);
        bring(&mut kernel, &sample::node(), &Ruleset::default());
        bring(&mut kernel, &Ruleset::default(), &sample::node());
        assert!(!attempt("nft", &["delete table inet podwall"]).status.success());
        assert_eq!(standing(&mut kernel), Some(sample::node()));
    });
}

#[test]
fn an_owned_table_is_torn_down_once_its_owner_is_gone() {
    in_namespace(|| {
        drop(loaded(Guard::Owned));
        let mut kernel = open(Guard::Watched);
        bring(&mut kernel, &sample::node(), &Ruleset::default());
        assert_eq!(nft("list ruleset"), "");
    });
}

//! What the answer looks like.
use podwall_engine::explain::{Barrier, Decided, Nearest};

use super::*;

fn plain(answer: &Explanation) -> String {
    anstream::adapter::strip_str(&picture(answer)).to_string()
}

fn judgement(allowed: bool) -> Judgement {
    Judgement {
        allowed,
        node: "node-a".to_owned(),
        policies: vec!["shop/deny".to_owned(), "shop/db".to_owned()],
        decided_by: None,
        nearest: None,
        chain: Some("i4_abc".to_owned()),
        audit: None,
    }
}

#[test]
fn a_refusal_names_who_isolates_and_the_nearest_rule() {
    let nearest = Nearest {
        policy: "shop/db".to_owned(),
        rule: "ingress[0]".to_owned(),
        text: "allows tcp/5432 from pods app=api in namespace shop".to_owned(),
        misses: "it allows from pods app=api in namespace shop, asked was shop/worker (app=worker)"
            .to_owned(),
    };
    let decided = Decided {
        policy: "shop/backends".to_owned(),
        rule: "egress[0]".to_owned(),
        text: "allows tcp/5432 to pods app=db in namespace shop".to_owned(),
    };
    let answer = Explanation {
        from: "shop/worker (10.0.1.13)".to_owned(),
        to: "shop/db (10.0.1.12)".to_owned(),
        transport: "tcp/5432".to_owned(),
        allowed: false,
        barrier: None,
        egress: Some(Judgement { decided_by: Some(decided), ..judgement(true) }),
        ingress: Some(Judgement { nearest: Some(nearest), ..judgement(false) }),
        note: None,
    };
    assert_eq!(
        plain(&answer),
        "BLOCKED  shop/worker (10.0.1.13) -> shop/db (10.0.1.12) tcp/5432
 egress   allowed  on node-a by shop/backends egress[0]
                   it allows tcp/5432 to pods app=db in namespace shop
 ingress  blocked  on node-a: isolated by shop/deny, shop/db; no rule matches
                   nearest rule: shop/db ingress[0]: it allows from pods app=api in namespace shop, asked was \
                   shop/worker (app=worker)
                   counted and dropped in chain i4_abc
"
    );
}

#[test]
fn what_podwall_does_not_judge_is_said_in_one_line() {
    let answer = Explanation {
        from: "10.0.0.1".to_owned(),
        to: "10.0.0.2".to_owned(),
        transport: "tcp/80".to_owned(),
        allowed: true,
        barrier: None,
        egress: None,
        ingress: None,
        note: Some("nobody is asked".to_owned()),
    };
    assert_eq!(plain(&answer), "ALLOWED  10.0.0.1 -> 10.0.0.2 tcp/80\n  nobody is asked\n");
}

#[test]
fn a_ban_and_a_guarded_door_are_named_with_their_node() {
    let barrier = Barrier {
        node: "node-a".to_owned(),
        by: vec!["Ban out".to_owned(), "Ktban ktban/old".to_owned()],
        text: "bans connections from 203.0.113.10".to_owned(),
        link: None,
        chain: "b4_abc".to_owned(),
    };
    let answer = Explanation {
        from: "203.0.113.10".to_owned(),
        to: "shop/db (10.0.1.12)".to_owned(),
        transport: "tcp/5432".to_owned(),
        allowed: false,
        barrier: Some(barrier.clone()),
        egress: None,
        ingress: None,
        note: None,
    };
    assert_eq!(
        plain(&answer),
        "BLOCKED  203.0.113.10 -> shop/db (10.0.1.12) tcp/5432
 before  blocked  on node-a by Ban out, Ktban ktban/old
                  which bans connections from 203.0.113.10
                  counted and refused in chain b4_abc
"
    );
    let by_link = Barrier { link: Some("eth0".to_owned()), ..barrier };
    let answer = Explanation { allowed: true, barrier: Some(by_link), ..answer };
    assert!(
        plain(&answer).contains("open, but  by eth0 it is blocked on node-a by Ban out"),
        "{}",
        plain(&answer)
    );
}

//! The story holds together: everybody exists, and the policies say what the tables are meant to show.
use super::*;

fn story() -> Story {
    Story::of(&Family::BOTH).unwrap()
}

/// Names of who reaches a port of somebody after so many chapters; over both families, or the test fails.
fn reach(chapters: usize, door: (&str, u16)) -> Vec<String> {
    let story = story();
    let expected = story.expected(chapters).unwrap();
    let column = story.doors.iter().position(|d| (d.owner.name.as_str(), d.port) == door).unwrap();
    let mut names = Vec::new();
    for (row, actor) in story.actors.iter().enumerate() {
        let cell = expected.get((row, column));
        assert_eq!(cell.ipv4, cell.ipv6, "{} to {door:?}", actor.name);
        if cell.ipv4 == Some(Reach::Open) {
            names.push(actor.name.clone());
        }
    }
    names
}

#[test]
fn everybody_in_the_plot_is_in_the_manifests_and_has_both_families() {
    let story = story();
    assert_eq!(story.actors.len(), PODS.len() + HOSTS.len());
    assert_eq!(story.doors.len(), DOORS.len());
    assert_eq!(story.nodes.len(), 2);
    assert!(story.actors.iter().all(|actor| actor.addresses.len() == 2));
    for (from, to) in CONNECTIONS {
        assert!(story.actor(from).is_ok() && story.actor(to).is_ok());
    }
}

#[test]
fn no_page_holds_anything_that_cannot_be_understood() {
    assert_eq!(world(CHAPTERS.len()).unwrap().warnings, []);
}

#[test]
fn without_policies_everybody_reaches_everybody() {
    let story = story();
    assert!(story.expected(1).unwrap().iter().all(|(_, cell)| cell.ipv4 != Some(Reach::Blocked)));
}

#[test]
fn the_policies_open_exactly_what_the_shop_needs() {
    assert_eq!(reach(2, ("shop/web", 8080)), ["customer"]);
    assert_eq!(reach(2, ("shop/api", 8080)), ["shop/web"]);
    assert_eq!(reach(2, ("shop/api", 9100)), ["monitoring/prometheus", "monitoring/grafana"]);
    assert_eq!(reach(2, ("shop/db", 5432)), ["shop/api", "shop/worker"]);
    assert_eq!(reach(2, ("shop/cache", 6379)), [""; 0]);
    assert_eq!(reach(2, ("shop/cache", 7003)), ["shop/api"]);
    assert_eq!(reach(2, ("monitoring/prometheus", 9090)), ["monitoring/grafana"]);
    assert_eq!(reach(2, ("kube-system/dns", 53)).len(), 12);
    assert!(reach(2, ("bank", 443)).contains(&"shop/worker".to_owned()));
    assert!(!reach(2, ("bank", 443)).contains(&"shop/web".to_owned()));
}

#[test]
fn the_edits_shut_worker_out_and_let_the_intern_in() {
    assert_eq!(reach(3, ("shop/db", 5432)), ["shop/api"]);
    assert_eq!(reach(3, ("shop/api", 8080)), ["shop/web", "guest/intern"]);
    let story = story();
    let changed = story.expected(2).unwrap().differing(&story.expected(3).unwrap());
    assert_eq!(changed.len(), 2);
}

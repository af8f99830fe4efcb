//! The story holds together: everybody exists, and the policies say what the tables are meant to show.
use super::*;

fn story() -> Story {
    Story::of(&Family::BOTH).unwrap()
}

/// What the policies say after so many chapters.
struct Says(Story, Matrix);

impl Says {
    fn after(chapters: usize) -> Self {
        let story = story();
        let expected = story.expected(chapters).unwrap();
        Self(story, expected)
    }

    /// Names of who reaches a port of somebody, over both families, or the test fails.
    fn reach(&self, name: &str, port: u16) -> Vec<String> {
        let Self(story, expected) = self;
        let column =
            story.doors.iter().position(|door| door.owner.name == name && door.port == port).unwrap();
        let mut names = Vec::new();
        for (row, actor) in story.actors.iter().enumerate() {
            let cell = expected.get((row, column));
            assert_eq!(cell.ipv4, cell.ipv6, "{} to {name}:{port}", actor.name);
            if cell.ipv4 == Some(Reach::Open) {
                names.push(actor.name.clone());
            }
        }
        names
    }
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
    let mut all = world(CHAPTERS.len()).unwrap();
    let (name, text) = NAMES;
    all.take_all(&manifests::parse(Path::new(name), text).unwrap());
    assert_eq!(all.warnings, []);
}

#[test]
fn without_policies_everybody_reaches_everybody() {
    let story = story();
    assert!(story.expected(1).unwrap().iter().all(|(_, cell)| cell.ipv4 != Some(Reach::Blocked)));
}

#[test]
fn the_policies_open_exactly_what_the_shop_needs() {
    let says = Says::after(2);
    assert_eq!(says.reach("shop/web", 8080), ["customer"]);
    assert_eq!(says.reach("shop/api", 8080), ["shop/web"]);
    assert_eq!(says.reach("shop/api", 9100), ["ops/prometheus", "ops/grafana"]);
    assert_eq!(says.reach("shop/db", 5432), ["shop/api", "shop/worker"]);
    assert_eq!(says.reach("shop/kv", 6379), [""; 0]);
    assert_eq!(says.reach("shop/kv", 7003), ["shop/api"]);
    assert_eq!(says.reach("ops/prometheus", 9090), ["ops/grafana"]);
    assert_eq!(says.reach("kube-system/dns", 53).len(), 12);
    let bank = says.reach("bank", 443);
    assert!(bank.contains(&"shop/worker".to_owned()) && !bank.contains(&"shop/web".to_owned()));
}

#[test]
fn the_edits_shut_worker_out_and_let_bob_in() {
    let (before, after) = (Says::after(2), Says::after(3));
    assert_eq!(after.reach("shop/db", 5432), ["shop/api"]);
    assert_eq!(after.reach("shop/api", 8080), ["shop/web", "guest/bob"]);
    assert_eq!(before.1.differing(&after.1).len(), 2);
}

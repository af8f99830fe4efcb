//! A world in which the readings differ, made as small as the difference allows.
use std::fmt::Write as _;

use podwall_testkit::objects::manifest;
use serde_json::Value;

use super::ground::Ground;
use super::question::Question;

/// Takes one object after the other away, and then rules of policies, as long as the same question still gets
/// different answers. Answers what is left, and the rulesets that lead to it.
pub fn shrink(ground: &mut Ground, objects: &[Value], question: &Question) -> String {
    let mut world = objects.to_vec();
    let mut found = question.clone();
    let mut turn = 1 << 40;
    let mut index = 0;
    while index < world.len() {
        let smaller = smaller(&world, index).into_iter().find_map(|candidate| {
            turn += 1;
            ground.settle(&candidate, turn);
            let again = ground.question(&candidate, question.flow.clone(), question.way);
            ground.ask(&[again]).pop().map(|still| (candidate, still))
        });
        match smaller {
            Some((candidate, still)) => (world, found) = (candidate, still),
            None => index += 1,
        }
    }
    ground.settle(&world, turn + 1);
    let mut text = format!("{found}\n{}", manifest(&world));
    for (name, filter) in &ground.rig.filters {
        let listing = podwall_ruleset::text::nft_listing(filter.standing());
        write!(text, "\n{name}:\n{listing}").expect("text grows");
    }
    text
}

/// Worlds that lack the object, or of a policy one rule, or of a rule one item. Nodes stay.
fn smaller(world: &[Value], index: usize) -> Vec<Vec<Value>> {
    let object = &world[index];
    if object["kind"] == "Node" {
        return Vec::new();
    }
    let mut without = world.to_vec();
    without.remove(index);
    let mut found = vec![without];
    let replaced = |changed: Value| {
        let mut world = world.to_vec();
        world[index] = changed;
        world
    };
    for direction in ["ingress", "egress"] {
        let rules = object["spec"][direction].as_array().map_or(0, Vec::len);
        for rule in 0..rules {
            found.push(replaced(less(object, &["spec", direction], rule)));
            for list in ["from", "to", "ports"] {
                let items = object["spec"][direction][rule][list].as_array().map_or(0, Vec::len);
                let fewer = (0..items).filter(|_| items > 1).map(|item| {
                    let mut object = object.clone();
                    object["spec"][direction][rule][list].as_array_mut().expect("a list").remove(item);
                    replaced(object)
                });
                found.extend(fewer);
            }
        }
    }
    found
}

fn less(object: &Value, path: &[&str; 2], item: usize) -> Value {
    let mut object = object.clone();
    object[path[0]][path[1]].as_array_mut().expect("a list").remove(item);
    object
}

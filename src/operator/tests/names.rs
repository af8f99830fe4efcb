//! Names of DomainPolicies: what nodes say of them, added up.
use podwall_crd::node_report::{NameReport, NameTrouble};

use super::super::object::Names;
use super::*;

fn policy() -> Key {
    Key { kind: ReportedKind::DomainPolicy, namespace: "shop".to_owned(), name: "one".to_owned() }
}

fn world(spec: &Value) -> World {
    let mut world = World::new(&json!({"addresses": ["192.0.2.1"]}));
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "podwall.dev/v1alpha1", "kind": "DomainPolicy",
        "metadata": {
            "namespace": "shop", "name": "one", "uid": "uid-one", "generation": 1, "resourceVersion": "100",
        },
        "spec": spec,
    }))
    .unwrap();
    let (key, object) = Object::read(object, None).unwrap();
    assert_eq!(key, policy());
    world.ledger.put(key, object, world.clock.steady);
    world
}

fn report(world: &mut World, node: &str, names: &[(&str, NameTrouble)]) {
    let mark = Mark { kind: ReportedKind::DomainPolicy, resource_version: "100".to_owned(), objects: 1 };
    let name = |(name, trouble): &(&str, NameTrouble)| NameReport {
        namespace: "shop".to_owned(),
        policy: "one".to_owned(),
        name: (*name).to_owned(),
        trouble: *trouble,
    };
    let names = names.iter().map(name).collect();
    world.fleet.report(
        node,
        version(200),
        NodeReportSpec { marks: vec![mark], names, ..NodeReportSpec::default() },
    );
}

/// Type, status and reason of every condition, and the names.
fn told(world: &mut World) -> (Vec<String>, Names) {
    world.pass(60).settle();
    let status = world.ledger.get(&policy()).unwrap().status.clone();
    let conditions = status.common.conditions.into_iter();
    (
        conditions.map(|told| format!("{} {:?} {}", told.kind, told.status, told.reason)).collect(),
        status.names,
    )
}

#[test]
fn a_policy_of_names_tells_which_never_resolved_and_which_are_at_their_cap_on_any_node() {
    let mut world = world(&json!({"podSelector": {}, "egress": [{"domains": ["*.example.com"]}]}));
    for node in ["node-a", "node-b", "node-c"] {
        report(&mut world, node, &[]);
    }
    let fine = ["Accepted True Understood", "Enforced True OnEveryNode", "Resolved True EveryName"];
    assert_eq!(told(&mut world), (fine.map(str::to_owned).to_vec(), Names::default()));
    report(&mut world, "node-a", &[("b.example.com", NameTrouble::AtCapacity)]);
    report(&mut world, "node-b", &[("typo.example.com", NameTrouble::Unresolved)]);
    report(&mut world, "node-c", &[("typo.example.com", NameTrouble::Unresolved)]);
    let (conditions, names) = told(&mut world);
    assert_eq!(conditions[2], "Resolved False Unresolved");
    let wanted = Names {
        unresolved: vec!["typo.example.com".to_owned()],
        at_capacity: vec!["b.example.com".to_owned()],
    };
    assert_eq!(names, wanted);
    report(&mut world, "node-b", &[]);
    world.fleet.report_gone("node-c");
    assert_eq!(told(&mut world).0[2], "Resolved False AtCapacity");
    report(&mut world, "node-a", &[]);
    assert_eq!(told(&mut world).1, Names::default());
}

#[test]
fn a_policy_of_names_that_is_not_understood_is_not_accepted() {
    let mut world = world(&json!({"podSelector": {}, "egres": []}));
    assert_eq!(told(&mut world).0[0], "Accepted False NotUnderstood");
}

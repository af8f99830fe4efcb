//! Who is let in, or may be reached (B8 to B21).
use super::under;

/// A policy for red/bee that admits what the list of peers (YAML) says.
fn to_bee(from: &str) -> String {
    format!(
        "{{podSelector: {{matchLabels: {{kind: bee}}}}, policyTypes: [Ingress], ingress: [{{from: {from}}}]}}"
    )
}

#[test]
fn a_pod_label_admits_pods_of_the_own_namespace_only() {
    let spec = to_bee("[{podSelector: {matchLabels: {kind: ant}}}]");
    under(&[("red/bee", &spec)], |hop| !hop.to.is("red/bee") || hop.from.is("red/ant"));
}

#[test]
fn an_empty_namespace_selector_admits_every_pod_and_nobody_else() {
    let spec = to_bee("[{namespaceSelector: {}}]");
    under(&[("red/bee", &spec)], |hop| !hop.to.is("red/bee") || hop.from.is_pod());
}

#[test]
fn a_namespace_label_admits_its_pods_and_not_even_the_own_namespace() {
    let spec = to_bee("[{namespaceSelector: {matchLabels: {colour: blue}}}]");
    under(&[("red/bee", &spec)], |hop| !hop.to.is("red/bee") || hop.from.lives_in("blue"));
}

#[test]
fn a_pod_expression_means_what_the_equality_means() {
    let spec = to_bee("[{podSelector: {matchExpressions: [{key: kind, operator: In, values: [ant]}]}}]");
    under(&[("red/bee", &spec)], |hop| !hop.to.is("red/bee") || hop.from.is("red/ant"));
}

#[test]
fn a_namespace_expression_means_what_the_equality_means() {
    let spec =
        to_bee("[{namespaceSelector: {matchExpressions: [{key: colour, operator: In, values: [blue]}]}}]");
    under(&[("red/bee", &spec)], |hop| !hop.to.is("red/bee") || hop.from.lives_in("blue"));
}

const NOT_BLUE: &str = "{matchExpressions: [{key: colour, operator: NotIn, values: [blue, red]}]}";

#[test]
fn of_two_list_items_either_suffices() {
    let spec = to_bee(&format!(
        "[{{namespaceSelector: {NOT_BLUE}}}, {{podSelector: {{matchLabels: {{kind: ant}}}}}}]"
    ));
    under(&[("red/bee", &spec)], |hop| {
        !hop.to.is("red/bee") || hop.from.lives_in("green") || hop.from.is("red/ant")
    });
}

#[test]
fn one_item_with_two_selectors_needs_both() {
    let spec =
        to_bee(&format!("[{{namespaceSelector: {NOT_BLUE}, podSelector: {{matchLabels: {{kind: ant}}}}}}]"));
    under(&[("red/bee", &spec)], |hop| !hop.to.is("red/bee") || hop.from.is("green/ant"));
}

#[test]
fn both_selectors_may_be_expressions_with_several_values() {
    let spec = to_bee(
        "[{namespaceSelector: {matchExpressions: [{key: colour, operator: NotIn, values: [red]}]},
           podSelector: {matchExpressions: [{key: kind, operator: In, values: [ant, cat]}]}}]",
    );
    under(&[("red/bee", &spec)], |hop| {
        let listed = hop.from.is_called("ant") || hop.from.is_called("cat");
        !hop.to.is("red/bee") || (listed && !hop.from.lives_in("red"))
    });
}

#[test]
fn of_several_pod_items_any_listed_pod_connects() {
    let spec =
        to_bee("[{podSelector: {matchLabels: {kind: ant}}}, {podSelector: {matchLabels: {kind: cat}}}]");
    under(&[("red/bee", &spec)], |hop| {
        !hop.to.is("red/bee") || hop.from.is("red/ant") || hop.from.is("red/cat")
    });
}

#[test]
fn one_namespace_and_one_pod_label_name_exactly_one_pod() {
    let spec = to_bee(
        "[{namespaceSelector: {matchLabels: {colour: green}}, podSelector: {matchLabels: {kind: cat}}}]",
    );
    under(&[("red/bee", &spec)], |hop| !hop.to.is("red/bee") || hop.from.is("green/cat"));
}

#[test]
fn an_empty_pod_selector_admits_the_own_namespace() {
    let spec = to_bee("[{podSelector: {}}]");
    under(&[("red/bee", &spec)], |hop| !hop.to.is("red/bee") || hop.from.lives_in("red"));
}

#[test]
fn a_namespace_is_picked_by_its_automatic_name_label() {
    let spec = to_bee("[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: green}}}]");
    under(&[("red/bee", &spec)], |hop| !hop.to.is("red/bee") || hop.from.lives_in("green"));
}

#[test]
fn egress_to_all_namespaces_but_one_reaches_only_those() {
    let spec =
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchExpressions:
        [{key: kubernetes.io/metadata.name, operator: NotIn, values: [green]}]}}]}]}";
    under(&[("red/out", spec)], |hop| {
        !hop.from.lives_in("red") || (hop.to.is_pod() && !hop.to.lives_in("green"))
    });
}

#[test]
fn egress_to_one_pod_of_another_namespace_reaches_only_that_pod() {
    let spec = "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Egress], egress: [{to: [{
        namespaceSelector: {matchLabels: {colour: blue}}, podSelector: {matchLabels: {kind: bee}}}]}]}";
    under(&[("red/out", spec)], |hop| !hop.from.is("red/ant") || hop.to.is("blue/bee"));
}

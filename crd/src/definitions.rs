//! The CustomResourceDefinitions, as the chart ships them.
//!
//! Owns what the derived schema needs on top: rules on addresses, and that `null` equals absent (semantics D5), which
//! an API server gives to fields that are not nullable.
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::Schema;
use serde_json::{Value, json};

use crate::{Ban, DomainPolicy, Ktban, NodeReport, ServiceExposure};

/// Every definition, in the order the chart has them.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![Ban::crd(), DomainPolicy::crd(), Ktban::crd(), NodeReport::crd(), ServiceExposure::crd()]
}

/// A definition as it is written to a file: nothing nullable, no number formats that only Rust has.
pub fn document(definition: &CustomResourceDefinition) -> Value {
    let mut document = serde_json::to_value(definition).unwrap_or(Value::Null);
    tidy(&mut document);
    document
}

fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("nullable");
            if let Some(Value::Array(options)) = map.get_mut("enum") {
                options.retain(|option| !option.is_null());
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Items that are addresses or CIDRs without bits beyond the prefix.
pub(crate) fn addresses_only(list: &mut Schema) {
    rule(
        list.get_mut("items"),
        "isIP(self) || (isCIDR(self) && cidr(self) == cidr(self).masked())",
        "must be an IP address, or a CIDR without bits beyond its prefix",
    );
}

/// Items that are CIDRs without bits beyond the prefix.
pub(crate) fn cidrs_only(list: &mut Schema) {
    rule(list.get_mut("items"), CIDR, CIDR_WORDS);
}

/// Items that are names and no addresses, which the pattern of names alone would take.
pub(crate) fn names_only(list: &mut Schema) {
    rule(list.get_mut("items"), "!isIP(self)", "must be a domain name; addresses go to cidrs");
}

/// Items that are addresses, or the word for the cluster's DNS.
pub(crate) fn dns_servers_only(list: &mut Schema) {
    let host = "self == 'ClusterDNS' || (isIP(self) && (ip(self).isGlobalUnicast() \
                || (ip(self).family() == 4 && ip(self).isLinkLocalUnicast())))";
    rule(list.get_mut("items"), host, "must be ClusterDNS or an IP address of another machine");
}

/// A string that is a CIDR without bits beyond the prefix.
pub(crate) fn cidr_only(string: &mut Schema) {
    let validations = json!([{"rule": CIDR, "message": CIDR_WORDS}]);
    string.insert("x-kubernetes-validations".to_owned(), validations);
}

const CIDR: &str = "isCIDR(self) && cidr(self) == cidr(self).masked()";
const CIDR_WORDS: &str = "must be a CIDR without bits beyond its prefix";

fn rule(schema: Option<&mut Value>, rule: &str, message: &str) {
    if let Some(Value::Object(schema)) = schema {
        schema.insert("x-kubernetes-validations".to_owned(), json!([{"rule": rule, "message": message}]));
    }
}

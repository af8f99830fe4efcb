//! `nft -j`.
use std::net::IpAddr;
use std::process::{Command, Stdio};

use ipnetwork::IpNetwork;
use podwall_lab::Netns;
use serde_json::Value;

use super::view::{Told, View, span};

/// Everything in our table.
pub fn read(netns: &Netns) -> View {
    let mut command = Command::new("nft");
    command.args(["-j", "list", "table", "inet", "podwall"]).stdout(Stdio::piped());
    let child = netns.spawn(&mut command).expect("nft is installed");
    let output = child.wait_with_output().expect("nft ends");
    let listed: Value = serde_json::from_slice(&output.stdout).expect("nft prints JSON");
    let mut view = View::default();
    for object in listed["nftables"].as_array().expect("a list") {
        for kind in ["set", "map"] {
            let set = &object[kind];
            // Only what packets fill forgets.
            if set.is_object() && set["timeout"].is_null() {
                let elements = set["elem"].as_array().into_iter().flatten().map(element).collect();
                view.sets.insert(text(&set["name"]), elements);
            }
        }
        if object["chain"].is_object() {
            view.chains.entry(text(&object["chain"]["name"])).or_default();
        }
        if object["rule"].is_object() {
            view.chains.entry(text(&object["rule"]["chain"])).or_default().push(rule(&object["rule"]));
        }
    }
    view
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// A plain element, or a pair of key and verdict.
fn element(element: &Value) -> (String, String) {
    match element.as_array() {
        Some(pair) => (key(&pair[0]), verdict(&pair[1]).expect("a verdict")),
        None => (key(element), String::new()),
    }
}

fn key(value: &Value) -> String {
    match value["concat"].as_array() {
        Some(parts) => parts.iter().map(part).collect::<Vec<_>>().join(" . "),
        None => part(value),
    }
}

fn part(value: &Value) -> String {
    let (first, last) = ends(value);
    span(&first, &last)
}

fn ends(value: &Value) -> (String, String) {
    if let Some(range) = value["range"].as_array() {
        return (part(&range[0]), part(&range[1]));
    }
    if let Some(prefix) = value["prefix"].as_object() {
        let address: IpAddr = text(&prefix["addr"]).parse().expect("an address");
        let length = u8::try_from(prefix["len"].as_u64().expect("a number")).expect("a length");
        let block = IpNetwork::new(address, length).expect("a block");
        let last = match block {
            IpNetwork::V4(block) => IpAddr::from(block.broadcast()),
            IpNetwork::V6(block) => IpAddr::from(block.broadcast()),
        };
        return (address.to_string(), last.to_string());
    }
    let word = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    (word.clone(), word)
}

fn verdict(value: &Value) -> Option<String> {
    let (word, target) = value.as_object()?.iter().next()?;
    match word.as_str() {
        "accept" | "drop" | "return" => Some(word.clone()),
        "jump" | "goto" => Some(format!("{word} {}", text(&target["target"]))),
        _ => None,
    }
}

fn rule(rule: &Value) -> Told {
    let mut told = Told::default();
    for statement in rule["expr"].as_array().expect("a list") {
        let looked = [&statement["match"]["right"], &statement["vmap"]["data"]];
        let names = looked.into_iter().filter_map(|set| set.as_str()?.strip_prefix('@').map(str::to_owned));
        told.looks.extend(names);
        told.gives.extend(verdict(statement));
    }
    told
}

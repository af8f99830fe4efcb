//! `podwall render`: the ruleset a node would get, as text. Touches no kernel.
use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use podwall_engine::model::ban::Mode;
use podwall_engine::readers::{self, Book};
use podwall_engine::{Engine, NodeName, Plan};
use podwall_iptables::Listing;
use podwall_ruleset::Ruleset;
use podwall_ruleset::text::nft_listing;
use serde_json::{Value, json};

use super::objects::{ObjectSource, World};
use super::planning::PlanFlags;
use super::{CliError, CliResult, Exit, output};

/// Print the ruleset a node gets, without touching any kernel
#[derive(Debug, Args)]
#[command(
    long_about = "Print the ruleset a node gets, without touching any kernel.\n\n\
        The same input always gives the same bytes, so two renders can be compared with diff(1). What could not be \
        understood is told on standard error and isolates what it is about. Sets of what pods learn for domain names \
        are empty, as on a node where nobody has asked yet; lines at the top say whose they are.",
    after_help = "Examples:\n  \
        podwall render manifests/ --node worker-1\n  \
        kubectl get no,ns,po,netpol -A -o yaml | podwall render - --all-nodes\n  \
        kubectl get no,ns,po,svc,netpol,domainpolicies -A -o yaml | podwall render - --all-nodes\n  \
        podwall render manifests/ --node worker-1 --backend iptables\n  \
        podwall render --node worker-1 | diff - <(podwall render --node worker-1 manifests/)"
)]
pub struct Render {
    /// The node whose ruleset is wanted
    #[arg(long, value_name = "NAME", required_unless_present = "all_nodes")]
    node: Option<String>,
    /// Every node, one after the other
    #[arg(long, conflicts_with = "node")]
    all_nodes: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// In whose language
    #[arg(long, value_enum, default_value_t, value_name = "NAME")]
    backend: Language,
    #[command(flatten)]
    planning: PlanFlags,
    #[command(flatten)]
    objects: ObjectSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// The text that programs of the packet filter read
    #[default]
    #[value(alias = "nft")]
    Text,
    /// One JSON document: ruleset, where each rule comes from, warnings
    Json,
}

/// A packet filter's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Language {
    /// As `nft list table inet podwall` would show it
    #[default]
    Nftables,
    /// For `ipset restore`, `iptables-restore --noflush` and `ip6tables-restore --noflush`
    Iptables,
}

impl Language {
    fn text(self, ruleset: &Ruleset) -> Result<String, CliError> {
        match self {
            Self::Nftables => Ok(nft_listing(ruleset)),
            Self::Iptables => Ok(fallback(ruleset)?.to_string()),
        }
    }

    /// The same by the names of those who read it.
    fn texts(self, ruleset: &Ruleset) -> Result<Value, CliError> {
        match self {
            Self::Nftables => Ok(json!({ "nft": nft_listing(ruleset) })),
            Self::Iptables => {
                let Listing { ipset, iptables, ip6tables } = fallback(ruleset)?;
                Ok(json!({ "ipset": ipset, "iptables": iptables, "ip6tables": ip6tables }))
            }
        }
    }
}

fn fallback(ruleset: &Ruleset) -> Result<Listing, CliError> {
    podwall_iptables::listing(ruleset).map_err(|error| CliError::backend("writing rules for iptables", error))
}

impl Render {
    /// Runs it.
    pub fn run(self) -> CliResult {
        let world = self.objects.load()?;
        let nodes = self.nodes(&world)?;
        let options = self.planning.options();
        let plans: Vec<Page> = nodes
            .into_iter()
            .map(|node| {
                let plan = Engine::plan(&world.cluster, &node, &options);
                let book = readers::of_node(&world.cluster, &node, &options);
                Page { node, plan, book }
            })
            .collect();
        output::warn(&world.warnings);
        match self.format {
            Format::Text => {
                let all = plans.iter().map(|page| listing(page, self.backend));
                output::answer(&all.collect::<Result<String, _>>()?)?;
            }
            Format::Json => output::answer_json(&document(&world, &plans, self.backend)?)?,
        }
        Ok(Exit::Done)
    }

    fn nodes(&self, world: &World) -> Result<Vec<NodeName>, CliError> {
        // Manifests may leave out Node objects; a node that has pods is one all the same.
        let declared = world.cluster.nodes().map(|node| node.name.clone());
        let inhabited = world.cluster.pods().filter_map(|pod| pod.node.clone());
        let known: BTreeSet<NodeName> = declared.chain(inhabited).collect();
        let names: Vec<String> = known.iter().map(ToString::to_string).collect();
        match &self.node {
            _ if known.is_empty() => Err(CliError::Usage(
                "there is no node: give Node objects, or pods with spec.nodeName".to_owned(),
            )),
            None => Ok(known.into_iter().collect()),
            Some(name) => match known.get(&NodeName::from(name.as_str())) {
                Some(node) => Ok(vec![node.clone()]),
                None => Err(CliError::Usage(format!("there is no node {name}; known: {}", names.join(", ")))),
            },
        }
    }
}

/// What there is to print of a node.
struct Page {
    node: NodeName,
    plan: Plan,
    book: Book,
}

fn listing(Page { node, plan, book }: &Page, language: Language) -> Result<String, CliError> {
    let conditions: String = plan.conditions.iter().map(|condition| format!("# {condition}\n")).collect();
    let names = book.lists.iter().map(|(list, names)| {
        let policies: Vec<&str> = names.policies.iter().map(String::as_str).collect();
        let (patterns, policies) = (names.patterns.join(", "), policies.join(", "));
        format!("# d4_{list}, d6_{list}: what pods learn for {patterns} ({policies})\n")
    });
    let names: String = names.collect();
    Ok(format!("# node {node}\n{conditions}{names}{}", language.text(&plan.ruleset)?))
}

fn document(world: &World, plans: &[Page], language: Language) -> Result<Value, CliError> {
    let warnings: Vec<String> = world.warnings.iter().map(ToString::to_string).collect();
    let nodes = plans.iter().map(|page| node_document(page, language));
    Ok(json!({ "nodes": nodes.collect::<Result<Vec<Value>, _>>()?, "warnings": warnings }))
}

fn node_document(Page { node, plan, book }: &Page, language: Language) -> Result<Value, CliError> {
    let chains = plan.origins.chains.iter().map(|(chain, origin)| {
        let policies: Vec<String> = origin.policies.iter().map(ToString::to_string).collect();
        let mode = match origin.mode {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
        };
        json!({
            "chain": chain.as_str(),
            "direction": origin.direction.to_string(),
            "mode": mode,
            "policies": policies,
        })
    });
    let rules = plan.origins.rules.iter().map(|(rule, origin)| {
        json!({
            "rule": rule.to_string(),
            "policy": origin.policy.to_string(),
            "direction": origin.direction.to_string(),
            "index": origin.index,
        })
    });
    let mut document = json!({
        "node": node.to_string(),
        "chains": chains.collect::<Vec<_>>(),
        "rules": rules.collect::<Vec<_>>(),
        "names": book.lists,
        "readers": book.readers,
        "conditions": plan.conditions.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    if let (Value::Object(all), Value::Object(texts)) = (&mut document, language.texts(&plan.ruleset)?) {
        all.extend(texts);
    }
    Ok(document)
}

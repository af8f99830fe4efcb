//! Addresses of API servers, which are never banned (decision B1): those behind the Service `kubernetes`, and the one
//! this agent was told to ask.
//!
//! They change when control planes do, so they are looked at now and then; what cannot be found out stays as it was.
//! Only the one object that holds them may be listed (`metadata.name=kubernetes` in namespace `default`, written by the
//! API servers themselves: `pkg/controlplane/reconcilers`).
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use podwall_engine::Change;
use serde_json::Value;

use super::input::{Feed, Input, Inputs, Stopping};
use super::watch::words;
use crate::telemetry::health::{Concern, Health};
use crate::telemetry::server::Telemetry;

/// How often they are looked at.
const PERIOD: Duration = Duration::from_secs(30);
/// What follows from not knowing.
const UNPROTECTED: &str = "addresses of API servers cannot be read, so a ban may cut this node off from those that are \
                           not known yet";
/// How long an answer may take, for the first bans wait for it; and how soon it is tried again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Host and port of the server this agent asks.
#[derive(Debug, Clone, Default)]
pub struct Server(Option<(String, u16)>);

impl Server {
    /// That of the server a client asks.
    pub fn of(config: &kube::Config) -> Self {
        let url = &config.cluster_url;
        let host = url.host().map(|host| host.trim_matches(['[', ']']).to_owned());
        Self(host.map(|host| (host, url.port_u16().unwrap_or(443))))
    }

    /// Its addresses, or why they could not be found out.
    async fn addresses(&self) -> Result<BTreeSet<IpAddr>, String> {
        let Some((host, port)) = &self.0 else { return Ok(BTreeSet::new()) };
        match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host.as_str(), *port))).await {
            Ok(Ok(found)) => Ok(found.map(|socket| socket.ip().to_canonical()).collect()),
            Ok(Err(error)) => Err(format!("looking up {host}: {error}")),
            Err(_) => Err(format!("looking up {host}: no answer")),
        }
    }
}

/// Tells the planner, until the agent stops.
pub async fn run(client: Client, server: Server, inputs: Inputs, telemetry: Telemetry) -> Stopping {
    let Err(stopping) = follow(client, server, inputs, &telemetry.health).await;
    stopping
}

async fn follow(
    client: Client,
    server: Server,
    inputs: Inputs,
    health: &Health,
) -> Result<std::convert::Infallible, Stopping> {
    let (mut told, mut known) = (None, Known::default());
    loop {
        let troubles = known.look(behind_service(&client).await, server.addresses().await);
        let pause = if troubles.is_empty() { PERIOD } else { PATIENCE };
        let words = (!troubles.is_empty()).then(|| format!("{UNPROTECTED}: {}", troubles.join("; ")));
        health.set(Concern::ApiServers, words);
        let all = known.all();
        if told.as_ref() != Some(&all) {
            told = Some(all.clone());
            let change = Change::ApiServers(all);
            inputs.send(Input::Object { change, warnings: Vec::new() }).await?;
        }
        inputs.send(Input::Complete(Feed::ApiServers)).await?;
        tokio::time::sleep(pause).await;
    }
}

/// What was found out last.
#[derive(Debug, Default)]
struct Known {
    behind: BTreeSet<IpAddr>,
    asked: BTreeSet<IpAddr>,
}

impl Known {
    /// Takes in a look at those behind the Service and at the one we ask. Who could not be found out is protected as
    /// before; answers why not.
    fn look(
        &mut self,
        behind: Result<BTreeSet<IpAddr>, String>,
        asked: Result<BTreeSet<IpAddr>, String>,
    ) -> Vec<String> {
        let mut troubles = Vec::new();
        for (known, found) in [(&mut self.behind, behind), (&mut self.asked, asked)] {
            match found {
                Ok(found) => *known = found,
                Err(why) => troubles.push(why),
            }
        }
        troubles
    }

    fn all(&self) -> BTreeSet<IpAddr> {
        &self.behind | &self.asked
    }
}

/// Those behind the Service, or why they could not be found out.
async fn behind_service(client: &Client) -> Result<BTreeSet<IpAddr>, String> {
    let resource = ApiResource {
        group: "discovery.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "discovery.k8s.io/v1".to_owned(),
        kind: "EndpointSlice".to_owned(),
        plural: "endpointslices".to_owned(),
    };
    let slices: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let asked = ListParams::default().fields("metadata.name=kubernetes");
    match tokio::time::timeout(PATIENCE, slices.list(&asked)).await {
        Ok(Ok(list)) => Ok(list.items.iter().flat_map(|slice| addresses(&slice.data)).collect()),
        Ok(Err(error)) => Err(words(&error)),
        Err(_) => Err("no answer".to_owned()),
    }
}

fn addresses(slice: &Value) -> Vec<IpAddr> {
    let endpoints = slice.get("endpoints").and_then(Value::as_array).into_iter().flatten();
    let all = endpoints.filter_map(|endpoint| endpoint.get("addresses")?.as_array()).flatten();
    all.filter_map(|address| address.as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_endpoint_of_both_families_is_an_api_server() {
        let slice = json!({"endpoints": [{"addresses": ["192.0.2.1", "192.0.2.2"]}, {"addresses": ["2001:db8::1", "x"]}, {}]});
        let all: Vec<String> = addresses(&slice).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    }

    #[test]
    fn a_server_that_cannot_be_looked_up_just_now_stays_protected() {
        let set = |text: &str| BTreeSet::from([text.parse().unwrap()]);
        let mut known = Known::default();
        assert_eq!(known.look(Ok(set("192.0.2.1")), Ok(set("192.0.2.2"))), Vec::<String>::new());
        assert_eq!(known.look(Ok(set("192.0.2.3")), Err("no DNS".to_owned())), ["no DNS"]);
        assert_eq!(known.all(), &set("192.0.2.2") | &set("192.0.2.3"));
        known.look(Err("no answer".to_owned()), Ok(set("192.0.2.4")));
        assert_eq!(known.all(), &set("192.0.2.3") | &set("192.0.2.4"));
    }

    #[test]
    fn a_server_is_named_by_its_url() {
        let named = |url: &str| Server::of(&kube::Config::new(url.parse().unwrap())).0.unwrap();
        assert_eq!(named("https://10.0.0.1:6443/"), ("10.0.0.1".to_owned(), 6443));
        assert_eq!(named("https://[fd00::1]"), ("fd00::1".to_owned(), 443));
    }
}

//! One look at a live cluster: every object podwall reads, as raw JSON.
//!
//! Lists page by page, so that neither the server nor we hold one answer of a large cluster whole.
use std::path::Path;

use kube::Client;
use kube::api::{ListParams, Request};
use serde_json::Value;

use crate::cli::CliError;
use crate::cli::cluster::{block_on, config, refused};
use crate::cli::error::Cause;

/// What is listed: path, kind, API version. Namespaces go before the rest only for the reader's eye.
const COLLECTIONS: [(&str, &str, &str); 8] = [
    ("/api/v1/nodes", "Node", "v1"),
    ("/api/v1/namespaces", "Namespace", "v1"),
    ("/api/v1/pods", "Pod", "v1"),
    ("/apis/networking.k8s.io/v1/networkpolicies", "NetworkPolicy", "networking.k8s.io/v1"),
    ("/api/v1/services", "Service", "v1"),
    ("/apis/podwall.dev/v1alpha1/bans", "Ban", "podwall.dev/v1alpha1"),
    ("/apis/podwall.dev/v1alpha1/serviceexposures", "ServiceExposure", "podwall.dev/v1alpha1"),
    ("/apis/k8s.sers.dev/v1alpha1/ktbans", "Ktban", "k8s.sers.dev/v1alpha1"),
];

/// Objects of a page: what client-go asks for by default.
const PAGE: u32 = 500;

/// Every object podwall reads.
pub fn list(kubeconfig: Option<&Path>, context: Option<String>) -> Result<Vec<Value>, CliError> {
    block_on(async {
        let config = config(kubeconfig, context).await?;
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| refused("reading the kubeconfig", error))?;
        let mut objects = Vec::new();
        for (path, kind, version) in COLLECTIONS {
            let listed = pages(&client, path)
                .await
                .or_else(|error| if is_unknown(&error) { Ok(Vec::new()) } else { Err(error) })
                .map_err(|error| refused(&format!("listing {path} at {server}"), error))?;
            objects.extend(listed.into_iter().map(|item| named(item, kind, version)));
        }
        Ok(objects)
    })
}

async fn pages(client: &Client, path: &str) -> Result<Vec<Value>, Cause> {
    let mut items = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let mut page: Value = client.request(Request::new(path).list(&params)?).await?;
        if let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) {
            items.extend(found);
        }
        match page.pointer("/metadata/continue").and_then(Value::as_str) {
            Some(token) if !token.is_empty() => params = params.continue_token(token),
            Some(_) | None => return Ok(items),
        }
    }
}

/// Does the API server not know the kind? Not every cluster has ours, or those of kubetables.
fn is_unknown(error: &Cause) -> bool {
    error.downcast_ref().is_some_and(|error| matches!(error, kube::Error::Api(status) if status.code == 404))
}

/// Items of a typed list leave out what the list says for all of them.
fn named(mut item: Value, kind: &str, version: &str) -> Value {
    if let Value::Object(fields) = &mut item {
        fields.insert("kind".to_owned(), kind.into());
        fields.insert("apiVersion".to_owned(), version.into());
    }
    item
}

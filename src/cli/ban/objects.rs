//! `Ban` objects at the API server: applying, listing, deleting, and what its refusals mean.
use axum::http::{Request, header};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::rfc2822;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Client, ResourceExt as _};
use podwall_crd::ban::{Ban, BanSpec};
use serde_json::json;

use crate::cli::CliError;
use crate::cli::cluster::{ClusterFlags, refused};

/// Label of the bans that belong together: those of one `import`, or of one `--name`.
pub const SET: &str = "podwall.dev/set";
/// How the API server knows fields that we wrote.
const MANAGER: &str = "podwall-ban";
/// Objects of a page: a ban of 1,000 addresses is some 40 kB.
const PAGE: u32 = 200;

/// The bans of a cluster.
#[derive(Clone)]
pub struct Bans {
    client: Client,
    api: Api<Ban>,
}

impl Bans {
    /// Of the cluster the flags name.
    pub async fn at(cluster: &ClusterFlags) -> Result<Self, CliError> {
        let client = cluster.client().await?;
        Ok(Self { api: Api::all(client.clone()), client })
    }

    /// Makes it so, whether the object is there or not; only the fields we name become ours.
    pub async fn apply(&self, name: &str, set: &str, spec: &BanSpec) -> Result<(), CliError> {
        let object = json!({
            "apiVersion": "podwall.dev/v1alpha1",
            "kind": "Ban",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": MANAGER, SET: set}},
            "spec": spec,
        });
        // Forced: who bans an address means it, whoever wrote the object before.
        let params = PatchParams::apply(MANAGER).force();
        let applied = self.api.patch(name, &params, &Patch::Apply(&object)).await;
        applied.map(drop).map_err(|error| told(&format!("writing ban {name}"), "patch", error))
    }

    /// Every ban, or those of a set.
    pub async fn list(&self, set: Option<&str>) -> Result<Vec<Ban>, CliError> {
        let mut params = ListParams::default().limit(PAGE);
        if let Some(set) = set {
            params = params.labels(&format!("{SET}={set}"));
        }
        let mut bans = Vec::new();
        loop {
            let page = self.api.list(&params).await.map_err(|error| told("listing bans", "list", error))?;
            bans.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(bans),
            }
        }
    }

    /// Deletes one; whether it was there.
    pub async fn delete(&self, name: &str) -> Result<bool, CliError> {
        match self.api.delete(name, &DeleteParams::default()).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 && is_object(&status) => Ok(false),
            Err(error) => Err(told(&format!("deleting ban {name}"), "delete", error)),
        }
    }

    /// Writes an object back that was read and changed, unless somebody changed it meanwhile.
    pub async fn replace(&self, ban: &Ban) -> Result<(), CliError> {
        let name = ban.name_any();
        let replaced = self.api.replace(&name, &PostParams::default(), ban).await;
        replaced.map(drop).map_err(|error| told(&format!("changing ban {name}"), "update", error))
    }

    /// What time it is for the cluster. Bans end by the clocks of nodes, and a laptop's may be off by minutes.
    pub async fn now(&self) -> Result<Timestamp, CliError> {
        let doing = "asking the API server for the time";
        let request = Request::get("/version").body(Body::empty()).map_err(|error| refused(doing, error))?;
        let response = self.client.send(request).await.map_err(|error| refused(doing, error))?;
        let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        let read = date.and_then(|date| rfc2822::parse(date).ok()).map(|zoned| zoned.timestamp());
        Ok(read.unwrap_or_else(Timestamp::now))
    }
}

/// Is it this object that is missing, not the whole kind?
fn is_object(status: &kube::core::Status) -> bool {
    status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}

/// The class of a refusal: each leaves something else to do.
fn told(doing: &str, verb: &'static str, error: kube::Error) -> CliError {
    let doing = doing.to_owned();
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            CliError::Forbidden { doing, verb, resource: "bans.podwall.dev" }
        }
        kube::Error::Api(status) if status.code == 404 && !is_object(&status) => {
            CliError::NotInstalled { doing }
        }
        kube::Error::Api(status) if status.code == 422 || status.code == 400 => {
            CliError::Input { doing, source: status.message.clone().into() }
        }
        error => refused(&doing, error),
    }
}

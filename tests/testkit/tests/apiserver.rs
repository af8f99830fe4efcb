//! The API server guard, against a real API server: what the other tests take for granted.

use std::error::Error;
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use podwall_testkit::apiserver::{ApiServer, PodPhase};

type Outcome = Result<(), Box<dyn Error>>;

const AGENT_RBAC: &str = include_str!("../../../charts/podwall/templates/agent-rbac.yaml");
const AGENT_NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: podwall}}";
const WEB: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: node-a
  containers: [{name: web, image: example.test/web}]
status: {phase: Running, podIP: 10.1.0.5, podIPs: [{ip: 10.1.0.5}]}
";

#[tokio::test]
async fn the_agent_may_list_and_watch_what_its_manifest_says_and_no_more() -> Outcome {
    let Some(server) = ApiServer::start_or_skip().await? else { return Ok(()) };
    let agent = server.agent_client().await?;
    let pods = Api::<Pod>::all(agent.clone());
    assert_eq!(code(pods.list(&ListParams::default()).await)?, 403, "nothing is allowed before the binding");

    server.apply_yaml(AGENT_NAMESPACE).await?;
    server.apply_yaml(&AGENT_RBAC.replace("{{ .Release.Namespace }}", "podwall")).await?;
    server.apply_yaml(WEB).await?;

    let all = ListParams::default();
    wait_until_allowed(&pods).await?;
    assert_eq!(pods.list(&all).await?.items.len(), 1);
    Api::<Namespace>::all(agent.clone()).list(&all).await?;
    Api::<Node>::all(agent.clone()).list(&all).await?;
    Api::<NetworkPolicy>::all(agent.clone()).list(&all).await?;
    drop(pods.watch(&WatchParams::default(), "0").await?);

    let shop = Api::<Pod>::namespaced(agent.clone(), "shop");
    assert_eq!(code(shop.get("web").await)?, 403, "get is not list");
    assert_eq!(code(Api::<Secret>::all(agent).list(&all).await)?, 403);
    Ok(())
}

#[tokio::test]
async fn a_test_can_play_the_kubelet_and_the_namespace_controller() -> Outcome {
    let Some(server) = ApiServer::start_or_skip().await? else { return Ok(()) };
    server.apply_yaml(WEB).await?;
    let shop = Api::<Pod>::namespaced(server.admin_client().await?, "shop");
    assert_eq!(phase_and_ips(&shop.get("web").await?), ("Running".to_owned(), vec!["10.1.0.5".to_owned()]));

    let both = ["10.1.0.9".parse()?, "fd00::9".parse()?];
    server.set_pod_status("shop", "web", PodPhase::Running, &both).await?;
    let ips = vec!["10.1.0.9".to_owned(), "fd00::9".to_owned()];
    assert_eq!(phase_and_ips(&shop.get("web").await?), ("Running".to_owned(), ips.clone()));

    server.begin_pod_deletion("shop", "web").await?;
    let leaving = shop.get("web").await?;
    assert!(leaving.metadata.deletion_timestamp.is_some());
    assert_eq!(phase_and_ips(&leaving), ("Running".to_owned(), ips), "a pod that leaves keeps its addresses");

    server.delete_yaml("{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}}").await?;
    assert_eq!(code(shop.get("web").await)?, 404);
    server.delete_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}").await?;
    let namespaces = Api::<Namespace>::all(server.admin_client().await?);
    assert_eq!(code(namespaces.get("shop").await)?, 404);
    Ok(())
}

#[tokio::test]
async fn an_outage_keeps_the_port_and_the_objects_and_can_expire_old_versions() -> Outcome {
    let Some(mut server) = ApiServer::start_or_skip().await? else { return Ok(()) };
    server.apply_yaml(WEB).await?;
    let url = server.url();
    let seen = Api::<Pod>::all(server.admin_client().await?).list(&ListParams::default()).await?;
    let version = seen.metadata.resource_version.ok_or("a list without a version")?;
    assert_eq!(first_event(&server, &version).await?, None, "the version is good before it is expired");

    server.stop_apiserver();
    let down = Api::<Pod>::all(server.admin_client().await?).list(&ListParams::default()).await;
    assert!(matches!(down, Err(kube::Error::HyperError(_) | kube::Error::Service(_))), "{down:?}");

    server.start_apiserver_again().await?;
    assert_eq!(server.url(), url);
    let after = Api::<Pod>::all(server.admin_client().await?).list(&ListParams::default()).await?;
    assert_eq!(after.items.len(), 1);

    server.expire_history().await?;
    assert_eq!(first_event(&server, &version).await?, Some(410));
    Ok(())
}

#[tokio::test]
async fn a_frozen_api_server_accepts_a_connection_and_does_not_answer() -> Outcome {
    let Some(server) = ApiServer::start_or_skip().await? else { return Ok(()) };
    let namespaces = Api::<Namespace>::all(server.admin_client().await?);
    namespaces.get("default").await?;

    server.freeze_apiserver()?;
    let answer = tokio::time::timeout(std::time::Duration::from_millis(500), namespaces.get("default")).await;
    assert!(answer.is_err(), "{answer:?}");

    server.thaw_apiserver()?;
    namespaces.get("default").await?;
    Ok(())
}

#[tokio::test]
async fn dropping_the_guard_leaves_no_process_and_no_file() -> Outcome {
    let Some(server) = ApiServer::start_or_skip().await? else { return Ok(()) };
    let directory =
        server.admin_kubeconfig().parent().map(Path::to_owned).ok_or("a kubeconfig in no directory")?;
    assert_eq!(processes_that_name(&directory).len(), 2, "etcd and kube-apiserver");

    drop(server);

    assert_eq!(processes_that_name(&directory), Vec::<PathBuf>::new());
    assert!(!directory.exists());
    Ok(())
}

/// RBAC is enforced from the API server's own watches, a moment behind what was written.
async fn wait_until_allowed(pods: &Api<Pod>) -> Outcome {
    for _ in 0..100 {
        if pods.list(&ListParams::default()).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Err("the agent's binding has no effect after 5 s".into())
}

/// The HTTP code of a refusal, 200 for none; an error when nobody answered.
fn code<T>(answer: Result<T, kube::Error>) -> Result<u16, kube::Error> {
    match answer {
        Ok(_) => Ok(200),
        Err(kube::Error::Api(status)) => Ok(status.code),
        Err(error) => Err(error),
    }
}

fn phase_and_ips(pod: &Pod) -> (String, Vec<String>) {
    let status = pod.status.clone().unwrap_or_default();
    let ips = status.pod_ips.unwrap_or_default().into_iter().map(|ip| ip.ip).collect();
    (status.phase.unwrap_or_default(), ips)
}

/// The code of the error that a watch resumed from `version` starts with, if it does within a second.
async fn first_event(server: &ApiServer, version: &str) -> Result<Option<u16>, Box<dyn Error>> {
    let pods = Api::<Pod>::all(server.admin_client().await?);
    let events = pods.watch(&WatchParams::default().timeout(1), version).await?;
    match std::pin::pin!(events).next().await.transpose()? {
        Some(WatchEvent::Error(status)) => Ok(Some(status.code)),
        _ => Ok(None),
    }
}

fn processes_that_name(directory: &Path) -> Vec<PathBuf> {
    let directory = directory.to_string_lossy();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    processes
        .filter(|process| {
            let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&*directory)
        })
        .collect()
}

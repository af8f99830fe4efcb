//! `explain` and `render` asked of a live cluster, with no more rights than the agent has.
use std::fmt::Write as _;
use std::process::{Command, Output};

use crate::site::{Failure, ONLY_FRIENDS, Site, namespace};

/// More objects than one page of a list holds.
const MANY: usize = 520;

fn podwall(site: &Site, words: &str) -> Result<Output, Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
    command.args(words.split_whitespace()).arg("--kubeconfig").arg(site.api.agent_kubeconfig());
    Ok(command.output()?)
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn shop() -> Result<Option<Site>, Failure> {
    let Some(mut site) = Site::start()? else { return Ok(None) };
    site.add_node("node-a")?;
    site.apply(&namespace("shop", ""))?;
    for (name, labels) in
        [("shop/server", "app: server"), ("shop/friend", "app: friend"), ("shop/stranger", "app: other")]
    {
        site.add_pod(name, "node-a", labels)?;
    }
    site.apply(ONLY_FRIENDS)?;
    Ok(Some(site))
}

#[test]
fn explain_answers_from_the_live_cluster_with_the_agents_own_rights() -> Result<(), Failure> {
    let Some(site) = shop()? else { return Ok(()) };
    let allowed = podwall(&site, "explain --from shop/friend --to shop/server:80")?;
    assert_eq!(allowed.status.code(), Some(0), "{}", String::from_utf8_lossy(&allowed.stderr));
    assert!(out(&allowed).contains("by shop/only-friends ingress[0]"), "{}", out(&allowed));
    let blocked = podwall(&site, "explain --from shop/stranger --to shop/server:80")?;
    assert_eq!(blocked.status.code(), Some(1));
    assert!(out(&blocked).contains("isolated by shop/only-friends"), "{}", out(&blocked));
    Ok(())
}

#[test]
fn render_reads_every_page_of_a_long_list() -> Result<(), Failure> {
    let Some(site) = shop()? else { return Ok(()) };
    let mut many = String::new();
    for number in 0..MANY {
        writeln!(many, "{}---", namespace(&format!("many-{number}"), ""))?;
    }
    site.apply(&many)?;
    site.apply(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: shop, name: last}\nspec:\n  \
         podSelector: {}\n  ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}]}]\n",
    )?;
    let rendered = podwall(&site, "render --node node-a")?;
    assert_eq!(rendered.status.code(), Some(0), "{}", String::from_utf8_lossy(&rendered.stderr));
    for pod in ["shop/server", "shop/friend", "shop/stranger"] {
        for address in site.lab.pod(pod)?.addresses() {
            assert!(out(&rendered).contains(&address.to_string()), "{pod} is missing");
        }
    }
    // Namespaces are listed by name, so `shop` comes on the second page; unread, its selector would match nobody.
    let inside = podwall(&site, "explain --from shop/stranger --to shop/server:81")?;
    assert_eq!(inside.status.code(), Some(0), "{}", out(&inside));
    Ok(())
}

#[test]
fn an_api_server_that_is_away_has_an_exit_code_of_its_own() -> Result<(), Failure> {
    let Some(mut site) = Site::start()? else { return Ok(()) };
    site.api.stop_apiserver();
    let asked = podwall(&site, "render --all-nodes")?;
    assert_eq!(asked.status.code(), Some(5));
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(
        said.starts_with("error: listing /api/v1/nodes at https://") && said.lines().count() == 1,
        "{said}"
    );
    Ok(())
}

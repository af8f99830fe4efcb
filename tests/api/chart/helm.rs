//! Running helm and kubectl as a user does, without the user's own configuration.
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use podwall_testkit::apiserver::tool_or_skip;
use serde_json::Value;
use tempfile::TempDir;

use crate::site::{Failure, Site};

pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/podwall");

pub(crate) struct Helm {
    helm: PathBuf,
    kubectl: PathBuf,
    home: TempDir,
}

impl Helm {
    /// `None`: skipped, and said so.
    pub(crate) fn or_skip() -> Result<Option<Self>, Failure> {
        let (Some(helm), Some(kubectl)) = (tool_or_skip("helm")?, tool_or_skip("kubectl")?) else {
            return Ok(None);
        };
        Ok(Some(Self { helm, kubectl, home: tempfile::tempdir()? }))
    }

    /// A helm command that touches no cluster; its standard output.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String, Failure> {
        good(words, self.command().args(words).output()?)
    }

    /// As [`Helm::run`], against a site's API server as its administrator.
    pub(crate) fn on(&self, site: &Site, words: &[&str]) -> Result<String, Failure> {
        good(words, self.command_on(site).args(words).output()?)
    }

    /// A helm command for a site, not started yet.
    pub(crate) fn command_on(&self, site: &Site) -> Command {
        let mut command = self.command();
        command.arg("--kubeconfig").arg(site.api.admin_kubeconfig());
        command
    }

    /// A helm command that has to fail; what it says.
    pub(crate) fn refused(&self, words: &[&str]) -> Result<String, Failure> {
        let output = self.command().args(words).output()?;
        if output.status.success() {
            return Err(format!("helm {words:?} should be refused").into());
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What the chart renders with these values.
    pub(crate) fn objects(&self, values: &str) -> Result<Vec<Value>, Failure> {
        let text = self.run(&["template", "podwall", CHART, "-n", "podwall", "--set", values])?;
        Ok(serde_saphyr::from_multiple(&text)?)
    }

    /// kubectl as the administrator of a site, with something to read.
    pub(crate) fn kubectl(&self, site: &Site, words: &[&str], input: &str) -> Result<String, Failure> {
        let mut command = Command::new(&self.kubectl);
        command
            .env_clear()
            .env("HOME", self.home.path())
            .arg("--kubeconfig")
            .arg(site.api.admin_kubeconfig());
        let mut child = command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        good(words, child.wait_with_output()?)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.helm);
        command.env_clear().env("HOME", self.home.path()).stdin(Stdio::null());
        command
    }
}

fn good(words: &[&str], output: Output) -> Result<String, Failure> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{words:?}: {said}{}", String::from_utf8_lossy(&output.stdout)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The only object of a kind.
pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value, Failure> {
    let mut found = objects.iter().filter(|object| object.get("kind").is_some_and(|found| found == kind));
    let first = found.next().ok_or_else(|| format!("no {kind}"))?;
    if found.next().is_some() {
        return Err(format!("more than one {kind}").into());
    }
    Ok(first)
}

/// A container's arguments.
pub(crate) fn args(container: &Value) -> Vec<String> {
    let args = container.get("args").and_then(Value::as_array).into_iter().flatten();
    args.filter_map(|arg| arg.as_str().map(str::to_owned)).collect()
}

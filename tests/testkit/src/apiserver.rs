//! A real kube-apiserver and its etcd, for one test: what the agent is told here, and refused here, is
//! what a cluster would tell and refuse it.
//!
//! There is no controller manager and no kubelet. So nothing starts a pod: a test creates it with
//! `spec.nodeName` and gives it addresses with [`ApiServer::set_pod_status`] (or writes `status` into
//! the YAML), and nothing cleans up: [`ApiServer::delete_yaml`] does at once what a kubelet would do in
//! the end. Admission is the default less ServiceAccount, which without its controller would refuse
//! every pod.

mod error;
mod objects;
mod port;
mod process;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};

pub use error::ApiServerError;
pub use objects::PodPhase;
use port::ReservedPort;
use process::Process;

/// Ten times what a start takes on two busy cores; past it something is wrong, not slow.
const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// May do everything: the group is exempt from RBAC.
const ADMIN: Identity = Identity { token: "admin", user: "admin", groups: "system:masters" };
/// Who the agent's pod would be, with the groups the API server gives every service account. Allowed
/// nothing until a test applies the agent's RBAC.
const AGENT: Identity = Identity {
    token: "agent",
    user: "system:serviceaccount:podwall:podwall",
    groups: "system:serviceaccounts,system:serviceaccounts:podwall",
};

/// An API server that lives as long as this value: dropping it, also by a panic, kills it and its etcd
/// and removes their directory. Should this process be killed first, the kernel kills both.
///
/// A value in a `static` is never dropped: its processes still end with the test, its directory stays.
#[derive(Debug)]
pub struct ApiServer {
    // Before `directory`, because fields drop in order and a process must not outlive its files.
    apiserver: Option<Process>,
    etcd: Process,
    apiserver_port: ReservedPort,
    etcd_port: ReservedPort,
    programs: PathBuf,
    directory: tempfile::TempDir,
    admin_kubeconfig: PathBuf,
    agent_kubeconfig: PathBuf,
}

impl ApiServer {
    /// Starts both on free ports of 127.0.0.1 and returns when the API server is ready and the
    /// `default` namespace is there.
    ///
    /// # Errors
    /// [`ApiServerError::ToolsMissing`] when `tests/tools/build` was not run on this machine;
    /// [`ApiServerError::Exited`] or [`ApiServerError::NotReady`] with the end of the program's log.
    pub async fn start() -> Result<Self, ApiServerError> {
        let programs = programs()?;
        let directory = tempfile::Builder::new()
            .prefix("podwall-apiserver-")
            .tempdir()
            .map_err(ApiServerError::io("creating the API server's directory"))?;
        let apiserver_port = ReservedPort::take()?;
        let etcd_port = ReservedPort::take()?;

        let etcd = Process::spawn(&etcd_command(&programs, directory.path(), &etcd_port), directory.path())?;
        write_credentials(directory.path())?;
        let admin_kubeconfig = write_kubeconfig(directory.path(), &apiserver_port, ADMIN.token, ADMIN.token)?;
        let agent_kubeconfig = write_kubeconfig(directory.path(), &apiserver_port, AGENT.token, AGENT.token)?;

        let mut server = Self {
            apiserver: None,
            etcd,
            apiserver_port,
            etcd_port,
            programs,
            directory,
            admin_kubeconfig,
            agent_kubeconfig,
        };
        server.wait_for_etcd().await?;
        server.start_apiserver_again().await?;
        Ok(server)
    }

    /// As [`ApiServer::start`]; `None` where the programs were never built, said on standard error, so
    /// that `cargo test` on a fresh machine needs nothing but Rust. In CI (`CI=true`) that is an error.
    ///
    /// # Errors
    /// As [`ApiServer::start`].
    pub async fn start_or_skip() -> Result<Option<Self>, ApiServerError> {
        or_skip(Self::start().await)
    }

    /// `https://127.0.0.1:<port>`; the same for the whole life of this value.
    #[must_use]
    pub fn url(&self) -> String {
        url(&self.apiserver_port)
    }

    /// Credentials of a user who may do everything.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// Credentials of the agent's service account. It has no rights but those a test gave it, usually by
    /// [`ApiServer::apply_yaml`] of `charts/podwall/templates/agent-rbac.yaml`.
    #[must_use]
    pub fn agent_kubeconfig(&self) -> &Path {
        &self.agent_kubeconfig
    }

    /// A kubeconfig for whoever the token is of, such as one from `kubectl create token`.
    ///
    /// # Errors
    /// [`ApiServerError::Io`] when the file cannot be written.
    pub fn kubeconfig_for(&self, name: &str, token: &str) -> Result<PathBuf, ApiServerError> {
        write_kubeconfig(self.directory.path(), &self.apiserver_port, name, token)
    }

    /// The certificate of the API server's own authority, as a pod finds it beside its token.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificates/apiserver.crt")
    }

    /// A client for [`ApiServer::admin_kubeconfig`]. A new one each time, because a client's connections
    /// belong to the tokio runtime that made them and every test has a runtime of its own.
    ///
    /// # Errors
    /// [`ApiServerError::Credentials`] or [`ApiServerError::Kube`].
    pub async fn admin_client(&self) -> Result<kube::Client, ApiServerError> {
        client(&self.admin_kubeconfig).await
    }

    /// A client for [`ApiServer::agent_kubeconfig`], to ask what the agent may do.
    ///
    /// # Errors
    /// [`ApiServerError::Credentials`] or [`ApiServerError::Kube`].
    pub async fn agent_client(&self) -> Result<kube::Client, ApiServerError> {
        client(&self.agent_kubeconfig).await
    }

    /// `kubectl` as that user, with a cache of its own; arguments follow.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.programs.join("kubectl"));
        command
            .arg(option("kubeconfig", &self.admin_kubeconfig))
            .arg(option("cache-dir", &self.directory.path().join("kubectl-cache")));
        command
    }

    /// Kills the API server, as a lost control-plane node would: open watches break, new connections are
    /// refused, and no other process can take the port. What it stored stays in etcd.
    pub fn stop_apiserver(&mut self) {
        self.apiserver = None;
    }

    /// Starts the API server on the same port and etcd after [`ApiServer::stop_apiserver`], and returns
    /// when it is ready. Does nothing to one that runs.
    ///
    /// # Errors
    /// As [`ApiServer::start`].
    pub async fn start_apiserver_again(&mut self) -> Result<(), ApiServerError> {
        if self.apiserver.is_none() {
            let command = self.apiserver_command();
            self.apiserver = Some(Process::spawn(&command, self.directory.path())?);
        }
        self.wait_for_apiserver().await
    }

    /// Stops the API server from running without closing its connections, as a hung node or a lost
    /// network would: connecting still works, no answer comes, and no watch breaks.
    ///
    /// # Errors
    /// [`ApiServerError::Io`] when the signal cannot be sent.
    pub fn freeze_apiserver(&self) -> Result<(), ApiServerError> {
        self.apiserver.as_ref().map_or(Ok(()), |process| process.freeze())
    }

    /// Undoes [`ApiServer::freeze_apiserver`].
    ///
    /// # Errors
    /// [`ApiServerError::Io`] when the signal cannot be sent.
    pub fn thaw_apiserver(&self) -> Result<(), ApiServerError> {
        self.apiserver.as_ref().map_or(Ok(()), |process| process.signal(rustix::process::Signal::CONT))
    }

    /// Makes every resource version handed out so far too old: whoever resumes a watch from one is
    /// answered `410 Gone`. The API server restarts for it, because a running one answers from its own
    /// memory for as long as it likes.
    ///
    /// # Errors
    /// As [`ApiServer::start`], and [`ApiServerError::Kube`] when etcd refuses.
    pub async fn expire_history(&mut self) -> Result<(), ApiServerError> {
        self.stop_apiserver();
        let doing = "compacting etcd";
        let config = kube::Config::new(format!("http://{}", self.etcd_port).parse().map_err(|source| {
            ApiServerError::Io { doing: doing.to_owned(), source: std::io::Error::other(source) }
        })?);
        let etcd = kube::Client::try_from(config).map_err(ApiServerError::kube(doing))?;

        // A write of our own, so that no version a test has seen is the newest one: the newest is never
        // too old. Nobody reads the key: it is outside the API server's prefix.
        let put = serde_json::json!({"key": "cG9kd2FsbA==", "value": "cG9kd2FsbA=="});
        let answer = post(&etcd, "/v3/kv/put", &put).await.map_err(ApiServerError::kube(doing))?;
        let compact = serde_json::json!({"revision": answer.pointer("/header/revision"), "physical": true});
        post(&etcd, "/v3/kv/compaction", &compact).await.map_err(ApiServerError::kube(doing))?;

        self.start_apiserver_again().await
    }

    async fn wait_for_etcd(&mut self) -> Result<(), ApiServerError> {
        let deadline = Instant::now() + READY_WITHIN;
        let address = (Ipv4Addr::LOCALHOST, self.etcd_port.number());
        while let Err(error) = TcpStream::connect(address) {
            self.etcd.check_running()?;
            if Instant::now() > deadline {
                return Err(self.etcd.not_ready(READY_WITHIN, &error));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn wait_for_apiserver(&mut self) -> Result<(), ApiServerError> {
        let deadline = Instant::now() + READY_WITHIN;
        while let Err(error) = ready(&self.admin_kubeconfig).await {
            self.etcd.check_running()?;
            let Some(process) = &mut self.apiserver else { return Err(error) };
            process.check_running()?;
            if Instant::now() > deadline {
                return Err(process.not_ready(READY_WITHIN, &error));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn apiserver_command(&self) -> Command {
        let directory = self.directory.path();
        let mut command = Command::new(self.programs.join("kube-apiserver"));
        command
            .arg(format!("--etcd-servers=http://{}", self.etcd_port))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            .arg(format!("--secure-port={}", self.apiserver_port.number()))
            // Shares the port with our reservation of it, see `port`.
            .arg("--permit-port-sharing")
            .arg(option("cert-dir", &directory.join("certificates")))
            .arg(option("service-account-key-file", &directory.join("service-account.pub")))
            .arg(option("service-account-signing-key-file", &directory.join("service-account.key")))
            .arg("--service-account-issuer=https://podwall.test")
            .arg(option("token-auth-file", &directory.join("tokens.csv")))
            .args(["--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount"])
            .arg("--service-cluster-ip-range=10.96.0.0/16")
            // It would complain for ever that 127.0.0.1 cannot be the address of a Service.
            .arg("--endpoint-reconciler-type=none")
            // One client at a time needs no fair queue, and the start is faster without.
            .args(["--enable-priority-and-fairness=false", "--profiling=false"]);
        command
    }
}

#[derive(Debug)]
struct Identity {
    token: &'static str,
    user: &'static str,
    groups: &'static str,
}

/// Where a program is that `tests/tools/build` made; `None` and said so where it did not, which in CI is an error.
///
/// # Errors
/// [`ApiServerError::ToolsMissing`] in CI.
pub fn tool_or_skip(name: &str) -> Result<Option<PathBuf>, ApiServerError> {
    let found = programs().and_then(|directory| {
        let program = directory.join(name);
        let said = || format!("no {}: run tests/tools/build --with helm", program.display());
        if program.is_file() { Ok(program) } else { Err(ApiServerError::ToolsMissing { said: said() }) }
    });
    or_skip(found)
}

fn or_skip<T>(outcome: Result<T, ApiServerError>) -> Result<Option<T>, ApiServerError> {
    match outcome {
        Err(error @ ApiServerError::ToolsMissing { .. }) if !crate::skip::is_ci() => {
            crate::skip::skipped(&error);
            Ok(None)
        }
        outcome => outcome.map(Some),
    }
}

/// Where `tests/tools/build` put the programs; the script alone knows how the directory is named.
fn programs() -> Result<PathBuf, ApiServerError> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/build");
    let output = Command::new(&script)
        .arg("--where")
        .output()
        .map_err(ApiServerError::io(format!("running {}", script.display())))?;
    if !output.status.success() {
        // It says itself to run tests/tools/build.
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ApiServerError::ToolsMissing { said });
    }
    let directory = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    // The script has looked into its own directory, but not into one that it was told to use.
    for program in ["etcd", "kube-apiserver"] {
        if !directory.join(program).is_file() {
            return Err(ApiServerError::ToolsMissing {
                said: format!(
                    "no {program} in KUBEBUILDER_ASSETS={}: unset it and run tests/tools/build",
                    directory.display()
                ),
            });
        }
    }
    Ok(directory)
}

fn etcd_command(programs: &Path, directory: &Path, port: &ReservedPort) -> Command {
    let mut command = Command::new(programs.join("etcd"));
    command
        .args(["--name=podwall", "--socket-reuse-port", "--log-level=warn"])
        .arg(option("data-dir", &directory.join("etcd")))
        .arg(format!("--listen-client-urls=http://{port}"))
        .arg(format!("--advertise-client-urls=http://{port}"))
        // A member alone has no peer to call it, so which port that is does not matter.
        .arg("--listen-peer-urls=http://127.0.0.1:0")
        // Nothing here has to survive a power cut, and waiting for the disk is most of a write.
        .arg("--unsafe-no-fsync");
    command
}

/// The service-account key pair and the static tokens. The public half is a file of its own because the
/// API server reads an EC key for checking signatures only in that form.
fn write_credentials(directory: &Path) -> Result<(), ApiServerError> {
    let key = rcgen::KeyPair::generate().map_err(|source| ApiServerError::Key { source })?;
    let mut tokens = String::new();
    for Identity { token, user, groups } in [ADMIN, AGENT] {
        // Writing to a String cannot fail.
        let _ = writeln!(tokens, "{token},{user},{user},\"{groups}\"");
    }
    for (name, content) in [
        ("service-account.key", key.serialize_pem()),
        ("service-account.pub", key.public_key_pem()),
        ("tokens.csv", tokens),
    ] {
        let path = directory.join(name);
        std::fs::write(&path, content).map_err(ApiServerError::io(format!("writing {}", path.display())))?;
    }
    Ok(())
}

/// JSON, which is YAML. Names the certificate the API server will have made for itself by the time
/// anybody can use the file.
fn write_kubeconfig(
    directory: &Path,
    port: &ReservedPort,
    user: &str,
    token: &str,
) -> Result<PathBuf, ApiServerError> {
    let path = directory.join(format!("{user}.kubeconfig"));
    let content = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {
            "server": url(port),
            "certificate-authority": directory.join("certificates/apiserver.crt"),
        }}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        "current-context": "test",
    });
    std::fs::write(&path, content.to_string())
        .map_err(ApiServerError::io(format!("writing {}", path.display())))?;
    Ok(path)
}

fn url(port: &ReservedPort) -> String {
    format!("https://{port}")
}

fn option(name: &str, path: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(format!("--{name}="));
    option.push(path);
    option
}

async fn client(kubeconfig: &Path) -> Result<kube::Client, ApiServerError> {
    let credentials = |source| ApiServerError::Credentials { path: kubeconfig.to_owned(), source };
    let kubeconfig = Kubeconfig::read_from(kubeconfig).map_err(credentials)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(credentials)?;
    kube::Client::try_from(config).map_err(ApiServerError::kube("building a client"))
}

/// `/readyz` covers the bootstrap RBAC; the `default` namespace is made after it.
async fn ready(admin_kubeconfig: &Path) -> Result<(), ApiServerError> {
    let client = client(admin_kubeconfig).await?;
    let doing = "asking whether the API server is ready";
    let readyz = http::Request::get("/readyz")
        .body(Vec::new())
        .map_err(kube::Error::HttpError)
        .map_err(ApiServerError::kube(doing))?;
    client.request_text(readyz).await.map_err(ApiServerError::kube(doing))?;
    Api::<Namespace>::all(client).get("default").await.map_err(ApiServerError::kube(doing))?;
    Ok(())
}

/// One call of etcd's JSON gateway.
async fn post(
    etcd: &kube::Client,
    path: &str,
    body: &serde_json::Value,
) -> Result<serde_json::Value, kube::Error> {
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    etcd.request(request).await
}

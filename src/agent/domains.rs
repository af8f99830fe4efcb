//! The DNS proxy's end in the agent: `<state-dir>/dns.sock`. It gets the book, and tells what pods are about to learn.
//!
//! Owns two promises. A pod is judged by a policy that names domains only after the proxy takes its queries, or did
//! not say so within a moment: else its first answer would go past. And what was learned survives the agent: the
//! kernel holds it, and `<state-dir>/readers` says which pod each address was, so that nobody inherits it.
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use podwall_crd::node_report::NameReport;
use podwall_engine::options::DnsProxy;
use podwall_engine::readers::{Book, Reader};
use podwall_engine::{Lesson, ObjectRef, Warning};
use podwall_ruleset::detour::LIFE;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};

use super::input::{Input, Inputs};
use super::node_report::Sheet;
use crate::dns::flows;
use crate::dns::words::{Asked, Named, SOCKET, Said};
use crate::telemetry::events::Events;

/// The file of readers in the state folder.
const READERS: &str = "readers";

/// The UID of the pod that each address is.
pub type Owners = BTreeMap<IpAddr, String>;

/// A book with its number.
#[derive(Debug, Default)]
pub struct Page {
    /// Counts up; 0 is no book yet.
    pub revision: u64,
    /// The whole.
    pub book: Book,
}

/// The planner's side.
#[derive(Debug)]
pub struct Classroom {
    pages: watch::Sender<Arc<Page>>,
    proxies: Arc<AtomicUsize>,
    file: PathBuf,
}

/// The socket's side.
#[derive(Debug, Clone)]
pub struct Lectern {
    pages: watch::Receiver<Arc<Page>>,
    proxies: Arc<AtomicUsize>,
}

/// Both sides.
pub fn classroom(state_dir: &Path) -> (Classroom, Lectern) {
    let (sender, receiver) = watch::channel(Arc::default());
    let proxies = Arc::new(AtomicUsize::new(0));
    let classroom = Classroom { pages: sender, proxies: Arc::clone(&proxies), file: state_dir.join(READERS) };
    (classroom, Lectern { pages: receiver, proxies })
}

#[cfg(test)]
impl Lectern {
    /// Somebody is there to read.
    pub fn attend(&self) {
        self.proxies.fetch_add(1, Ordering::Relaxed);
    }
}

impl Classroom {
    /// Is a proxy there to read a book?
    pub fn is_attended(&self) -> bool {
        self.proxies.load(Ordering::Relaxed) > 0
    }

    /// How many pods have policies that name domains.
    pub fn pupils(&self) -> usize {
        let page = self.pages.borrow();
        let readers = page.book.readers.values().filter(|reader| !reader.lists.is_empty());
        readers.map(|reader| reader.uid.as_str()).collect::<BTreeSet<_>>().len()
    }

    /// Publishes a book if it is another one; answers its revision then.
    pub fn publish(&self, book: Book) -> Option<u64> {
        let revision = {
            let last = self.pages.borrow();
            if last.revision > 0 && last.book == book {
                return None;
            }
            last.revision + 1
        };
        self.pages.send_replace(Arc::new(Page { revision, book }));
        Some(revision)
    }

    /// Which pod each address is by the book published last.
    pub fn owners(&self) -> Owners {
        let page = self.pages.borrow();
        let of = |reader: &Reader| {
            let uid = reader.uid.clone();
            reader.addresses.clone().into_iter().map(move |address| (address, uid.clone()))
        };
        page.book.readers.values().flat_map(of).collect()
    }

    /// Which pod each address was when that was written last, by whichever agent.
    pub fn earlier_owners(&self) -> Owners {
        let text = match std::fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, "reading {}: pods have to ask for names again", self.file.display());
                }
                return BTreeMap::new();
            }
        };
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Writes it down. Only once the kernel holds nothing any more that another pod learned at one of the addresses: else
    /// an agent that starts after a crash would take it for the new pod's.
    pub fn write_owners(&self, owners: &Owners) {
        let draft = self.file.with_extension("draft");
        let written = serde_json::to_string(owners)
            .map_err(io::Error::other)
            .and_then(|text| std::fs::write(&draft, text))
            .and_then(|()| std::fs::rename(&draft, &self.file));
        if let Err(error) = written {
            tracing::warn!(%error, "writing {}: after a restart pods have to ask for names again", self.file.display());
        }
    }
}

/// Opens the socket. Whoever calls this holds the node's lock, so a socket that is there was left behind.
pub fn bind(state_dir: &Path) -> io::Result<UnixListener> {
    let path = state_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Where people hear of names.
#[derive(Debug, Clone)]
pub struct People {
    /// What a pod does not get.
    pub events: Events,
    /// What is wrong with names.
    pub sheet: Sheet,
}

/// Names in trouble, by the policies that allow them now.
fn reports(names: &[Named], book: &Book) -> Vec<NameReport> {
    let of = |named: &Named| -> BTreeSet<NameReport> {
        let lists = named.lists.iter().filter_map(|list| book.lists.get(list));
        let policies = lists.flat_map(|list| &list.policies).filter_map(|policy| policy.split_once('/'));
        let report = |(namespace, policy): (&str, &str)| NameReport {
            namespace: namespace.to_owned(),
            policy: policy.to_owned(),
            name: named.name.clone(),
            trouble: named.trouble,
        };
        policies.map(report).collect()
    };
    names.iter().flat_map(of).collect()
}

/// Talks with every proxy that comes, until the task is dropped; they listen at these addresses.
pub async fn serve(
    listener: UnixListener,
    lectern: Lectern,
    (inputs, people): (Inputs, People),
    proxy: Option<DnsProxy>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (lectern, inputs, people) = (lectern.clone(), inputs.clone(), people.clone());
                tokio::spawn(async move {
                    let proxies = Arc::clone(&lectern.proxies);
                    proxies.fetch_add(1, Ordering::Relaxed);
                    tracing::info!("a DNS proxy is there");
                    if let Err(error) = talk(stream, lectern, &inputs, &people).await {
                        tracing::info!(%error, "the DNS proxy is gone");
                    }
                    proxies.fetch_sub(1, Ordering::Relaxed);
                    if let Some(proxy) = proxy {
                        let_go(proxy, &proxies).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting on the DNS proxy's socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Whoever asked a proxy that is gone goes on asking nobody, unless his flow begins anew. Where its way does not go with
/// it, such flows may begin there as long as that lasts.
async fn let_go(DnsProxy { v4, v6, .. }: DnsProxy, proxies: &AtomicUsize) {
    let forget = || flows::forget(move |flow| flows::by_proxy(flow, &[v4.into(), v6.into()]));
    forget();
    tokio::time::sleep(LIFE + Duration::from_millis(100)).await;
    if proxies.load(Ordering::Relaxed) == 0 {
        forget();
    }
}

async fn talk(stream: UnixStream, mut lectern: Lectern, inputs: &Inputs, people: &People) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let (answers, mut answered) = mpsc::unbounded_channel();
    lectern.pages.mark_changed();
    loop {
        let said = tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
                let asked = serde_json::from_str(&line).map_err(io::Error::other)?;
                hear(asked, (inputs, people, &lectern), &answers).await?;
                continue;
            }
            answer = answered.recv() => match answer {
                Some(said) => said,
                None => return Ok(()),
            },
            turned = lectern.pages.changed() => {
                turned.map_err(io::Error::other)?;
                let page = Arc::clone(&lectern.pages.borrow_and_update());
                if page.revision == 0 {
                    continue;
                }
                Said::Book { revision: page.revision, book: page.book.clone() }
            }
        };
        let mut line = serde_json::to_string(&said).map_err(io::Error::other)?;
        line.push('\n');
        writer.write_all(line.as_bytes()).await?;
    }
}

async fn hear(
    asked: Asked,
    (inputs, people, lectern): (&Inputs, &People, &Lectern),
    answers: &mpsc::UnboundedSender<Said>,
) -> io::Result<()> {
    match asked {
        Asked::Remark { pod, uid, problem } => {
            let (namespace, name) = pod.split_once('/').unwrap_or_default();
            let object =
                ObjectRef { kind: "Pod", namespace: namespace.into(), name: name.into(), uid: uid.into() };
            tracing::info!(pod, "{problem}");
            people.events.tell(&Warning { object, field: "DNS".to_owned(), problem });
            Ok(())
        }
        Asked::Names { names } => {
            people.sheet.names(reports(&names, &lectern.pages.borrow().book));
            Ok(())
        }
        Asked::Read { revision } => inputs.send(Input::BookRead(revision)).await.map_err(io::Error::other),
        Asked::Teach { ticket, lessons } => {
            let (reply, confirmed) = oneshot::channel();
            let lessons: Vec<Lesson> = lessons.into_iter().map(Lesson::from).collect();
            inputs.send(Input::Teach(lessons, reply)).await.map_err(io::Error::other)?;
            let answers = answers.clone();
            tokio::spawn(async move {
                let said = match confirmed.await {
                    Ok(()) => Said::Taught { ticket },
                    Err(_) => Said::Untaught { ticket },
                };
                // The proxy may be gone.
                let _ = answers.send(said);
            });
            Ok(())
        }
    }
}

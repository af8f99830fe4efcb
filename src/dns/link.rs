//! The conversation with the agent, which may go and come back at any time.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use podwall_engine::readers::Book;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};

use super::words::{Asked, Named, SOCKET, Said, Told};

/// Pause before the agent is looked for again.
const RETRY: Duration = Duration::from_millis(50);

/// Something the house must know.
#[derive(Debug)]
pub enum News {
    /// The agent is there, perhaps another one.
    Came,
    /// It is gone.
    Went,
    /// It says whose queries to take; to be confirmed once it is in force.
    Book(Book, oneshot::Sender<()>),
}

/// Addresses to be opened, and who waits for it.
type Lesson = (Vec<Told>, oneshot::Sender<()>);

/// What others have to say.
#[derive(Debug)]
enum Request {
    Teach(Lesson),
    Say(Asked),
}

/// How others say it.
#[derive(Debug, Clone)]
pub struct Link(mpsc::UnboundedSender<Request>);

impl Link {
    /// Starts the conversation; news come from the receiver.
    pub fn start(state_dir: PathBuf) -> (Self, mpsc::UnboundedReceiver<News>) {
        let (requests, asked) = mpsc::unbounded_channel();
        let (news, heard) = mpsc::unbounded_channel();
        tokio::spawn(Talk { state_dir, asked, news, open: BTreeMap::new(), ticket: 0 }.run());
        (Self(requests), heard)
    }

    /// Resolves when the kernel holds the addresses; fails when it does not.
    pub async fn teach(&self, lessons: Vec<Told>) -> Result<(), Untaught> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Request::Teach((lessons, reply))).map_err(|_| Untaught)?;
        answer.await.map_err(|_| Untaught)
    }

    /// Tells people of what a pod does not get; lost where no agent is there.
    pub fn remark(&self, pod: &str, uid: &str, problem: String) {
        let remark = Asked::Remark { pod: pod.to_owned(), uid: uid.to_owned(), problem };
        // The conversation never ends while the process lives.
        let _ = self.0.send(Request::Say(remark));
    }

    /// Tells of all names in trouble.
    pub fn names(&self, names: Vec<Named>) {
        // The conversation never ends while the process lives.
        let _ = self.0.send(Request::Say(Asked::Names { names }));
    }
}

/// The kernel does not hold the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untaught;

struct Talk {
    state_dir: PathBuf,
    asked: mpsc::UnboundedReceiver<Request>,
    news: mpsc::UnboundedSender<News>,
    /// Asked and not answered yet; told again to the next agent.
    open: BTreeMap<u64, Lesson>,
    ticket: u64,
}

impl Talk {
    async fn run(mut self) {
        loop {
            if let Ok(stream) = UnixStream::connect(self.state_dir.join(SOCKET)).await {
                if self.news.send(News::Came).is_err() {
                    return;
                }
                if let Err(error) = self.talk(stream).await {
                    tracing::info!(%error, "the agent is gone; what pods may use already stays open");
                }
                if self.news.send(News::Went).is_err() {
                    return;
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn talk(&mut self, stream: UnixStream) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        self.open.retain(|_, (_, reply)| !reply.is_closed());
        for (ticket, (lessons, _)) in &self.open {
            say(&mut writer, &Asked::Teach { ticket: *ticket, lessons: lessons.clone() }).await?;
        }
        loop {
            tokio::select! {
                request = self.asked.recv() => {
                    let (lessons, reply) = match request {
                        Some(Request::Teach(lesson)) => lesson,
                        Some(Request::Say(news)) => {
                            say(&mut writer, &news).await?;
                            continue;
                        }
                        None => return Ok(()),
                    };
                    self.ticket += 1;
                    let asked = Asked::Teach { ticket: self.ticket, lessons: lessons.clone() };
                    self.open.insert(self.ticket, (lessons, reply));
                    say(&mut writer, &asked).await?;
                }
                line = lines.next_line() => {
                    let Some(line) = line? else { return Err(std::io::ErrorKind::UnexpectedEof.into()) };
                    let said = serde_json::from_str(&line).map_err(std::io::Error::other)?;
                    self.hear(said, &mut writer).await?;
                }
            }
        }
    }

    async fn hear(&mut self, said: Said, writer: &mut OwnedWriteHalf) -> std::io::Result<()> {
        match said {
            Said::Book { revision, book } => {
                let (done, in_force) = oneshot::channel();
                if self.news.send(News::Book(book, done)).is_ok() && in_force.await.is_ok() {
                    say(writer, &Asked::Read { revision }).await?;
                }
            }
            Said::Taught { ticket } => {
                if let Some((_, reply)) = self.open.remove(&ticket) {
                    // Whoever asked may have given up.
                    let _ = reply.send(());
                }
            }
            Said::Untaught { ticket } => drop(self.open.remove(&ticket)),
        }
        Ok(())
    }
}

async fn say(writer: &mut OwnedWriteHalf, asked: &Asked) -> std::io::Result<()> {
    let mut line = serde_json::to_string(asked).map_err(std::io::Error::other)?;
    line.push('\n');
    writer.write_all(line.as_bytes()).await
}

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
    /// It says whose queries to take; to be confirmed once it is in force, with what pods were told before and shall
    /// have by this book too.
    Book(Book, oneshot::Sender<Vec<Lesson>>),
}

/// Addresses to be opened, and who waits for it.
pub type Lesson = (Vec<Told>, oneshot::Sender<()>);

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
            self.put_aside();
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Nobody is there to be told. Who still waits is told of to the next agent; what nobody waits for any more is
    /// forgotten, or it would be opened long after its pod was told that there is none, and fill the memory meanwhile.
    fn put_aside(&mut self) {
        while let Ok(request) = self.asked.try_recv() {
            match request {
                Request::Teach(lesson) => drop(self.keep(lesson)),
                Request::Say(_) => {}
            }
        }
        self.open.retain(|_, (_, reply)| !reply.is_closed());
    }

    /// Answers the words for it.
    fn keep(&mut self, (lessons, reply): Lesson) -> Asked {
        self.ticket += 1;
        self.open.insert(self.ticket, (lessons.clone(), reply));
        Asked::Teach { ticket: self.ticket, lessons }
    }

    async fn talk(&mut self, stream: UnixStream) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        let mut turning = None;
        self.open.retain(|_, (_, reply)| !reply.is_closed());
        for (ticket, (lessons, _)) in &self.open {
            say(&mut writer, &Asked::Teach { ticket: *ticket, lessons: lessons.clone() }).await?;
        }
        loop {
            tokio::select! {
                // What is learned by a book is said after the word that it is read.
                request = self.asked.recv(), if turning.is_none() => match request {
                    // Whoever asked gave up while this agent did not listen.
                    Some(Request::Teach((_, reply))) if reply.is_closed() => {}
                    Some(Request::Teach(lesson)) => {
                        let asked = self.keep(lesson);
                        say(&mut writer, &asked).await?;
                    }
                    Some(Request::Say(news)) => say(&mut writer, &news).await?,
                    None => return Ok(()),
                },
                line = lines.next_line() => {
                    let Some(line) = line? else { return Err(std::io::ErrorKind::UnexpectedEof.into()) };
                    let said = serde_json::from_str(&line).map_err(std::io::Error::other)?;
                    match said {
                        // In the place of one that never came to be in force.
                        Said::Book { revision, book } => turning = self.turn(revision, book),
                        Said::Taught { ticket } => self.taught(ticket),
                        Said::Untaught { ticket } => drop(self.open.remove(&ticket)),
                    }
                }
                (revision, carried) = in_force(&mut turning) => {
                    turning = None;
                    if let Ok(carried) = carried {
                        self.tell_read(revision, carried, &mut writer).await?;
                    }
                }
            }
        }
    }

    /// Hands a book on; the house says when it is in force.
    fn turn(&self, revision: u64, book: Book) -> Option<Turning> {
        let (done, in_force) = oneshot::channel();
        self.news.send(News::Book(book, done)).ok().map(|()| (revision, in_force))
    }

    fn taught(&mut self, ticket: u64) {
        if let Some((_, reply)) = self.open.remove(&ticket) {
            // Whoever asked may have given up.
            let _ = reply.send(());
        }
    }

    /// A book is in force.
    async fn tell_read(
        &mut self,
        revision: u64,
        carried: Vec<Lesson>,
        writer: &mut OwnedWriteHalf,
    ) -> std::io::Result<()> {
        // Before the word that the rules wait for: they shall find it there.
        for lesson in carried {
            let asked = self.keep(lesson);
            say(writer, &asked).await?;
        }
        say(writer, &Asked::Read { revision }).await
    }
}

/// A book by its number, and what comes when it is in force.
type Turning = (u64, oneshot::Receiver<Vec<Lesson>>);

/// Never, while no book is on its way.
async fn in_force(turning: &mut Option<Turning>) -> (u64, Result<Vec<Lesson>, oneshot::error::RecvError>) {
    match turning {
        Some((revision, in_force)) => (*revision, in_force.await),
        None => std::future::pending().await,
    }
}

async fn say(writer: &mut OwnedWriteHalf, asked: &Asked) -> std::io::Result<()> {
    let mut line = serde_json::to_string(asked).map_err(std::io::Error::other)?;
    line.push('\n');
    writer.write_all(line.as_bytes()).await
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    fn told(last: u8) -> Vec<Told> {
        vec![Told {
            pod: [10, 0, 0, 1].into(),
            owner: "u".to_owned(),
            list: "l".to_owned(),
            address: [198, 51, 100, last].into(),
            ends: 1,
        }]
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_told_to_the_next_agent() {
        let folder = tempfile::tempdir().unwrap();
        let (link, mut news) = Link::start(folder.path().to_owned());
        let given_up = tokio::time::timeout(RETRY / 2, link.teach(told(1))).await;
        assert!(given_up.is_err());
        link.remark("a/b", "u", "lost".to_owned());
        tokio::time::sleep(RETRY * 2).await;
        let waits = tokio::spawn({
            let link = link.clone();
            async move { link.teach(told(2)).await }
        });
        tokio::time::sleep(RETRY * 2).await;
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(matches!(news.recv().await, Some(News::Came)));
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let Asked::Teach { ticket, lessons } = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        assert_eq!(lessons, told(2));
        let said = serde_json::to_string(&Said::Taught { ticket }).unwrap() + "\n";
        writer.write_all(said.as_bytes()).await.unwrap();
        assert_eq!(waits.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_book_that_does_not_come_to_be_in_force_keeps_nobody_from_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let (link, mut news) = Link::start(folder.path().to_owned());
        let (stream, _) = listener.accept().await.unwrap();
        assert!(matches!(news.recv().await, Some(News::Came)));
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        let mut books = Vec::new();
        for revision in [1, 2] {
            let said = serde_json::to_string(&Said::Book { revision, book: Book::default() }).unwrap() + "\n";
            writer.write_all(said.as_bytes()).await.unwrap();
            let Some(News::Book(_, done)) = news.recv().await else { panic!("no book {revision}") };
            books.push(done);
        }
        // Nobody hears of what pods learn by it before the book itself is read.
        link.remark("a/b", "u", "learned".to_owned());
        let (reply, _confirmed) = oneshot::channel();
        assert!(tokio::time::timeout(RETRY, lines.next_line()).await.is_err());
        books.pop().unwrap().send(vec![(told(1), reply)]).unwrap();
        let mut heard = Vec::new();
        for _ in 0..3 {
            let line = lines.next_line().await.unwrap().unwrap();
            heard.push(serde_json::from_str::<Asked>(&line).unwrap());
        }
        let remark = Asked::Remark { pod: "a/b".into(), uid: "u".into(), problem: "learned".into() };
        assert_eq!(
            heard,
            [Asked::Teach { ticket: 1, lessons: told(1) }, Asked::Read { revision: 2 }, remark]
        );
        // An agent that is gone meanwhile is missed.
        let said = serde_json::to_string(&Said::Book { revision: 3, book: Book::default() }).unwrap() + "\n";
        writer.write_all(said.as_bytes()).await.unwrap();
        assert!(matches!(news.recv().await, Some(News::Book(_, _))));
        drop((lines, writer));
        assert!(matches!(news.recv().await, Some(News::Went)));
    }
}

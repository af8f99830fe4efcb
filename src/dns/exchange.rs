//! One query from its pod to its answer.
//!
//! Owns what is refused and what is held back: an answer that teaches something leaves when the kernel confirmed it,
//! or becomes a server failure, never an address that is not open.
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hickory_proto::op::ResponseCode;
use podwall_crd::node_report::NameTrouble;
use podwall_engine::model::DomainName;
use podwall_engine::readers::Reader;
use tokio::sync::{Notify, oneshot};

use super::Settings;
use super::asking::Asking;
use super::book::Pages;
use super::ledger::{Entry, Ledger, Open, Outcome};
use super::link::{Lesson, Link};
use super::memory::{Memory, Names};
use super::message::{self, Question, Reply};
use super::metrics::{Metrics, Refusal};
use super::pace::Pace;
use super::teaching::{self, Judgement, Lifetimes};
use super::troubles::Troubles;
use super::turns::{Turn, Turns};
use super::upstream::Transport;
use super::words::{Named, Told};

/// How long a query of a pod that is not in the book yet waits for the book.
const UNKNOWN: Duration = Duration::from_secs(1);
/// How long an answer waits to be confirmed.
const CONFIRMATION: Duration = Duration::from_secs(2);
/// Questions one pod may have open, and all of them: each has a socket of its own.
const MOST_OPEN: (usize, usize) = (256, 4096);
/// Lessons that are told in one line.
const AT_ONCE: usize = 1000;

/// What all queries share.
pub struct Exchange {
    pages: RwLock<Arc<Pages>>,
    turned: Notify,
    memory: Mutex<Memory>,
    ledger: Mutex<Ledger>,
    troubles: Mutex<Troubles>,
    /// Names in trouble the agent was told of; `None`: it has to be told.
    named: Mutex<Option<Vec<Named>>>,
    /// How often something is told of a pod.
    remarks: Mutex<Pace>,
    turns: Arc<Turns>,
    asking: Asking,
    link: Link,
    /// Since it told its book: before, it does not know any pod, and confirms nothing.
    agent_is_there: AtomicBool,
    cluster: DomainName,
    lifetimes: Lifetimes,
    metrics: Arc<Metrics>,
}

impl Exchange {
    /// With an empty book.
    pub fn new(settings: &Settings, link: Link, metrics: Arc<Metrics>) -> Self {
        Self {
            pages: RwLock::default(),
            turned: Notify::new(),
            memory: Mutex::default(),
            ledger: Mutex::default(),
            troubles: Mutex::default(),
            named: Mutex::default(),
            remarks: Mutex::default(),
            turns: Turns::new(MOST_OPEN.0, MOST_OPEN.1),
            asking: Asking::default(),
            link,
            agent_is_there: AtomicBool::new(false),
            cluster: DomainName::new(&settings.cluster_domain),
            lifetimes: Lifetimes { floor: settings.floor, cap: settings.cap },
            metrics,
        }
    }

    /// Another book is in force. Answers what pods were told before and shall have by this one too: what is not
    /// confirmed of it is told again with the next answers.
    pub fn turn_to(self: &Arc<Self>, pages: Pages) -> Vec<Lesson> {
        let kept = teaching::carried(&self.memory(), (&self.pages(), &pages), (&self.cluster, now()));
        *self.pages.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pages);
        self.turned.notify_waiters();
        self.agent_is_there.store(true, Ordering::Relaxed);
        let told = |part: &[(Told, Names)]| {
            let (reply, confirmed) = oneshot::channel();
            let (exchange, part) = (Arc::clone(self), part.to_vec());
            let lessons = part.iter().map(|(told, _)| told.clone()).collect();
            tokio::spawn(async move {
                if confirmed.await.is_ok() {
                    part.iter().for_each(|(told, names)| exchange.memory().note_all(told, names));
                }
            });
            (lessons, reply)
        };
        kept.chunks(AT_ONCE).map(told).collect()
    }

    /// An agent is there, and may know less than the one before: everything is told once more, when it knows its pods.
    pub fn agent_came(&self) {
        self.memory().doubt_all();
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The agent is gone: what stands, stands.
    pub fn agent_went(&self) {
        self.agent_is_there.store(false, Ordering::Relaxed);
    }

    /// Forgets what has ended.
    pub fn sweep(&self) {
        let (pages, now) = (self.pages(), now());
        self.memory().sweep(now);
        self.ledger().sweep(now, |pod| pages.knows(pod));
    }

    /// Tells the agent of names in trouble, if they are others than it knows of.
    pub fn tell_names(&self) {
        if !self.agent_is_there.load(Ordering::Relaxed) {
            return;
        }
        let names = self.troubles().settled(Instant::now());
        let mut told = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_ref() != Some(&names) {
            self.link.names(names.clone());
            *told = Some(names);
        }
    }

    /// What pods asked for and got.
    pub fn page(&self) -> Vec<Entry> {
        self.ledger().page(now())
    }

    /// The answer for a pod; `None`: it gets none, and asks again.
    pub async fn answer(
        &self,
        pod: IpAddr,
        server: IpAddr,
        query: &[u8],
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let begun = Instant::now();
        self.metrics.query(transport);
        let _turn = self.take_turn(pod)?;
        let question = Question::read(query)?;
        let Some(reader) = self.reader(pod).await else {
            self.metrics.refuse(Refusal::Stranger);
            return question.refusal(ResponseCode::Refused);
        };
        if !reader.servers.contains(&server) {
            self.metrics.refuse(Refusal::Server);
            return question.refusal(ResponseCode::Refused);
        }
        let asked = Instant::now();
        let upstream = self.asking.ask(server, &question, query, transport).await;
        let waited = asked.elapsed();
        let answered = match upstream {
            Ok(answered) => answered,
            Err(error) => {
                tracing::debug!(%server, name = %question.name, %error, "asking for a pod");
                self.metrics.refuse(Refusal::Silent);
                return match error {
                    // Nobody is there; the pod need not wait to find out.
                    std::io::ErrorKind::ConnectionRefused => question.refusal(ResponseCode::ServFail),
                    _ => None,
                };
            }
        };
        let cap = match self.teach_whoever_asked(pod, &reader, &question, &answered.reply).await? {
            Ok(cap) => cap,
            Err(refusal) => {
                self.metrics.refuse(refusal);
                return question.refusal(code(refusal));
            }
        };
        let mut answer = answered.bytes.clone();
        message::set_id(&mut answer, question.id);
        message::cap_lifetimes(&mut answer, cap);
        self.metrics.added_seconds.observe(begun.elapsed().saturating_sub(waited).as_secs_f64());
        Some(answer)
    }

    /// By the book of now: the pod that asked may be gone, and another one have its address; that one gets nothing.
    async fn teach_whoever_asked(
        &self,
        pod: IpAddr,
        asked: &Reader,
        question: &Question,
        reply: &Reply,
    ) -> Option<Result<u32, Refusal>> {
        loop {
            let pages = self.pages();
            let reader = pages.reader(pod).filter(|now| now.uid == asked.uid)?;
            let taught = self.teach(&pages, reader, question, reply).await;
            // By a book that came meanwhile it may be for other lists.
            if taught.is_err() || Arc::ptr_eq(&pages, &self.pages()) {
                return Some(taught);
            }
        }
    }

    /// Has what the answer says opened, if a policy lists its name. Answers for how many seconds it may be cached at
    /// most.
    async fn teach(
        &self,
        pages: &Pages,
        reader: &Reader,
        question: &Question,
        reply: &Reply,
    ) -> Result<u32, Refusal> {
        let cap = self.cap();
        if !question.asks_for_addresses() {
            return Ok(cap);
        }
        let (given, now) = (reply.given(question), now());
        // Most services hint at nothing, and that says nothing of their names.
        if given.addresses.is_empty() && question.asks_for_hints() {
            return Ok(cap);
        }
        let bounds = (&self.cluster, self.lifetimes, now);
        let lessons = match teaching::judge(pages, reader, &question.name, &given, bounds) {
            // What a search list adds to a name has no address, and is nobody's wish.
            Judgement::Unlisted if given.addresses.is_empty() => return Ok(cap),
            Judgement::Unlisted => {
                let nearest = pages.nearest(reader, &question.name);
                self.note(reader, question, (Outcome::Unlisted, nearest), &[]);
                return Ok(cap);
            }
            Judgement::Teaches(lessons) if lessons.is_empty() => {
                self.trouble((pages, reader), question, NameTrouble::Unresolved);
                self.note(reader, question, (Outcome::Unresolved, None), &[]);
                return Ok(cap);
            }
            Judgement::Teaches(lessons) => lessons,
            Judgement::Rebinds(address) => {
                tracing::warn!(pod = reader.pod, name = %question.name, %address, "a private address for a public name: refused");
                self.note(reader, question, (Outcome::Refused, None), &[]);
                return Err(Refusal::Rebinding);
            }
        };
        let wanted = now.saturating_add(self.lifetimes.needed(given.ttl));
        self.have_open((pages, reader), question, lessons, wanted).await
    }

    /// For how many seconds any answer may be cached.
    fn cap(&self) -> u32 {
        u32::try_from(self.lifetimes.cap.as_secs()).unwrap_or(u32::MAX)
    }

    /// Has opened what is not open until then.
    async fn have_open(
        &self,
        (pages, reader): (&Pages, &Reader),
        question: &Question,
        lessons: Vec<Told>,
        wanted: u64,
    ) -> Result<u32, Refusal> {
        let missing = self.memory().missing(&question.name, &lessons, wanted);
        let opened: Vec<Open> = missing
            .iter()
            .map(|told| Open { address: told.address, pod: told.pod, ends: told.ends })
            .collect();
        let confirmed = if missing.is_empty() {
            self.metrics.known.inc();
            Ok(u64::MAX)
        } else if self.memory().is_full(&missing) {
            tracing::warn!(pod = reader.pod, name = %question.name, "it holds as many addresses as it may");
            self.trouble((pages, reader), question, NameTrouble::AtCapacity);
            return Err(Refusal::Full);
        } else {
            self.confirm(&question.name, &lessons, missing).await
        };
        match confirmed {
            Ok(ends) => {
                self.troubles().good(question.name.as_str());
                self.note(reader, question, (Outcome::Open, None), &opened);
                let left = ends.saturating_sub(now()) / 1000;
                Ok(self.cap().min(u32::try_from(left).unwrap_or(u32::MAX)))
            }
            Err(refusal) => {
                self.note(reader, question, (Outcome::Refused, None), &[]);
                Err(refusal)
            }
        }
    }

    fn trouble(&self, (pages, reader): (&Pages, &Reader), question: &Question, what: NameTrouble) {
        let lists = pages.allowing(reader, &question.name).map(|(id, _)| id.clone()).collect();
        self.troubles().bad(what, question.name.as_str(), lists, Instant::now());
    }

    fn note(
        &self,
        reader: &Reader,
        question: &Question,
        (outcome, nearest): (Outcome, Option<String>),
        open: &[Open],
    ) {
        let name = &question.name;
        let problem = match (outcome, &nearest) {
            // That it has no address is told in the status of its policy, once it is sure.
            (Outcome::Open | Outcome::Unresolved, _) => None,
            (Outcome::Unlisted, Some(nearest)) => {
                Some(format!("asked for {name}, which no policy lists; {nearest} comes closest"))
            }
            (Outcome::Unlisted, None) => Some(format!("asked for {name}, and no policy lists any name")),
            (Outcome::Refused, _) => Some(format!("asked for {name}; the answer was refused")),
        };
        let new = self.ledger().note((&reader.pod, name.as_str()), outcome, nearest, open);
        if let Some(problem) = problem.filter(|_| new && self.may_remark(&reader.pod)) {
            self.link.remark(&reader.pod, &reader.uid, problem);
        }
    }

    fn may_remark(&self, pod: &str) -> bool {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner).allows(pod, Instant::now())
    }

    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pages(&self) -> Arc<Pages> {
        Arc::clone(&self.pages.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers when the first of them ends, if nobody is there to let it last longer.
    async fn confirm(&self, name: &DomainName, lessons: &[Told], missing: Vec<Told>) -> Result<u64, Refusal> {
        /// What ends within this time is as good as gone.
        const MARGIN: u64 = 1000;
        let stands = || self.memory().stand(lessons, now() + MARGIN);
        // Without an agent nothing new is opened, but what is open may be used.
        if !self.agent_is_there.load(Ordering::Relaxed)
            && let Some(ends) = stands()
        {
            return Ok(ends);
        }
        self.metrics.told.inc_by(missing.len() as u64);
        match tokio::time::timeout(CONFIRMATION, self.link.teach(missing.clone())).await {
            Ok(Ok(())) => {
                self.memory().note(name, &missing);
                Ok(u64::MAX)
            }
            Ok(Err(_)) | Err(_) => stands().ok_or(Refusal::Unconfirmed),
        }
    }

    /// The pod of an address. One that is taken to us and is not in the book will be in a moment.
    async fn reader(&self, pod: IpAddr) -> Option<Arc<Reader>> {
        let until = tokio::time::Instant::now() + UNKNOWN;
        loop {
            let turned = self.turned.notified();
            if let Some(reader) = self.pages().reader(pod).cloned() {
                return Some(reader);
            }
            tokio::time::timeout_at(until, turned).await.ok()?;
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_turn(&self, pod: IpAddr) -> Option<Turn> {
        let turn = self.turns.take(pod);
        if turn.is_none() {
            self.metrics.refuse(Refusal::Busy);
        }
        turn
    }
}

const fn code(refusal: Refusal) -> ResponseCode {
    match refusal {
        Refusal::Rebinding => ResponseCode::Refused,
        Refusal::Stranger
        | Refusal::Server
        | Refusal::Unconfirmed
        | Refusal::Full
        | Refusal::Busy
        | Refusal::Silent => ResponseCode::ServFail,
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

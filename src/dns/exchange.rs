//! One query from its pod to its answer.
//!
//! Owns what is refused and what is held back: an answer that teaches something leaves when the kernel confirmed it,
//! or becomes a server failure, never an address that is not open.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hickory_proto::op::ResponseCode;
use podwall_crd::node_report::NameTrouble;
use podwall_engine::model::DomainName;
use podwall_engine::readers::Reader;
use tokio::sync::Notify;

use super::Settings;
use super::book::Pages;
use super::ledger::{Entry, Ledger, Open, Outcome};
use super::link::Link;
use super::memory::Memory;
use super::message::{self, Question, Reply};
use super::metrics::{Metrics, Refusal};
use super::teaching::{self, Judgement, Lifetimes};
use super::troubles::Troubles;
use super::upstream::{self, Transport};
use super::words::{Named, Told};

/// How long a query of a pod that is not in the book yet waits for the book.
const UNKNOWN: Duration = Duration::from_secs(1);
/// How long an answer waits to be confirmed.
const CONFIRMATION: Duration = Duration::from_secs(2);
/// Questions one pod may have open.
const MOST_OPEN: usize = 256;

/// What all queries share.
pub struct Exchange {
    pages: RwLock<Arc<Pages>>,
    turned: Notify,
    memory: Mutex<Memory>,
    ledger: Mutex<Ledger>,
    troubles: Mutex<Troubles>,
    /// Names in trouble the agent was told of; `None`: it has to be told.
    named: Mutex<Option<Vec<Named>>>,
    /// When something was told of a pod last.
    remarked: Mutex<BTreeMap<String, Instant>>,
    open: Mutex<BTreeMap<IpAddr, usize>>,
    link: Link,
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
            remarked: Mutex::default(),
            open: Mutex::default(),
            link,
            agent_is_there: AtomicBool::new(false),
            cluster: DomainName::new(&settings.cluster_domain),
            lifetimes: Lifetimes { floor: settings.floor, cap: settings.cap },
            metrics,
        }
    }

    /// Another book is in force.
    pub fn turn_to(&self, pages: Pages) {
        *self.pages.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pages);
        self.turned.notify_waiters();
    }

    /// An agent is there, and may know less than the one before: everything is told once more.
    pub fn agent_came(&self) {
        self.memory().forget_all();
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.agent_is_there.store(true, Ordering::Relaxed);
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
        let question = Question::read(query)?;
        let _turn = self.take_turn(pod)?;
        let Some((pages, reader)) = self.reader(pod).await else {
            self.metrics.refuse(Refusal::Stranger);
            return question.refusal(ResponseCode::Refused);
        };
        if !reader.servers.contains(&server) {
            self.metrics.refuse(Refusal::Server);
            return question.refusal(ResponseCode::Refused);
        }
        let asked = Instant::now();
        let upstream = upstream::ask(server, &question, query, transport).await;
        let waited = asked.elapsed();
        let (mut answer, reply) = match upstream {
            Ok(answered) => answered,
            Err(error) => {
                tracing::debug!(%server, name = %question.name, %error, "asking for a pod");
                self.metrics.refuse(Refusal::Silent);
                return match error.kind() {
                    // Nobody is there; the pod need not wait to find out.
                    std::io::ErrorKind::ConnectionRefused => question.refusal(ResponseCode::ServFail),
                    _ => None,
                };
            }
        };
        if let Err(refusal) = self.teach(&pages, &reader, &question, &reply).await {
            self.metrics.refuse(refusal);
            let code = match refusal {
                Refusal::Rebinding => ResponseCode::Refused,
                Refusal::Stranger
                | Refusal::Server
                | Refusal::Unconfirmed
                | Refusal::Full
                | Refusal::Busy
                | Refusal::Silent => ResponseCode::ServFail,
            };
            return question.refusal(code);
        }
        message::cap_lifetimes(&mut answer, u32::try_from(self.lifetimes.cap.as_secs()).unwrap_or(u32::MAX));
        self.metrics.added_seconds.observe(begun.elapsed().saturating_sub(waited).as_secs_f64());
        Some(answer)
    }

    /// Has what the answer says opened, if a policy lists its name.
    async fn teach(
        &self,
        pages: &Pages,
        reader: &Reader,
        question: &Question,
        reply: &Reply,
    ) -> Result<(), Refusal> {
        if !question.asks_for_addresses() {
            return Ok(());
        }
        let (given, now) = (reply.given(question), now());
        let bounds = (&self.cluster, self.lifetimes, now);
        let lessons = match teaching::judge(pages, reader, &question.name, &given, bounds) {
            // What a search list adds to a name has no address, and is nobody's wish.
            Judgement::Unlisted if given.addresses.is_empty() => return Ok(()),
            Judgement::Unlisted => {
                let nearest = pages.nearest(reader, &question.name);
                self.note(reader, question, (Outcome::Unlisted, nearest), &[]);
                return Ok(());
            }
            Judgement::Teaches(lessons) if lessons.is_empty() => {
                self.trouble((pages, reader), question, NameTrouble::Unresolved);
                self.note(reader, question, (Outcome::Unresolved, None), &[]);
                return Ok(());
            }
            Judgement::Teaches(lessons) => lessons,
            Judgement::Rebinds(address) => {
                tracing::warn!(pod = reader.pod, name = %question.name, %address, "a private address for a public name: refused");
                self.note(reader, question, (Outcome::Refused, None), &[]);
                return Err(Refusal::Rebinding);
            }
        };
        let wanted = now.saturating_add(self.lifetimes.needed(given.ttl));
        let missing = self.memory().missing(&lessons, wanted);
        if missing.is_empty() {
            self.metrics.known.inc();
            self.troubles().good(question.name.as_str());
            self.note(reader, question, (Outcome::Open, None), &[]);
            return Ok(());
        }
        if self.memory().is_full(&missing) {
            tracing::warn!(pod = reader.pod, name = %question.name, "it holds as many addresses as it may");
            self.trouble((pages, reader), question, NameTrouble::AtCapacity);
            return Err(Refusal::Full);
        }
        let opened: Vec<Open> = missing
            .iter()
            .map(|told| Open { address: told.address, pod: told.pod, ends: told.ends })
            .collect();
        let confirmed = self.confirm(&lessons, missing, now).await;
        match confirmed {
            Ok(()) => {
                self.troubles().good(question.name.as_str());
                self.note(reader, question, (Outcome::Open, None), &opened);
            }
            Err(_) => self.note(reader, question, (Outcome::Refused, None), &[]),
        }
        confirmed
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

    /// Of one pod something is told every other second at most.
    fn may_remark(&self, pod: &str) -> bool {
        const PACE: Duration = Duration::from_secs(2);
        let mut remarked = self.remarked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        remarked.retain(|_, last| now.duration_since(*last) < PACE);
        let may = !remarked.contains_key(pod);
        if may {
            remarked.insert(pod.to_owned(), now);
        }
        may
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

    async fn confirm(&self, lessons: &[Told], missing: Vec<Told>, now: u64) -> Result<(), Refusal> {
        /// What ends within this time is as good as gone.
        const MARGIN: u64 = 1000;
        // Without an agent nothing new is opened, but what is open may be used.
        if !self.agent_is_there.load(Ordering::Relaxed) && self.memory().stand(lessons, now + MARGIN) {
            return Ok(());
        }
        self.metrics.told.inc_by(missing.len() as u64);
        match tokio::time::timeout(CONFIRMATION, self.link.teach(missing.clone())).await {
            Ok(Ok(())) => {
                self.memory().note(&missing);
                Ok(())
            }
            Ok(Err(_)) | Err(_) if self.memory().stand(lessons, self::now() + MARGIN) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Refusal::Unconfirmed),
        }
    }

    /// The pod of an address. One that is taken to us and is not in the book will be in a moment.
    async fn reader(&self, pod: IpAddr) -> Option<(Arc<Pages>, Arc<Reader>)> {
        let until = tokio::time::Instant::now() + UNKNOWN;
        loop {
            let turned = self.turned.notified();
            let pages = self.pages();
            if let Some(reader) = pages.reader(pod).cloned() {
                return Some((pages, reader));
            }
            tokio::time::timeout_at(until, turned).await.ok()?;
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_turn(&self, pod: IpAddr) -> Option<Turn<'_>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(pod).or_default();
        if *count >= MOST_OPEN {
            self.metrics.refuse(Refusal::Busy);
            return None;
        }
        *count += 1;
        Some(Turn { exchange: self, pod })
    }
}

/// One open question of a pod.
struct Turn<'a> {
    exchange: &'a Exchange,
    pod: IpAddr,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut open = self.exchange.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.pod) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.pod);
            }
        }
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

//! Questions that are open, each asked once.
//!
//! Owns that nobody multiplies the chances of a forger: he has to guess port and id of an open question, and a pod that
//! works with him would leave hundreds of the same open (RFC 5452, 5; the birthday attack). So the same bytes are asked
//! once however many wait for the answer, and of other bytes with the same question a few are open at a time.
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use hickory_proto::rr::RecordType;
use podwall_engine::model::DomainName;
use tokio::sync::Semaphore;

use super::message::{Question, Reply};
use super::upstream::{self, Transport};

/// How many of one question are open at a time.
const MOST_ALIKE: usize = 8;

/// What came back.
#[derive(Debug)]
pub struct Answered {
    /// As its server wrote it, but for the id.
    pub bytes: Vec<u8>,
    /// The same, read.
    pub reply: Reply,
}

type Outcome = Result<Arc<Answered>, io::ErrorKind>;
/// Whom, how, and all but the id.
type Key = (IpAddr, Transport, Vec<u8>);
type Alike = (IpAddr, DomainName, RecordType);

/// All of them.
#[derive(Debug, Default)]
pub struct Asking {
    open: Mutex<BTreeMap<Key, Shared<BoxFuture<'static, Outcome>>>>,
    alike: Mutex<BTreeMap<Alike, Arc<Semaphore>>>,
}

impl Asking {
    /// Asks, or waits for the answer to the same question of somebody else.
    pub async fn ask(&self, server: IpAddr, question: &Question, query: &[u8], by: Transport) -> Outcome {
        let key: Key = (server, by, query.get(2..).unwrap_or_default().to_vec());
        let open = self.open().get(&key).cloned();
        if let Some(open) = open {
            return open.await;
        }
        let alike: Alike = (server, question.name.clone(), question.query.query_type());
        let places = {
            let mut all = lock(&self.alike);
            Arc::clone(all.entry(alike.clone()).or_insert_with(|| Arc::new(Semaphore::new(MOST_ALIKE))))
        };
        // It is never closed.
        let place = places.acquire().await;
        let open = self.open().get(&key).cloned();
        let asked = open.unwrap_or_else(|| self.begin(key.clone(), question.clone(), query.to_vec()));
        let outcome = asked.clone().await;
        drop(place);
        let mut open = self.open();
        if open.get(&key).is_some_and(|open| open.ptr_eq(&asked)) {
            open.remove(&key);
        }
        drop(open);
        let mut all = lock(&self.alike);
        // This one's, and the one in the map.
        if Arc::strong_count(&places) == 2 {
            all.remove(&alike);
        }
        outcome
    }

    fn begin(&self, key: Key, question: Question, query: Vec<u8>) -> Shared<BoxFuture<'static, Outcome>> {
        let (server, by, _) = key;
        let asked = async move {
            let asked = upstream::ask(server, &question, &query, by).await;
            asked.map(|(bytes, reply)| Arc::new(Answered { bytes, reply })).map_err(|error| error.kind())
        };
        let asked = asked.boxed().shared();
        self.open().insert(key, asked.clone());
        asked
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<Key, Shared<BoxFuture<'static, Outcome>>>> {
        lock(&self.open)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::time::Duration;

    use hickory_proto::op::{Edns, Message, OpCode, Query};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record};

    use super::*;

    /// A query whose bytes differ by the size it says it can take.
    fn query(payload: u16) -> Vec<u8> {
        let mut message = Message::query();
        let name = Name::from_ascii("www.example.com.").unwrap();
        message.add_query(Query::query(name, RecordType::A));
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
        message.to_vec().unwrap()
    }

    /// Counts what comes within a moment, then answers all of it.
    fn serve(socket: &UdpSocket) -> usize {
        let mut asked = Vec::new();
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            asked.push((Message::from_vec(&buffer[..length]).unwrap(), from));
        }
        for (query, from) in &asked {
            let mut answer = Message::response(query.metadata.id, OpCode::Query);
            answer.add_query(query.queries[0].clone());
            let data = RData::A(A(Ipv4Addr::new(198, 51, 100, 1)));
            answer.add_answer(Record::from_rdata(query.queries[0].name().clone(), 60, data));
            socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
        }
        asked.len()
    }

    #[tokio::test]
    async fn the_same_question_is_open_once_and_others_like_it_a_few_at_a_time() {
        // Nobody else serves names at this address of the loopback interface.
        let server = Ipv4Addr::new(127, 53, 53, 77);
        let Ok(socket) = UdpSocket::bind((server, 53)) else {
            println!("skipped: port 53 is for root alone");
            return;
        };
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let serving = std::thread::spawn(move || [serve(&socket), serve(&socket), serve(&socket)]);
        let asking = Arc::new(Asking::default());
        let ask = |payload: u16| {
            let (asking, bytes) = (Arc::clone(&asking), query(payload));
            tokio::spawn(async move {
                let question = Question::read(&bytes).unwrap();
                asking.ask(server.into(), &question, &bytes, Transport::Udp).await.is_ok()
            })
        };
        let same = (0..50).map(|_| 1232);
        let waiting: Vec<_> = same.chain(2000..2011).map(ask).collect();
        for answered in waiting {
            assert!(answered.await.unwrap());
        }
        assert_eq!(serving.join().unwrap(), [8, 4, 0]);
        assert!(asking.open().is_empty() && lock(&asking.alike).is_empty());
    }
}

//! The demo's name server: says what its few names have, and they can be moved while it runs.
//!
//! By UDP alone: its answers are small. Messages are hickory's; a whole server of theirs would bring more than it saves.
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use podwall_lab::Netns;
use podwall_ruleset::Family;

use super::stage::failed;
use crate::cli::CliError;

/// Where name servers listen.
pub const PORT: u16 = 53;
/// How long its answers may be cached, in seconds.
const LIFETIME: u32 = 30;
/// How often it looks whether it shall stop.
const GLANCE: Duration = Duration::from_millis(20);
/// How long a client waits before it asks again; on one machine an answer takes about a millisecond.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a client asks.
const PATIENCE: Duration = Duration::from_secs(3);

/// Names in lower case without the final dot, and what they have.
type Zone = BTreeMap<String, Vec<IpAddr>>;

/// A server under way; it stops when dropped.
pub struct NameServer {
    zone: Arc<Mutex<Zone>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl NameServer {
    /// Serves an empty zone on these addresses of the namespace.
    pub fn start(netns: &Netns, addresses: &[IpAddr]) -> Result<Self, CliError> {
        let (zone, stop) = (Arc::<Mutex<Zone>>::default(), Arc::<AtomicBool>::default());
        let mut server = Self { zone, stop, threads: Vec::new() };
        for address in addresses {
            let socket = netns.run(|| UdpSocket::bind(SocketAddr::new(*address, PORT)));
            let socket = socket.map_err(|error| failed("starting the name server", error))?;
            let (zone, stop) = (Arc::clone(&server.zone), Arc::clone(&server.stop));
            let thread = socket.and_then(|socket| {
                socket.set_read_timeout(Some(GLANCE))?;
                std::thread::Builder::new()
                    .name("name-server".to_owned())
                    .spawn(move || serve(&socket, &zone, &stop))
            });
            server.threads.push(thread.map_err(|error| CliError::io("starting the name server", error))?);
        }
        Ok(server)
    }

    /// From now on the name has these addresses.
    pub fn point(&self, name: &str, addresses: &[IpAddr]) {
        let mut zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        zone.insert(name.to_owned(), addresses.to_vec());
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there would only mean that it is gone, which is what is wanted here.
            drop(thread.join());
        }
    }
}

fn serve(socket: &UdpSocket, zone: &Mutex<Zone>, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        // An error is the end of the glance, or an earlier answer that nobody waited for.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let query = buffer.get(..length).unwrap_or_default();
        let said = answer(query, &zone.lock().unwrap_or_else(PoisonError::into_inner));
        // What is no query comes back as it is: the tables only ask whether anybody is there.
        drop(socket.send_to(said.as_deref().unwrap_or(query), from));
    }
}

fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let asked = query.queries.first()?;
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.metadata.authoritative = true;
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.add_query(asked.clone());
    match zone.get(asked.name().to_lowercase().to_ascii().trim_end_matches('.')) {
        Some(addresses) => {
            let data = addresses.iter().map(|address| match address {
                IpAddr::V4(v4) => RData::A(A(*v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
            });
            for data in data.filter(|data| data.record_type() == asked.query_type()) {
                answer.add_answer(Record::from_rdata(asked.name().clone(), LIFETIME, data));
            }
        }
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer.to_vec().ok()
}

/// Asks a name server from the namespace of this thread, until it answers, as resolvers do.
pub fn resolve(server: IpAddr, name: &str, family: Family) -> io::Result<Vec<IpAddr>> {
    let start = Instant::now();
    loop {
        match ask(server, name, family) {
            Err(error) if start.elapsed() > PATIENCE => return Err(error),
            // Late, or refused by a proxy that was there a moment ago.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
            answered => return answered,
        }
    }
}

fn ask(server: IpAddr, name: &str, family: Family) -> io::Result<Vec<IpAddr>> {
    let (any, kind) = match family {
        Family::V4 => ("0.0.0.0:0", RecordType::A),
        Family::V6 => ("[::]:0", RecordType::AAAA),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(SocketAddr::new(server, PORT))?;
    socket.set_read_timeout(Some(AGAIN))?;
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).map_err(io::Error::other)?, kind));
    socket.send(&query.to_vec().map_err(io::Error::other)?)?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    let answer = Message::from_vec(buffer.get(..length).unwrap_or_default()).map_err(io::Error::other)?;
    let address = |record: &Record| match &record.data {
        RData::A(a) => Some(IpAddr::from(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::from(aaaa.0)),
        _ => None,
    };
    Ok(answer.answers.iter().filter_map(address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// What a zone with one name of both families answers.
    fn told(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let zone = Zone::from([("api.example".to_owned(), vec![ip("192.0.2.1"), ip("2001:db8::1")])]);
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let answer = Message::from_vec(&answer(&query.to_vec().unwrap(), &zone).unwrap()).unwrap();
        assert_eq!(answer.metadata.id, query.metadata.id);
        let records = answer.answers.iter().map(|record| record.data.to_string()).collect();
        (answer.metadata.response_code, records)
    }

    #[test]
    fn a_name_has_what_it_points_to_in_each_family_apart_and_others_are_not_there() {
        assert_eq!(
            told("API.example.", RecordType::A),
            (ResponseCode::NoError, vec!["192.0.2.1".to_owned()])
        );
        let v6 = vec!["2001:db8::1".to_owned()];
        assert_eq!(told("api.example.", RecordType::AAAA), (ResponseCode::NoError, v6));
        assert_eq!(told("other.example.", RecordType::A), (ResponseCode::NXDomain, vec![]));
    }

    #[test]
    fn what_is_no_query_is_not_answered_as_one() {
        assert_eq!(answer(b"?", &Zone::new()), None);
    }
}

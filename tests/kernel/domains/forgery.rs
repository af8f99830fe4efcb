//! Answers of somebody else: what does not come from the server that was asked, or does not fit the question, opens
//! nothing.
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::str::FromStr as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::ground::{FARM, SERVER, resolve};
use super::{ground, ip, spec};

/// What the right answer of [`forge`] has beside the way to the name.
const STRAY: &str = "198.18.1.77";
/// What the wrong ones have.
const FORGED: &str = "198.18.1.66";
/// What the other machine answers, and what the right one does, by the family of the question.
const ELSEWHERE: [(&str, &str); 2] = [("198.18.1.67", "198.18.1.2"), ("198.18.1.68", "198.18.1.3")];

/// The words of an answer to a question for an address.
fn words(id: u16, name: &Name, records: &[(&Name, &str)]) -> Vec<u8> {
    let mut answer = Message::response(id, OpCode::Query);
    answer.add_query(Query::query(name.clone(), RecordType::A));
    for (owner, address) in records {
        let data = RData::A(A(address.parse().unwrap()));
        answer.add_answer(Record::from_rdata((*owner).clone(), 60, data));
    }
    answer.to_vec().unwrap()
}

/// A name server in the namespace of this thread that sends what a forger would before each right answer: a wrong id, a
/// wrong question, another port of its own.
fn forge() {
    let socket = UdpSocket::bind((SERVER[0], 53)).expect("nobody else serves");
    let stranger = UdpSocket::bind((SERVER[0], 0)).expect("there are ports");
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
        let asked = query.queries[0].name().clone();
        let (id, other) = (query.metadata.id, Name::from_str("else.example.com.").unwrap());
        drop(socket.send_to(&words(id.wrapping_add(1), &asked, &[(&asked, FORGED)]), from));
        drop(socket.send_to(&words(id, &other, &[(&asked, FORGED)]), from));
        drop(stranger.send_to(&words(id, &asked, &[(&asked, FORGED)]), from));
        std::thread::sleep(Duration::from_millis(20));
        drop(socket.send_to(&words(id, &asked, &[(&asked, "198.18.1.1"), (&other, STRAY)]), from));
    }
}

#[test]
fn forged_answers_open_nothing_and_do_not_stand_in_the_way_of_the_right_one() {
    let Some(mut ground) = ground("", &spec(&["*.example.com"]), &[]) else { return };
    ground.knot.stop();
    let names = ground.rig.lab.host("names").unwrap().netns().clone();
    names.spawn_thread("forger", forge).unwrap();
    let pod = ground.pod("blue/ant");
    for name in ["one.example.com.", "two.example.com."] {
        let answer = pod.run(move || resolve(SERVER[0], name, RecordType::A)).unwrap();
        assert_eq!(answer, Ok(vec![ip("198.18.1.1"), ip(STRAY)]), "{name}");
    }
    assert!(ground.reaches("blue/ant", "198.18.1.1"));
    for forged in [STRAY, FORGED] {
        assert!(!ground.reaches("blue/ant", forged), "{forged}");
    }
}

/// A right question, whole: what to say to it, and to whom.
type Overheard = (Vec<u8>, SocketAddr);

/// Knows each question of the server, and answers in its place: with its id, from port 53, to the port it came from, but
/// from an address of its own. Says whether that arrived and nobody there wanted it.
fn intrude(own: &str, overheard: &Receiver<Overheard>, unwanted: &Sender<bool>) {
    for (words, from) in overheard {
        let socket = UdpSocket::bind((own, 53)).expect("nobody else serves");
        socket.connect(from).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.send(&words).unwrap();
        // A host says so if no socket takes a datagram (RFC 1122, 4.1.3.1).
        let refused = socket.recv(&mut [0; 1]).unwrap_err();
        unwanted.send(refused.kind() == std::io::ErrorKind::ConnectionRefused).unwrap();
    }
}

/// The server: lets the other one go first, and then answers itself. What begins with `same` it answers at once, in the
/// other one's words.
fn serve(own: &str, (forged, right): (&str, &str), intruder: &Sender<Overheard>, gone: &Receiver<bool>) {
    let socket = UdpSocket::bind((own, 53)).expect("nobody else serves");
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
        let (id, asked) = (query.metadata.id, query.queries[0].name().clone());
        let forged = words(id, &asked, &[(&asked, forged)]);
        if asked.to_string().starts_with("same") {
            drop(socket.send_to(&forged, from));
            continue;
        }
        drop(intruder.send((forged, from)));
        assert!(gone.recv().unwrap(), "the other machine's answer did not arrive");
        drop(socket.send_to(&words(id, &asked, &[(&asked, right)]), from));
    }
}

#[test]
fn what_another_machine_answers_opens_nothing_and_the_same_words_of_the_server_that_was_asked_do() {
    let Some(mut ground) = ground("", &spec(&["*.example.com"]), &[]) else { return };
    ground.knot.stop();
    let host = |name: &str| ground.rig.lab.host(name).unwrap().netns().clone();
    let pod = ground.pod("blue/ant");
    for ((server, other), answers) in SERVER.into_iter().zip(FARM).zip(ELSEWHERE) {
        let ((tell, told), (say, said)) = (channel(), channel());
        host("farm").spawn_thread("intruder", move || intrude(other, &told, &say)).unwrap();
        host("names").spawn_thread("server", move || serve(server, answers, &tell, &said)).unwrap();
        let asks = |name: &'static str| -> Vec<IpAddr> {
            pod.run(move || resolve(server, name, RecordType::A)).unwrap().unwrap_or_default()
        };
        let (forged, right) = answers;
        assert_eq!(asks("one.example.com."), [ip(right)], "{server}");
        assert!(ground.reaches("blue/ant", right) && !ground.reaches("blue/ant", forged), "{server}");
        assert_eq!(asks("same.example.com."), [ip(forged)], "{server}");
        assert!(ground.reaches("blue/ant", forged), "{server}");
    }
}

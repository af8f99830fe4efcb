use std::str::FromStr as _;

use hickory_proto::op::Edns;
use hickory_proto::rr::rdata::svcb::{Alpn, IpHint, SvcParamKey};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS};
use hickory_proto::rr::{DNSClass, Record};

use super::*;

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

fn asking(text: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 77;
    message.add_query(Query::query(name(text), kind));
    message
}

fn question(text: &str) -> Question {
    Question::read(&asking(text, RecordType::A).to_vec().unwrap()).unwrap()
}

fn answering(question: &Question, records: Vec<Record>) -> Message {
    let mut message = Message::response(question.id, OpCode::Query);
    message.add_query(question.query.clone());
    message.add_answers(records);
    message
}

fn a(owner: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A([198, 51, 100, last].into())))
}

fn cname(owner: &str, ttl: u32, to: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(to))))
}

fn given(question: &Question, records: Vec<Record>) -> (Vec<String>, u32) {
    let bytes = answering(question, records).to_vec().unwrap();
    let given = Reply::read(&bytes, question, question.id).unwrap().given(question);
    (given.addresses.iter().map(ToString::to_string).collect(), given.ttl)
}

#[test]
fn addresses_are_those_at_the_end_of_the_names_own_chain_with_its_shortest_lifetime() {
    let asked = question("WWW.example.com.");
    let six =
        Record::from_rdata(name("edge.cdn.net."), 90, RData::AAAA(AAAA("2001:db8::1".parse().unwrap())));
    let chain = vec![
        a("edge.cdn.net.", 60, 1),
        cname("mid.example.net.", 20, "Edge.cdn.net."),
        cname("www.Example.com.", 300, "mid.example.net."),
        six,
        a("evil.net.", 5, 66),
        cname("evil.net.", 1, "www.example.com."),
    ];
    assert_eq!(given(&asked, chain), (vec!["198.51.100.1".to_owned(), "2001:db8::1".to_owned()], 20));
}

#[test]
fn stray_records_a_loop_and_an_error_give_nothing() {
    let asked = question("www.example.com.");
    assert_eq!(given(&asked, vec![a("other.example.com.", 60, 1)]).0, Vec::<String>::new());
    let turning = vec![cname("www.example.com.", 60, "a.net."), cname("a.net.", 60, "www.example.com.")];
    assert_eq!(given(&asked, turning).0, Vec::<String>::new());
    let mut failed = answering(&asked, vec![a("www.example.com.", 60, 1)]);
    failed.metadata.response_code = ResponseCode::NXDomain;
    let reply = Reply::read(&failed.to_vec().unwrap(), &asked, 77).unwrap();
    assert!(reply.given(&asked).addresses.is_empty());
}

#[test]
fn an_answer_to_another_question_or_of_another_id_is_none() {
    let asked = question("www.example.com.");
    let right = answering(&asked, vec![a("www.example.com.", 60, 1)]);
    let reads = |message: &Message, id| Reply::read(&message.to_vec().unwrap(), &asked, id).is_some();
    assert!(reads(&right, 77) && !reads(&right, 78));
    let other = answering(&question("example.com."), vec![a("www.example.com.", 60, 1)]);
    assert!(!reads(&other, 77) && !reads(&asking("www.example.com.", RecordType::A), 77));
    let mut class = right.clone();
    class.queries[0].set_query_class(DNSClass::CH);
    assert!(!reads(&class, 77));
    let mut silent = Message::error_msg(77, OpCode::Query, ResponseCode::FormErr);
    assert!(reads(&silent, 77));
    silent.metadata.response_code = ResponseCode::NoError;
    assert!(!reads(&silent, 77));
}

#[test]
fn only_a_plain_query_for_one_name_is_a_question() {
    let good = asking("www.example.com.", RecordType::A);
    let reads = |message: &Message| Question::read(&message.to_vec().unwrap()).is_some();
    assert!(reads(&good));
    let mut two = good.clone();
    two.add_query(good.queries[0].clone());
    let mut answer = good.clone();
    answer.metadata.message_type = MessageType::Response;
    let mut update = good.clone();
    update.metadata.op_code = OpCode::Update;
    assert!(!reads(&two) && !reads(&answer) && !reads(&update));
    assert!(Question::read(b"not dns at all").is_none());
}

#[test]
fn lifetimes_beyond_the_cap_are_lowered_and_nothing_else_moves() {
    let asked = question("www.example.com.");
    let records =
        |long| vec![cname("www.example.com.", long, "b.net."), a("b.net.", 60, 1), a("b.net.", long, 2)];
    let mut message = answering(&asked, records(86_400));
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true).set_max_payload(4096);
    message.set_edns(edns.clone());
    let mut bytes = message.to_vec().unwrap();
    cap_lifetimes(&mut bytes, 3600);
    set_id(&mut bytes, 9);
    let mut wanted = answering(&asked, records(3600));
    wanted.set_edns(edns);
    wanted.metadata.id = 9;
    assert_eq!(Message::from_vec(&bytes).unwrap(), wanted);
}

#[test]
fn of_a_torn_message_nothing_but_a_lifetime_is_touched() {
    let whole =
        answering(&question("www.example.com."), vec![a("www.example.com.", 86_400, 1)]).to_vec().unwrap();
    let mut capped = whole.clone();
    cap_lifetimes(&mut capped, 1);
    assert_ne!(capped, whole);
    for length in 0..whole.len() {
        let mut torn = whole[..length].to_vec();
        cap_lifetimes(&mut torn, 1);
        assert!(torn == whole[..length] || torn == capped[..length], "{length}: {torn:?}");
    }
}

fn service(owner: &str, priority: u16, ttl: u32) -> Record {
    let hints = vec![
        (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(vec!["h3".to_owned()]))),
        (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A([198, 51, 100, 7].into())]))),
        (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(vec![AAAA("2001:db8::7".parse().unwrap())]))),
    ];
    let params = if priority == 0 { Vec::new() } else { hints };
    Record::from_rdata(name(owner), ttl, RData::HTTPS(HTTPS(SVCB::new(priority, name("."), params))))
}

#[test]
fn what_a_service_hints_at_are_addresses_of_its_name_along_its_chain() {
    let asked = Question::read(&asking("www.example.com.", RecordType::HTTPS).to_vec().unwrap()).unwrap();
    assert!(asked.asks_for_addresses() && asked.asks_for_hints());
    let hinted = vec!["198.51.100.7".to_owned(), "2001:db8::7".to_owned()];
    assert_eq!(given(&asked, vec![service("www.example.com.", 1, 60)]), (hinted.clone(), 60));
    let chain = vec![cname("www.example.com.", 20, "edge.net."), service("edge.net.", 1, 60)];
    assert_eq!(given(&asked, chain), (hinted, 20));
    for strange in [service("other.example.com.", 1, 60), service("www.example.com.", 0, 60)] {
        assert_eq!(given(&asked, vec![strange]).0, Vec::<String>::new());
    }
}

#[test]
fn what_is_not_of_the_internet_gives_no_address() {
    let asked = question("www.example.com.");
    let mut chaos = a("www.example.com.", 60, 1);
    chaos.dns_class = DNSClass::CH;
    assert_eq!(given(&asked, vec![chaos, a("www.example.com.", 60, 2)]).0, ["198.51.100.2"]);
    let mut query = asking("www.example.com.", RecordType::A);
    query.queries[0].set_query_class(DNSClass::CH);
    assert!(!Question::read(&query.to_vec().unwrap()).unwrap().asks_for_addresses());
}

#[test]
fn an_answer_to_another_kind_of_operation_is_none() {
    let asked = question("www.example.com.");
    let mut right = answering(&asked, vec![a("www.example.com.", 60, 1)]);
    assert!(Reply::read(&right.to_vec().unwrap(), &asked, 77).is_some());
    right.metadata.op_code = OpCode::Notify;
    assert!(Reply::read(&right.to_vec().unwrap(), &asked, 77).is_none());
}

#[test]
fn names_that_point_at_themselves_or_ahead_end_without_harm() {
    // A header that promises one question, whose name points at itself, ahead, or nowhere.
    for pointer in [[0xc0, 12], [0xc0, 14], [0xc0, 0xff], [0xff, 0xff]] {
        let mut bytes = vec![0, 77, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(pointer);
        bytes.extend([0, 1, 0, 1]);
        assert!(Question::read(&bytes).is_none(), "{pointer:?}");
        cap_lifetimes(&mut bytes, 1);
    }
    // And two hundred CNAMEs in a row are followed for a while only.
    let asked = question("n0.net.");
    let long = |count: u32| {
        let mut chain: Vec<Record> =
            (0..count).map(|n| cname(&format!("n{n}.net."), 60, &format!("n{}.net.", n + 1))).collect();
        chain.push(a(&format!("n{count}.net."), 60, 1));
        chain
    };
    assert_eq!(given(&asked, long(20)).0, ["198.51.100.1"]);
    assert_eq!(given(&asked, long(200)).0, Vec::<String>::new());
}

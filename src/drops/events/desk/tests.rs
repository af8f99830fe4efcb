use super::*;
use crate::drops::world::{World, world};

fn desk(now: Instant) -> Desk {
    Desk::new("n1".to_owned(), Form::default(), now)
}

fn note(desk: &mut Desk, world: &World, (from, port): (&str, u16), now: Instant) -> Key {
    match desk.note(&world.drop_from(from, port), Side::Receiving, None, now) {
        Noted::In(key) => key,
        other => panic!("{other:?}"),
    }
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// Writes all that is due; answers what it was.
fn write(desk: &mut Desk, now: Instant) -> Vec<(Key, u64)> {
    let mut wrote = Vec::new();
    while let Some((key, _)) = desk.next(now) {
        let count = desk.count_of(&key);
        desk.done(&key, Written::Done, count, now);
        wrote.push((key, count));
    }
    wrote
}

#[test]
fn the_first_packet_is_told_at_once_and_the_rest_in_its_count_ever_more_rarely() {
    let (world, now) = (world(), Instant::now());
    let mut desk = desk(now);
    let key = note(&mut desk, &world, ("10.0.0.2", 80), now);
    assert_eq!(write(&mut desk, now), [(key.clone(), 1)]);
    for _ in 0..99 {
        note(&mut desk, &world, ("10.0.0.2", 80), now);
    }
    assert_eq!(write(&mut desk, now + seconds(9)), []);
    desk.more(&key, 900, now);
    assert_eq!(write(&mut desk, now + seconds(20)), [(key.clone(), 1000)]);
    note(&mut desk, &world, ("10.0.0.2", 80), now + seconds(21));
    assert_eq!(write(&mut desk, now + seconds(39)), []);
    assert_eq!(write(&mut desk, now + seconds(60)), [(key, 1001)]);
}

#[test]
fn source_ports_are_alike_and_other_ports_peers_and_sides_are_not() {
    let (world, now) = (world(), Instant::now());
    let mut desk = desk(now);
    let mut again = world.drop_from("10.0.0.2", 80);
    again.record.carried =
        Carried::Ports { protocol: podwall_ruleset::Protocol::TCP, source: 1, destination: 80 };
    let first = note(&mut desk, &world, ("10.0.0.2", 80), now);
    assert_eq!(desk.note(&again, Side::Receiving, None, now), Noted::In(first.clone()));
    assert_ne!(note(&mut desk, &world, ("10.0.0.2", 81), now), first);
    assert_ne!(note(&mut desk, &world, ("10.0.0.3", 80), now), first);
    let report = world.drop_from("10.0.0.2", 80);
    assert!(matches!(desk.note(&report, Side::Sending, None, now), Noted::In(key) if key != first));
    assert_eq!(desk.note(&world.drop_from("192.0.2.1", 80), Side::Sending, None, now), Noted::Nobody);
    assert_eq!(desk.len(), 4);
}

#[test]
fn a_scan_of_all_ports_is_a_handful_of_events() {
    let (world, now) = (world(), Instant::now());
    let mut desk = desk(now);
    for port in 1..=2000 {
        note(&mut desk, &world, ("10.0.0.2", port), now);
    }
    assert_eq!(desk.len(), MOST_OF_ONE + 1);
    let told: u64 = write(&mut desk, now).iter().map(|(_, count)| count).sum();
    assert_eq!(told, 2000);
}

#[test]
fn events_and_writes_are_bounded_whatever_comes() {
    let (mut world, now) = (world(), Instant::now());
    let mut desk = desk(now);
    for number in 0..40_u8 {
        world.pod(&format!("p{number}"), 100 + number, serde_json::json!({"app": "web"}));
    }
    let chain = world.chain();
    let mut full = 0;
    for number in 0..40_u8 {
        for source in 0..=255_u8 {
            let to = format!("10.0.0.{}", 100 + number);
            let report =
                world.report(&chain, &format!("10.9.{number}.{source}"), &to, crate::drops::world::tcp(80));
            full += usize::from(desk.note(&report, Side::Receiving, None, now) == Noted::Full);
        }
    }
    assert_eq!((desk.len(), full), (40 * (MOST_OF_ONE + 1), 0));
    assert_eq!(write(&mut desk, now).len(), BURST as usize);
    assert_eq!(write(&mut desk, now + seconds(2)).len(), 10);
}

#[test]
fn an_api_server_that_is_away_is_asked_ever_more_rarely_and_hears_it_all_in_the_end() {
    let (world, mut now) = (world(), Instant::now());
    let mut desk = desk(now);
    let key = note(&mut desk, &world, ("10.0.0.2", 80), now);
    let (begun, mut asked) = (now, 0);
    while now < begun + seconds(300) {
        note(&mut desk, &world, ("10.0.0.2", 80), now);
        while desk.next(now).is_some() {
            asked += 1;
            desk.done(&key, Written::Failed, 0, now);
        }
        now += seconds(1);
    }
    assert!((8..=12).contains(&asked), "{asked}");
    assert_eq!(write(&mut desk, now + LONGEST_PAUSE), [(key, 301)]);
}

#[test]
fn after_a_restart_the_count_goes_on_in_the_same_object() {
    let (world, now) = (world(), Instant::now());
    let (mut before, mut after) = (desk(now), desk(now));
    let name = |desk: &mut Desk| match desk.next(now) {
        Some((_, Job::Create(event))) => event.metadata.name.unwrap(),
        other => panic!("{other:?}"),
    };
    note(&mut before, &world, ("10.0.0.2", 80), now);
    let key = note(&mut after, &world, ("10.0.0.2", 80), now);
    assert_eq!(name(&mut before), name(&mut after));
    after.done(&key, Written::Exists, 0, now);
    assert!(matches!(after.next(now), Some((_, Job::Read(_)))));
    after.done(&key, Written::Found(41), 0, now);
    assert!(matches!(after.next(now), Some((_, Job::Count(_, 42, _)))));
}

#[test]
fn an_event_the_server_has_forgotten_begins_anew() {
    let (world, now) = (world(), Instant::now());
    let mut desk = desk(now);
    let key = note(&mut desk, &world, ("10.0.0.2", 80), now);
    write(&mut desk, now);
    note(&mut desk, &world, ("10.0.0.2", 80), now);
    let later = now + seconds(20);
    assert!(matches!(desk.next(later), Some((_, Job::Count(_, 2, _)))));
    desk.done(&key, Written::Missing, 0, later);
    assert!(matches!(desk.next(later), Some((_, Job::Create(event))) if event.series.is_none()));
}

#[test]
fn what_was_quiet_for_long_is_forgotten() {
    let (world, now) = (world(), Instant::now());
    let mut desk = desk(now);
    note(&mut desk, &world, ("10.0.0.2", 80), now);
    write(&mut desk, now);
    assert_eq!(desk.next(now + FORGET + seconds(1)).map(|_| ()), None);
    assert!(desk.is_empty() && desk.of_one.is_empty());
}

#[test]
fn an_event_points_at_its_object_and_tells_all_in_its_annotation() {
    let (world, now) = (world(), Instant::now());
    let mut desk = desk(now);
    note(&mut desk, &world, ("10.0.0.2", 80), now);
    let Some((_, Job::Create(event))) = desk.next(now) else { panic!("nothing to write") };
    let regarding = event.regarding.clone().unwrap();
    assert_eq!((regarding.kind.as_deref(), regarding.uid.as_deref()), (Some("Pod"), Some("uid-web")));
    assert_eq!(event.related.clone().unwrap().name.as_deref(), Some("stranger"));
    assert_eq!((event.type_.as_deref(), event.reason.as_deref()), (Some("Warning"), Some("PacketDrop")));
    assert_eq!(event.reporting_instance.as_deref(), Some("n1"));
    let annotation = &event.metadata.annotations.unwrap()[crate::drops::events::form::DROP_ANNOTATION];
    let line: crate::drops::line::Line = serde_json::from_str(annotation).unwrap();
    assert_eq!((line.policies, line.destination.port), (vec!["shop/web-in".to_owned()], Some(80)));
}

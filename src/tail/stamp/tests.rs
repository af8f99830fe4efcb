use jiff::tz::Offset;

use super::*;

/// Half an hour into 2026 at a place one hour east; the node started a day ago.
fn clock() -> Clock {
    Clock {
        now: at("2025-12-31T23:30:00Z"),
        booted: Some(at("2025-12-30T23:30:00Z")),
        zone: Offset::from_seconds(3600).unwrap().to_time_zone(),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn daemon(text: &str) -> Option<Stamp> {
    Some(Stamp::Daemon(at(text)))
}

fn kernel(text: &str) -> Option<Stamp> {
    Some(Stamp::Kernel(at(text)))
}

#[test]
fn every_usual_form_of_time_is_read_to_its_end() {
    let moment = daemon("2025-12-03T10:38:30Z");
    let fraction = daemon("2025-12-03T10:38:30.123456Z");
    for (text, wanted) in [
        ("Dec  3 11:38:30", moment),
        ("Dec 3 11:38:30", moment),
        ("Dec 03 11:38:30", moment),
        ("<4>Dec  3 11:38:30", moment),
        ("Dec  3 11:38:30.123456", fraction),
        ("Dec  3 2025 11:38:30", moment),
        ("Dec  3 11:38:30 2025", moment),
        ("Wed Dec  3 11:38:30 2025", moment),
        ("Wed 2025-12-03 11:38:30 CET", moment),
        ("Wed 2025-12-03 10:38:30 UTC", moment),
        ("2025-12-03T11:38:30+01:00", moment),
        ("2025-12-03T11:38:30+0100", moment),
        ("2025-12-03T11:38:30+01", moment),
        ("2025-12-03T10:38:30Z", moment),
        ("<4>1 2025-12-03T10:38:30Z", moment),
        ("2025-12-03T11:38:30", moment),
        ("2025-12-03 11:38:30", moment),
        ("2025/12/03 11:38:30", moment),
        ("2025-12-03 11:38:30 +0100", moment),
        ("2025-12-03T11:38:30.123456+01:00", fraction),
        ("2025-12-03T11:38:30,123456+01:00", fraction),
        ("2025-12-03T10:38:30.123456Z", fraction),
        ("1764758310.123456", fraction),
        ("1764758310", moment),
        ("[   60.5]", kernel("2025-12-30T23:31:00.5Z")),
        ("[86399.000001]", kernel("2025-12-31T23:29:59.000001Z")),
        ("[Wed Dec  3 11:38:30 2025]", kernel("2025-12-03T10:38:30Z")),
        ("kern  :warn  : [   60.5]", kernel("2025-12-30T23:31:00.5Z")),
    ] {
        let line = format!("{text} worker-1 rest");
        let (stamp, rest) = read(&line, None, &clock()).unzip();
        assert_eq!(stamp, wanted, "{text}");
        let rest = rest.unwrap().trim_start();
        assert!(rest == "worker-1 rest" || rest == "CET worker-1 rest", "{text}: {rest}");
    }
}

#[test]
fn a_year_that_is_left_out_is_the_one_that_makes_it_recent() {
    let year = |text: &str| read(text, None, &clock()).unwrap().0;
    assert_eq!(Some(year("Dec 31 23:59:59 h")), daemon("2025-12-31T22:59:59Z"));
    assert_eq!(Some(year("Jan  1 00:10:00 h")), daemon("2025-12-31T23:10:00Z"));
    assert_eq!(Some(year("Jan  3 00:00:00 h")), daemon("2025-01-02T23:00:00Z"));
    assert_eq!(Some(year("Feb 29 00:00:00 h")), daemon("2024-02-28T23:00:00Z"));
}

#[test]
fn what_is_no_time_is_none() {
    for text in [
        "",
        "host kernel: x",
        "[UFW BLOCK]",
        "Dec 42 11:38:30 h",
        "Dec  3 25:00:00 h",
        "2025-13-01T00:00:00Z",
        "2025-12-03",
        "2025-12-03T11:38:30x",
        "12:00:00",
        "Decem  3 11:38:30 h",
        "[12345]",
        "[.5]",
        "<4>",
        "99999999999999999999",
    ] {
        assert_eq!(read(text, None, &clock()), None, "{text}");
    }
    // A kernel's stamp means nothing where nobody knows when the node started.
    let lost = Clock { booted: None, ..clock() };
    assert_eq!(read("[ 1.5] x", None, &lost), None);
}

#[test]
fn a_leap_second_is_the_second_before() {
    assert_eq!(read("2025-12-03T10:38:60Z x", None, &clock()).unzip().0, daemon("2025-12-03T10:38:59Z"));
}

#[test]
fn a_host_called_like_a_year_stays_a_host() {
    let (_, rest) = read("Dec  3 11:38:30 9999 rest", None, &clock()).unwrap();
    assert_eq!(rest, " 9999 rest");
}

#[test]
fn layouts_of_go_are_read_with_spaces_too() {
    let moment = at("2025-12-03T10:38:30Z");
    let fraction = at("2025-12-03T10:38:30.123456Z");
    for (layout, text, wanted) in [
        ("2006-01-02T15:04:05.000000-07:00", "2025-12-03T11:38:30.123456+01:00", fraction),
        ("2006-01-02T15:04:05Z07:00", "2025-12-03T10:38:30Z", moment),
        ("2006-01-02T15:04:05Z07:00", "2025-12-03T10:38:30.123456Z", fraction),
        ("Jan _2 15:04:05", "Dec  3 11:38:30", moment),
        ("Mon Jan _2 15:04:05 MST 2006", "Wed Dec  3 10:38:30 UTC 2025", moment),
        ("Monday, 02-Jan-06 15:04:05 -0700", "Wednesday, 03-Dec-25 11:38:30 +0100", moment),
        ("02/Jan/2006:15:04:05 -0700", "03/Dec/2025:11:38:30 +0100", moment),
        ("2 January 2006 3:04:05 PM", "3 December 2025 11:38:30 AM", moment),
        ("20060102150405.000000", "20251203113830.123456", fraction),
    ] {
        let read_by: Layout = layout.parse().unwrap();
        let line = format!("{text} host rest");
        assert_eq!(read_by.read(&line, &clock()), Some((wanted, " host rest")), "{layout}");
    }
    assert!("%Y-%m-%d".parse::<Layout>().is_err());
    assert!("2006-01-02".parse::<Layout>().is_err());
}

#[test]
fn a_line_that_does_not_fit_the_layout_is_read_by_the_usual_forms() {
    let layout: Layout = "02/Jan/2006:15:04:05 -0700".parse().unwrap();
    let stamp = |text: &str| read(text, Some(&layout), &clock()).unzip().0;
    assert_eq!(stamp("03/Dec/2025:11:38:30 +0100 h"), daemon("2025-12-03T10:38:30Z"));
    assert_eq!(stamp("Dec  3 11:38:30 h"), daemon("2025-12-03T10:38:30Z"));
}

mod any {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_never_panics_and_what_is_left_is_its_end(text in "\\PC{0,60}") {
            if let Some((_, rest)) = read(&text, None, &clock()) {
                prop_assert!(text.ends_with(rest));
            }
        }

        #[test]
        fn text_of_digits_and_marks_never_panics(text in "[0-9 :.,+\\-TZJanDec\\[\\]<>/]{0,40}") {
            if let Some((_, rest)) = read(&text, None, &clock()) {
                prop_assert!(text.ends_with(rest));
            }
        }

        #[test]
        fn any_text_is_a_layout_or_refused(layout in "[0-9 :.,_\\-TZJanMonPM]{0,40}", text in "\\PC{0,40}") {
            if let Ok(layout) = layout.parse::<Layout>() {
                let _ = layout.read(&text, &clock());
            }
        }

        #[test]
        fn a_moment_that_is_written_is_read_again(seconds in 0_i64..4_000_000_000, micros in 0..1_000_000) {
            let moment = Timestamp::new(seconds, micros * 1000).unwrap();
            let line = format!("{moment:.6} h");
            let (stamp, rest) = read(&line, None, &clock()).unwrap();
            prop_assert_eq!((stamp, rest), (Stamp::Daemon(moment), " h"));
        }
    }
}

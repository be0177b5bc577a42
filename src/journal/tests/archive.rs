//! What commands read beside the writer, and what they leave for it.

use super::support::*;
use crate::journal::archive::{Archive, Selection, State, Survey};
use crate::journal::weight;
use crate::journal::{Seq, Settlement, Wish, WishList};
use crate::webhook::Reason;

/// Of all pages.
fn all(archive: &Archive, selection: &Selection, with_bodies: bool) -> (Vec<Seq>, usize) {
    let (mut seqs, mut pages, mut next) = (Vec::new(), 0, Some(0));
    while let Some(after) = next {
        let page = archive.page(selection, after, with_bodies).unwrap();
        seqs.extend(page.entries.iter().map(|entry| entry.seq));
        next = page.next;
        pages += 1;
    }
    (seqs, pages)
}

#[test]
fn pages_bring_every_event_once_in_order_however_many_or_large() {
    let mut bench = Bench::new();
    let events: Vec<_> = (0..2500)
        .map(|n| (format!("s{}", n % 7), "created"))
        .collect();
    let events: Vec<_> = events
        .iter()
        .map(|(id, status)| (id.as_str(), *status))
        .collect();
    bench.append(&events);
    let archive = Archive::open(bench.dir.path()).unwrap();
    let everything = Selection::default();
    let expected: Vec<Seq> = (1..=2500).collect();
    assert_eq!(all(&archive, &everything, true), (expected, 3));
    let of_one = Selection {
        sessions: vec!["s3".into()],
        ..Selection::default()
    };
    let expected: Vec<Seq> = (1..=2500).filter(|seq| seq % 7 == 4).collect();
    assert_eq!(all(&archive, &of_one, false).0, expected);
    let last = archive.last(&of_one, 300).unwrap();
    let last: Vec<_> = last.iter().map(|entry| entry.seq).collect();
    assert_eq!(last, expected[expected.len() - 300..]);
    assert_eq!(
        archive.survey(&of_one).unwrap().events,
        expected.len() as u64
    );

    let large = format!(
        r#"{{"id":"large","status":"created","n":"{}"}}"#,
        "x".repeat(3 << 20)
    );
    bench.commit(&[], &[webhook(&[large.clone(), large.clone(), large])]);
    let large = Selection {
        sessions: vec!["large".into()],
        ..Selection::default()
    };
    assert_eq!(
        all(&archive, &large, true),
        (vec![2501, 2502, 2503], 4),
        "few at a time"
    );
}

#[test]
fn a_state_is_what_became_of_an_event() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("b", "created"), ("c", "created")]);
    bench.change(published(&events[0]));
    bench.change(settle(&events[1], Settlement::DeadLettered(Reason::Nacked)));
    let archive = Archive::open(bench.dir.path()).unwrap();
    for (state, expected) in [
        (State::Published, [1]),
        (State::DeadLettered, [2]),
        (State::Unsettled, [3]),
    ] {
        let selection = Selection {
            state: Some(state),
            ..Selection::default()
        };
        assert_eq!(all(&archive, &selection, false).0, expected);
        assert_eq!(archive.entry(expected[0]).unwrap().unwrap().state(), state);
    }
    let survey = archive.survey(&Selection::default()).unwrap();
    assert_eq!(
        survey,
        Survey {
            events: 3,
            unsettled: 1
        }
    );
}

#[test]
fn the_writer_grants_what_commands_wish_for() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("b", "created")]);
    bench.change(settle(
        &events[0],
        Settlement::DeadLettered(Reason::TooLarge),
    ));
    let mut wishes = WishList::open(bench.dir.path()).unwrap();
    wishes
        .leave([Wish::Replayed(7), Wish::Release(1), Wish::Release(2)])
        .unwrap();
    assert!(!wishes.is_granted().unwrap());
    assert_eq!(bench.store.totals().replayed, 0);
    assert!(bench.store.grant_wishes().unwrap());
    assert!(wishes.is_granted().unwrap());
    assert!(!bench.store.grant_wishes().unwrap(), "once");
    assert_eq!(bench.store.totals().replayed, 7);
    assert_eq!(bench.number("SELECT kept FROM settled WHERE seq = 1"), 0);
    let retained = bench.number("SELECT value FROM totals WHERE name = 'retained_disk_bytes'");
    let body = i64::try_from(events[0].event.body.len()).unwrap();
    assert_eq!(retained, weight::of_row(body));

    wishes.leave([Wish::Replayed(3), Wish::Release(1)]).unwrap();
    let bench = bench.reopen(&routing(None));
    assert_eq!(bench.store.totals().replayed, 10, "at the start, too");
    let again = bench.number("SELECT value FROM totals WHERE name = 'retained_disk_bytes'");
    assert_eq!(again, retained, "released once");
    assert!(bench.is_balanced());
}

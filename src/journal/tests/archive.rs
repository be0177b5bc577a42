//! What commands read while the writer runs, and the control requests that they leave for it.

use super::support::*;
use crate::journal::archive::{Archive, Selection};
use crate::journal::{ControlOutbox, ControlRequest, FinalState, Seq};
use crate::webhook::DeadLetterReason;

/// The events of all pages.
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
fn pages_return_every_event_once_in_order() {
    let mut bench = Bench::new();
    let events: Vec<_> = (0..2500)
        .map(|n| (format!("s{}", n % 7), "created"))
        .collect();
    let events: Vec<_> = events
        .iter()
        .map(|(id, status)| (id.as_str(), *status))
        .collect();
    bench.append(&events);
    let archive = Archive::open(bench.dir.path(), routing(None)).unwrap();
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
fn writer_executes_control_requests() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("b", "created")]);
    bench.change(settle(
        &events[0],
        FinalState::DeadLettered(DeadLetterReason::TooLarge),
    ));
    let mut wishes = ControlOutbox::open(bench.dir.path()).unwrap();
    wishes
        .leave([
            ControlRequest::Replayed(7),
            ControlRequest::Release(1),
            ControlRequest::Release(2),
        ])
        .unwrap();
    assert!(!wishes.is_applied().unwrap());
    assert_eq!(bench.store.totals().replayed, 0);
    assert!(bench.store.apply_control_requests().unwrap());
    assert!(wishes.is_applied().unwrap());
    assert!(!bench.store.apply_control_requests().unwrap(), "once");
    assert_eq!(bench.store.totals().replayed, 7);
    assert_eq!(bench.number("SELECT kept FROM settled WHERE seq = 1"), 0);
    let retained = bench.number("SELECT sum(value) FROM totals WHERE name = 'retained_disk_bytes'");
    assert_eq!(retained, 0, "its webhook has another event");
    bench.change(published(&events[1]));
    let retained = bench.number("SELECT sum(value) FROM totals WHERE name = 'retained_disk_bytes'");
    assert!(retained > 0, "{retained}");

    wishes
        .leave([ControlRequest::Replayed(3), ControlRequest::Release(1)])
        .unwrap();
    let bench = bench.reopen(&routing(None));
    assert_eq!(bench.store.totals().replayed, 10, "at the start, too");
    let again = bench.number("SELECT sum(value) FROM totals WHERE name = 'retained_disk_bytes'");
    assert_eq!(again, retained, "released once");
    assert!(bench.is_balanced());
}

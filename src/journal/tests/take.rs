//! What a take brings: the window, what is due, what follows, what is known already.

use std::collections::HashSet;

use super::support::*;
use crate::journal::reader::{Reader, Request};
use crate::journal::{RouteId, Seq, Taken};
use crate::memory::LARGE_BYTES;

/// The numbers of all runs, in order.
fn runs(taken: &Taken) -> Vec<Vec<Seq>> {
    taken.runs.iter().map(|run| seqs(&run.events)).collect()
}

fn take(reader: &mut Reader, route_id: RouteId, with: impl FnOnce(&mut Request)) -> Taken {
    let mut request = request(route_id);
    with(&mut request);
    reader.take(&request).unwrap()
}

#[test]
fn heads_come_with_what_follows_in_their_sessions_and_none_of_another_route() {
    let mut bench = Bench::new();
    let events = bench.append(&[
        ("a", "created"),
        ("b", "handled"),
        ("a", "completed"),
        ("c", "created"),
    ]);
    let mut reader = bench.reader();
    let taken = take(&mut reader, events[0].route_id, |_| {});
    assert_eq!(runs(&taken), [vec![1, 3], vec![4]]);
    assert!(!taken.has_more);
    assert!(taken.runs.iter().all(|run| !run.has_more));
    assert_eq!(taken.runs[0].events[1].route, events[2].route);
    assert!(!taken.runs[0].events[1].is_head);
    let held = &taken.runs[0].events[0];
    assert_eq!(held.event, events[0].event);
    assert_eq!(held.route_id, events[0].route_id);
    assert_eq!(held.label, events[0].label);
    assert!(held.is_head && !held.is_damaged);
}

#[test]
fn rejects_come_back_as_what_they_were() {
    let mut bench = Bench::new();
    let held = bench.commit(&[], &[webhook(&["7"])]).fresh.remove(0);
    let taken = take(&mut bench.reader(), held.route_id, |_| {});
    assert_eq!(taken.runs[0].events[0].event, held.event);
    assert!(!taken.runs[0].events[0].is_damaged);
}

/// Of so many bytes, no two parts of it alike.
fn session_of(length: usize) -> String {
    let mut text = r#"{"id":"a","status":"created","note":""#.to_owned();
    let numbers = (0..).map(|number: u32| format!("{number} "));
    text.extend(numbers.take(length / 2));
    text.truncate(length - 2);
    text + r#""}"#
}

#[test]
fn a_body_comes_back_byte_for_byte_whether_it_counts_as_large_or_not() {
    for length in [
        1000,
        LARGE_BYTES - 1,
        LARGE_BYTES,
        LARGE_BYTES + 1,
        5_000_000,
    ] {
        let mut bench = Bench::new();
        let element = session_of(length);
        assert_eq!(element.len(), length);
        let held = bench.commit(&[], &[webhook(&[element])]).fresh.remove(0);
        let taken = take(&mut bench.reader(), held.route_id, |_| {});
        let back = &taken.runs[0].events[0];
        assert!(back.event == held.event && !back.is_damaged, "{length}");
        let body = "SELECT length(body) FROM events";
        assert_eq!(bench.number(body), i64::try_from(length).unwrap());
    }
}

#[test]
fn heads_that_are_known_already_are_passed_over() {
    let mut bench = Bench::new();
    let route_id =
        bench.append(&[("a", "created"), ("b", "created"), ("c", "created")])[0].route_id;
    let taken = take(&mut bench.reader(), route_id, |request| {
        request.skip = HashSet::from([1, 3]);
    });
    assert_eq!(runs(&taken), [[2]]);
    assert!(!taken.has_more);
}

#[test]
fn a_window_is_no_larger_than_asked() {
    let mut bench = Bench::new();
    let route_id = bench.append(&[
        ("a", "created"),
        ("a", "created"),
        ("a", "created"),
        ("b", "created"),
    ])[0]
        .route_id;
    let mut reader = bench.reader();
    let taken = take(&mut reader, route_id, |request| request.events_max = 2);
    assert_eq!(runs(&taken), [[1, 2]]);
    assert!(taken.runs[0].has_more);
    assert!(taken.has_more);
    let all = take(&mut reader, route_id, |request| request.events_max = 4);
    assert_eq!(runs(&all), [vec![1, 2, 3], vec![4]]);
    assert!(!all.has_more && !all.runs[0].has_more);
}

#[test]
fn bytes_bound_it_too_but_one_event_always_comes() {
    let mut bench = Bench::new();
    let large = format!(
        r#"{{"id":"large","status":"created","x":"{}"}}"#,
        "x".repeat(5000)
    );
    let small = session("small", "created");
    let size = small.len() as u64;
    let events = bench
        .commit(
            &[],
            &[webhook(&[
                small.as_str(),
                large.as_str(),
                small.as_str(),
                large.as_str(),
            ])],
        )
        .fresh;
    let route_id = events[0].route_id;
    let mut reader = bench.reader();
    let of = |reader: &mut Reader, bytes_max, skip: &[Seq]| {
        take(reader, route_id, |request| {
            request.bytes_max = bytes_max;
            request.skip = skip.iter().copied().collect();
        })
    };
    let exact = of(&mut reader, 2 * size, &[]);
    assert_eq!(runs(&exact), [[1, 3]]);
    assert!(exact.has_more && !exact.runs[0].has_more);
    let one_less = of(&mut reader, 2 * size - 1, &[]);
    assert_eq!(runs(&one_less), [[1]]);
    assert!(one_less.runs[0].has_more);
    let alone = of(&mut reader, 10, &[1]);
    assert_eq!(runs(&alone), [[2]]);
    assert!(alone.runs[0].has_more);
}

#[test]
fn a_long_session_comes_in_pieces() {
    let mut bench = Bench::new();
    let sessions = vec![("a", "created"); 40];
    let route_id = bench.append(&sessions)[0].route_id;
    let taken = take(&mut bench.reader(), route_id, |_| {});
    assert_eq!(runs(&taken), [(1..=33).collect::<Vec<_>>()]);
    assert!(taken.runs[0].has_more);
    assert!(!taken.has_more);
}

#[test]
fn what_is_due_again_comes_first_but_takes_at_most_half() {
    let mut bench = Bench::new();
    let ids: Vec<String> = (0..10).map(|id| format!("s{id}")).collect();
    let sessions: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "created")).collect();
    let events = bench.append(&sessions);
    for (held, due) in events[..6].iter().zip([60, 50, 40, 30, 20, 10]) {
        bench.change(deferred(held, due));
    }
    let route_id = events[0].route_id;
    let mut reader = bench.reader();
    let of = |reader: &mut Reader, now_ms, events_max| {
        take(reader, route_id, |request| {
            request.now_ms = now_ms;
            request.events_max = events_max;
        })
    };
    let half = of(&mut reader, 100, 4);
    assert_eq!(runs(&half), [[6], [5], [7], [8]]);
    assert!(half.has_more);
    assert_eq!(half.next_due_ms, None);
    let some = of(&mut reader, 25, 100);
    assert_eq!(runs(&some), [[6], [5], [7], [8], [9], [10]]);
    assert_eq!(some.next_due_ms, Some(30));
    assert!(!some.has_more);
    let none = of(&mut reader, 9, 2);
    assert_eq!(runs(&none), [[7], [8]]);
    assert_eq!(none.next_due_ms, Some(10));
    assert!(none.has_more);
    let exactly = of(&mut reader, 10, 100);
    assert_eq!(runs(&exactly)[0], [6]);
}

#[test]
fn routes_with_something_to_publish_are_named_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.reader().routes().unwrap(), Vec::<RouteId>::new());
    let events = bench.append(&[
        ("a", "created"),
        ("b", "created"),
        ("b", "missed"),
        ("c", "handled"),
    ]);
    let expected = vec![events[0].route_id, events[3].route_id];
    assert_eq!(bench.reader().routes().unwrap(), expected);
    bench.change(published(&events[1]));
    assert!(
        bench
            .reader()
            .routes()
            .unwrap()
            .contains(&events[2].route_id)
    );
}

/// D4, and the other columns of the row: nothing that lies there stops the route.
#[test]
fn an_event_that_is_not_what_was_received_is_flagged_and_handed_out() {
    let check = |change: &str| {
        let mut bench = Bench::new();
        let route_id = bench.append(&[("a", "created")])[0].route_id;
        bench.store.database().execute_batch(change).unwrap();
        let taken = take(&mut bench.reader(), route_id, |_| {});
        assert_eq!(seqs(&taken.runs[0].events), [1], "{change}");
        assert!(taken.runs[0].events[0].is_damaged, "{change}");
    };
    check("UPDATE events SET body = CAST(replace(body, 'created', 'cre4ted') AS BLOB)");
    check("UPDATE events SET body = x''");
    check("UPDATE events SET session = 'b'");
    check("UPDATE events SET session = NULL");
    check("UPDATE events SET session = CAST(x'61ff' AS TEXT)");
    check("UPDATE events SET source = CAST(x'ff' AS TEXT)");
    check("UPDATE events SET message_id = x'00'");
    check("DELETE FROM events");
}

//! The limits of a fetch, and bodies of any size. `accounting` shows that a fetch returns every head
//! once, with its followers in order.

use super::support::*;
use crate::journal::reader::{FetchRequest, Reader};
use crate::journal::{Fetched, RouteId, Seq};
use crate::memory::LARGE_BYTES;

/// The event numbers of all batches, in order.
fn runs(fetched: &Fetched) -> Vec<Vec<Seq>> {
    fetched
        .batches
        .iter()
        .map(|run| seqs(&run.events))
        .collect()
}

fn fetch(reader: &mut Reader, route_id: RouteId, with: impl FnOnce(&mut FetchRequest)) -> Fetched {
    let mut request = request(route_id);
    with(&mut request);
    reader.fetch(&request).unwrap()
}

/// A body of this many bytes, without repeated parts.
fn session_of(length: usize) -> String {
    let mut text = r#"{"id":"a","status":"created","note":""#.to_owned();
    let numbers = (0..).map(|number: u32| format!("{number} "));
    text.extend(numbers.take(length / 2));
    text.truncate(length - 2);
    text + r#""}"#
}

#[test]
fn bodies_of_any_size_are_fetched_unchanged() {
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
        let fetched = fetch(&mut bench.reader(), held.route_id, |_| {});
        let back = &fetched.batches[0].events[0];
        assert!(back.event == held.event && !back.is_damaged, "{length}");
        let body = "SELECT length(bodies) FROM webhooks";
        assert_eq!(bench.number(body), i64::try_from(length).unwrap());
    }
}

#[test]
fn batch_has_at_most_the_requested_count() {
    let mut bench = Bench::new();
    let route_id = bench.append(&[
        ("a", "created"),
        ("a", "created"),
        ("a", "created"),
        ("b", "created"),
    ])[0]
        .route_id;
    let mut reader = bench.reader();
    let fetched = fetch(&mut reader, route_id, |request| request.events_max = 2);
    assert_eq!(runs(&fetched), [[1], [4]]);
    assert!(fetched.batches[0].has_more && !fetched.batches[1].has_more);
    let one = fetch(&mut reader, route_id, |request| request.events_max = 1);
    assert_eq!(runs(&one), [[1]]);
    assert!(one.has_more);
    let all = fetch(&mut reader, route_id, |request| request.events_max = 6);
    assert_eq!(runs(&all), [vec![1, 2, 3], vec![4]]);
    assert!(!all.has_more && !all.batches[0].has_more);
}

#[test]
fn batch_is_bounded_by_bytes_but_never_empty() {
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
        fetch(reader, route_id, |request| {
            request.bytes_max = bytes_max;
            request.skip = skip.to_vec();
        })
    };
    let exact = of(&mut reader, 2 * size, &[]);
    assert_eq!(runs(&exact), [[1, 3]]);
    assert!(exact.has_more && !exact.batches[0].has_more);
    let one_less = of(&mut reader, 2 * size - 1, &[]);
    assert_eq!(runs(&one_less), [[1]]);
    assert!(one_less.batches[0].has_more);
    let alone = of(&mut reader, 10, &[1]);
    assert_eq!(runs(&alone), [[2]]);
    assert!(alone.batches[0].has_more);
}

#[test]
fn long_session_is_fetched_in_parts() {
    let mut bench = Bench::new();
    let sessions = vec![("a", "created"); 40];
    let route_id = bench.append(&sessions)[0].route_id;
    let fetched = fetch(&mut bench.reader(), route_id, |_| {});
    assert_eq!(runs(&fetched), [(1..=33).collect::<Vec<_>>()]);
    assert!(fetched.batches[0].has_more);
    assert!(!fetched.has_more);
}

#[test]
fn due_retries_come_first_for_at_most_half() {
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
        fetch(reader, route_id, |request| {
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

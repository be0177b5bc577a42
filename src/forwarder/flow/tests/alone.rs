//! The flow without a simulation: its actions after single events, or many at once.

use std::time::Duration;

use jiff::Timestamp;

use super::{committed, flow, flow_within, held};
use crate::backoff::Backoff;
use crate::forwarder::flow::outcomes::NACKED_FACTOR;
use crate::forwarder::flow::{Action, Flow};
use crate::journal::{Fetched, RouteId};
use crate::rabbitmq::{Link, Outcome, PublisherEvent};

#[test]
fn late_events_are_resent_after_the_connection_ended() {
    let (wall, late) = (Timestamp::default(), 1_000);
    let mut flow = flow();
    flow.reported(PublisherEvent::Up(Link::Main), 0, wall);
    flow.committed(committed(vec![held(1, 1, "")]), 0);
    let first = flow.next_action(0, wall);
    let Some(Action::Publish { window, .. }) = first else {
        panic!("{first:?}");
    };
    assert!(flow.next_action(late - 1, wall).is_none(), "not yet late");
    let action = flow.next_action(late, wall);
    assert!(
        matches!(action, Some(Action::Reconnect(Link::Main, _))),
        "{action:?}"
    );
    for now in [late, late + 100, late + 900] {
        let action = flow.next_action(now, wall);
        assert!(action.is_none(), "it is still on its way: {action:?}");
    }
    flow.reported(
        PublisherEvent::Done(window, vec![Outcome::Unknown]),
        late,
        wall,
    );
    flow.reported(PublisherEvent::Down(Link::Main), late, wall);
    assert!(flow.next_action(late, wall).is_none(), "nobody is there");
    flow.reported(PublisherEvent::Up(Link::Main), late, wall);
    let fetched = flow.next_action(2 * late, wall);
    assert!(
        matches!(fetched, Some(Action::Fetch(ref request)) if request.route_id == 1),
        "from the journal, as the probe of a breaker route: {fetched:?}"
    );
}

/// Runs all current actions; returns the routes it fetches from and the windows it publishes.
fn takes_and_windows(flow: &mut Flow) -> (Vec<RouteId>, Vec<u64>) {
    let (mut takes, mut windows) = (Vec::new(), Vec::new());
    while let Some(action) = flow.next_action(0, Timestamp::default()) {
        match action {
            Action::Fetch(request) => takes.push(request.route_id),
            Action::Publish { window, .. } => windows.push(window),
            Action::Transition(_) => {}
            Action::Reconnect(..) => panic!("{action:?}"),
        }
    }
    (takes, windows)
}

#[test]
fn full_route_buffer_does_not_block_other_routes() {
    let wall = Timestamp::default();
    let mut flow = flow_within(100);
    flow.reported(PublisherEvent::Up(Link::Main), 0, wall);
    let three = (1..=3).map(|seq| held(seq, 1, ""));
    flow.committed(committed(three.collect()), 0);
    assert!(flow.buffered_bytes > 100, "more than half of the room");
    flow.mark_needs_fetch([1, 2]);
    let (takes, windows) = takes_and_windows(&mut flow);
    assert_eq!((takes, windows.len()), (vec![2], 2));
    flow.fetched(Some(Fetched::default()), 0);
    assert_eq!(takes_and_windows(&mut flow), (vec![], vec![]));
    for window in windows {
        let delivered = vec![Outcome::Delivered];
        flow.reported(PublisherEvent::Done(window, delivered), 0, wall);
    }
    assert_eq!(takes_and_windows(&mut flow).0, [1]);
}

/// Counts the duplicates that the other queues of a key receive while one of them is full.
#[test]
fn full_queue_causes_few_copies_by_default() {
    let (min, max) = (Duration::from_millis(100), Duration::from_secs(30));
    let copies = |seconds: u64| {
        let mut most = 0;
        for seed in 0..100 {
            let mut backoff = Backoff::new(min, max, seed);
            let (mut at, mut copies) = (Duration::ZERO, 0);
            while copies < 12 && at <= Duration::from_secs(seconds) {
                copies += 1;
                at += backoff.delay_growing(NACKED_FACTOR, copies);
            }
            most = most.max(copies);
        }
        most
    };
    assert_eq!([1, 10, 60].map(copies), [3, 5, 8]);
}

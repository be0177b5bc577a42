//! The flow without a simulation: its actions after single events, or many at once.

use std::time::Duration;

use jiff::Timestamp;

use super::{IN_FLIGHT_MAX, committed, flow, flow_within, held, held_of};
use crate::backoff::Backoff;
use crate::forwarder::flow::outcomes::NACKED_FACTOR;
use crate::forwarder::flow::{Action, BUFFERED_FACTOR, Flow};
use crate::journal::{Committed, Fetched, QueuedEvent, RouteId, Transition, TransitionApplied};
use crate::rabbitmq::{Link, Outcome, PublisherEvent};
use crate::webhook::DeadLetterReason;

#[test]
fn unsendable_events_become_dead_letters() {
    let damaged = QueuedEvent {
        is_damaged: true,
        ..held(1, 1, "")
    };
    let large = held(2, 1, &"x".repeat(100));
    for (event, reason) in [
        (damaged, DeadLetterReason::Damaged),
        (large, DeadLetterReason::TooLarge),
    ] {
        let mut flow = flow();
        flow.reported(PublisherEvent::Up(Link::Main), 0, Timestamp::default());
        flow.committed(committed(vec![event]), 0);
        let action = flow.next_action(0, Timestamp::default());
        let Some(Action::Transition(Transition::Reschedule {
            dead_letter_cause: Some(dead_letter_cause),
            ..
        })) = action
        else {
            panic!("{reason:?}: {action:?}");
        };
        assert_eq!(dead_letter_cause.reason, reason);
    }
}

#[test]
fn unpublishable_events_stay_in_the_journal() {
    let mut flow = flow();
    let buffered_max = BUFFERED_FACTOR * IN_FLIGHT_MAX;
    let many = 4 * buffered_max;
    let fresh = (1..).take(many).map(|seq| held(seq, seq % 50, ""));
    flow.committed(committed(fresh.collect()), 0);
    assert_eq!(flow.buffered, buffered_max, "of {many}");
}

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

/// The journal hands over an event without its body if it had no room for it. The body is read
/// later, and the session's later events must wait for it.
#[test]
fn event_without_body_is_not_overtaken() {
    let wall = Timestamp::default();
    let of_session = |seq, has_body| QueuedEvent {
        is_head: seq == 1,
        has_body,
        ..held_of("s", seq, 1, "")
    };
    let mut flow = flow();
    flow.reported(PublisherEvent::Up(Link::Main), 0, wall);
    flow.committed(committed(vec![of_session(1, true)]), 0);
    let (_, windows) = takes_and_windows(&mut flow);
    flow.committed(committed(vec![of_session(3, false)]), 0);
    flow.committed(committed(vec![of_session(4, true)]), 0);
    let delivered = vec![Outcome::Delivered];
    flow.reported(PublisherEvent::Done(windows[0], delivered), 0, wall);
    assert_eq!(takes_and_windows(&mut flow), (vec![], vec![]));
    let mut settled = Committed::default();
    let promoted = Some(1);
    settled
        .applied
        .push(TransitionApplied::Completed { seq: 1, promoted });
    flow.committed(settled, 0);
    assert_eq!(takes_and_windows(&mut flow), (vec![1], vec![]));
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

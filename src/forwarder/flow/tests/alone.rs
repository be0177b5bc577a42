//! The flow by itself: what one event, or many at once, make it do.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::forwarder::flow::{Action, Flow, HELD_FACTOR, Limits};
use crate::forwarder::retry::Backoff;
use crate::journal::{Change, Committed, Held, RouteId, Seq, Taken};
use crate::rabbitmq::{Link, Outcome, Report};
use crate::webhook::routing::Route;
use crate::webhook::{Reason, samples};

const IN_FLIGHT_MAX: usize = 4;
const MESSAGE_BYTES_MAX: u64 = 100;

fn flow() -> Flow {
    flow_within(10_000)
}

fn flow_within(in_flight_bytes_max: u64) -> Flow {
    let limits = Limits {
        in_flight_max: IN_FLIGHT_MAX,
        in_flight_bytes_max,
        message_bytes_max: MESSAGE_BYTES_MAX,
        confirm_timeout: Duration::from_secs(1),
        attempts_max: 3,
    };
    let retry = Backoff::new(Duration::from_millis(20), Duration::from_millis(200), 1);
    Flow::new(limits, retry)
}

/// The head of a session of its own.
fn held(seq: Seq, route_id: RouteId, name: &str) -> Held {
    let body = format!(r#"{{"id":"s{seq}","status":"created","name":"{name}"}}"#);
    Held {
        seq,
        event: Arc::new(samples::event(body)),
        label: "created".into(),
        route: Arc::new(Route {
            exchange: "e".into(),
            routing_key: route_id.to_string().into(),
        }),
        route_id,
        is_head: true,
        attempts: 0,
        condemned: None,
        is_damaged: false,
        is_whole: true,
    }
}

fn committed(fresh: Vec<Held>) -> Committed {
    let mut committed = Committed::default();
    committed.fresh.extend(fresh);
    committed
}

#[test]
fn what_must_not_be_sent_as_it_is_becomes_a_dead_letter() {
    let damaged = Held {
        is_damaged: true,
        ..held(1, 1, "")
    };
    let large = held(2, 1, &"x".repeat(100));
    for (event, reason) in [(damaged, Reason::Damaged), (large, Reason::TooLarge)] {
        let mut flow = flow();
        flow.reported(Report::Up(Link::Main), 0, Timestamp::default());
        flow.committed(committed(vec![event]), 0);
        let action = flow.next_action(0, Timestamp::default());
        let Some(Action::Change(Change::Defer {
            condemned: Some(condemned),
            ..
        })) = action
        else {
            panic!("{reason:?}: {action:?}");
        };
        assert_eq!(condemned.reason, reason);
    }
}

#[test]
fn what_cannot_go_out_is_left_in_the_journal() {
    let mut flow = flow();
    let held_max = HELD_FACTOR * IN_FLIGHT_MAX;
    let many = 4 * held_max;
    let fresh = (1..).take(many).map(|seq| held(seq, seq % 50, ""));
    flow.committed(committed(fresh.collect()), 0);
    assert_eq!(flow.held, held_max, "of {many}");
}

#[test]
fn what_is_not_confirmed_in_time_goes_out_again_only_after_the_connection_is_gone() {
    let (wall, late) = (Timestamp::default(), 1_000);
    let mut flow = flow();
    flow.reported(Report::Up(Link::Main), 0, wall);
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
    flow.reported(Report::Done(window, vec![Outcome::Unknown]), late, wall);
    flow.reported(Report::Down(Link::Main), late, wall);
    assert!(flow.next_action(late, wall).is_none(), "nobody is there");
    flow.reported(Report::Up(Link::Main), late, wall);
    let taken = flow.next_action(2 * late, wall);
    assert!(
        matches!(taken, Some(Action::Take(ref request)) if request.route_id == 1),
        "from the journal, as the probe of a suspect route: {taken:?}"
    );
}

/// Everything the flow wants now; the routes it takes from, and the windows it sends.
fn takes_and_windows(flow: &mut Flow) -> (Vec<RouteId>, Vec<u64>) {
    let (mut takes, mut windows) = (Vec::new(), Vec::new());
    while let Some(action) = flow.next_action(0, Timestamp::default()) {
        match action {
            Action::Take(request) => takes.push(request.route_id),
            Action::Publish { window, .. } => windows.push(window),
            Action::Change(_) => {}
            Action::Reconnect(..) => panic!("{action:?}"),
        }
    }
    (takes, windows)
}

#[test]
fn a_route_with_much_in_hand_takes_no_more_and_keeps_no_other_one_from_taking() {
    let wall = Timestamp::default();
    let mut flow = flow_within(100);
    flow.reported(Report::Up(Link::Main), 0, wall);
    let three = (1..=3).map(|seq| held(seq, 1, ""));
    flow.committed(committed(three.collect()), 0);
    assert!(flow.held_bytes > 100, "more than half of the room");
    flow.behind([1, 2]);
    let (takes, windows) = takes_and_windows(&mut flow);
    assert_eq!((takes, windows.len()), (vec![2], 2));
    flow.taken(Some(Taken::default()), 0);
    assert_eq!(takes_and_windows(&mut flow), (vec![], vec![]));
    for window in windows {
        let delivered = vec![Outcome::Delivered];
        flow.reported(Report::Done(window, delivered), 0, wall);
    }
    assert_eq!(takes_and_windows(&mut flow).0, [1]);
}

//! Bugs that seeds of the simulation found, as explicit steps. These tests stay valid when a change
//! of the simulation gives the seeds another meaning. `tests/seeds.txt` lists the seeds.

use jiff::Timestamp;

use super::{CONFIRM_TIMEOUT, IN_FLIGHT_MAX, committed, flow, held};
use crate::forwarder::flow::{Action, Flow};
use crate::journal::RouteId;
use crate::rabbitmq::{Link, Outcome, PublisherEvent, RefusalKind};

const ROUTE: RouteId = 1;

fn report(flow: &mut Flow, report: PublisherEvent, now: u64) {
    flow.reported(report, now, Timestamp::default());
}

fn actions(flow: &mut Flow, now: u64) -> Vec<Action> {
    std::iter::from_fn(|| flow.next_action(now, Timestamp::default())).collect()
}

#[test]
fn late_window_closes_its_own_connection() {
    let mut flow = flow();
    report(&mut flow, PublisherEvent::Up(Link::Main), 0);
    for (window, seq) in [(1, 1), (2, 2)] {
        flow.committed(committed(vec![held(seq, ROUTE, "")]), 0);
        let sent = actions(&mut flow, 0);
        assert!(matches!(&sent[..], [Action::Publish { window: id, .. }] if *id == window));
    }
    let closed = Outcome::ChannelClosed {
        kind: RefusalKind::RouteMissing,
        reason: "no exchange".into(),
    };
    report(&mut flow, PublisherEvent::Done(2, vec![closed]), 0);
    assert!(actions(&mut flow, CONFIRM_TIMEOUT - 1).is_empty());
    let late = actions(&mut flow, CONFIRM_TIMEOUT);
    assert!(
        matches!(&late[..], [Action::Reconnect(Link::Main, _)]),
        "{late:?}"
    );
}

#[test]
fn window_deadlines_are_independent() {
    let mut flow = flow();
    report(&mut flow, PublisherEvent::Up(Link::Main), 0);
    flow.committed(committed(vec![held(1, ROUTE, "")]), 0);
    assert_eq!(actions(&mut flow, 0).len(), 1);
    flow.committed(committed(vec![held(2, ROUTE, "")]), 0);
    assert_eq!(actions(&mut flow, 800).len(), 1);
    let closed = Outcome::ChannelClosed {
        kind: RefusalKind::RouteMissing,
        reason: "no exchange".into(),
    };
    report(&mut flow, PublisherEvent::Done(1, vec![closed]), 900);
    assert!(actions(&mut flow, CONFIRM_TIMEOUT).is_empty());
    assert_eq!(actions(&mut flow, 900 + CONFIRM_TIMEOUT).len(), 1);
}

#[test]
fn drain_continues_after_a_failed_fetch() {
    let mut flow = flow();
    report(&mut flow, PublisherEvent::Up(Link::Main), 0);
    flow.mark_needs_fetch([ROUTE]);
    assert!(matches!(&actions(&mut flow, 0)[..], [Action::Fetch(_)]));
    flow.fetched(None, 0);
    assert!(!flow.is_idle());
    let again = flow.next_deadline().expect("it tries again");
    assert!(actions(&mut flow, again - 1).is_empty());
    assert!(matches!(&actions(&mut flow, again)[..], [Action::Fetch(_)]));
}

#[test]
fn unsent_dead_letters_count_as_in_flight() {
    let mut flow = flow();
    let large = "x".repeat(100);
    let too_large = (1..=10).map(|seq| held(seq, ROUTE, &large)).collect();
    flow.committed(committed(too_large), 0);
    report(&mut flow, PublisherEvent::Up(Link::Main), 0);
    let changes = actions(&mut flow, 0);
    assert!(
        changes
            .iter()
            .all(|action| matches!(action, Action::Transition(_)))
    );
    assert_eq!(changes.len(), IN_FLIGHT_MAX);
}

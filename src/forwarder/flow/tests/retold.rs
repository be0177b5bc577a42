//! What seeds of the simulation found, step by step: these stay true when seeds come to mean
//! something else. `tests/seeds.txt` names them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use crate::forwarder::flow::{Action, Flow, Limits};
use crate::forwarder::retry::Backoff;
use crate::journal::{Committed, Held, RouteId, Seq};
use crate::rabbitmq::{Link, Outcome, Report};
use crate::webhook::routing::Route;
use crate::webhook::{Content, Envelope, Event, Fields};

const ROUTE: RouteId = 1;
const CONFIRM_TIMEOUT: u64 = 500;

fn flow(in_flight_max: usize) -> Flow {
    let limits = Limits {
        in_flight_max,
        in_flight_bytes_max: 100_000,
        message_bytes_max: 100,
        confirm_timeout: Duration::from_millis(CONFIRM_TIMEOUT),
        attempts_max: 3,
    };
    let second = Duration::from_secs(1);
    Flow::new(limits, Backoff::new(second, second, 7))
}

/// An event of a session of its own.
fn held(seq: Seq, bytes: usize) -> Held {
    let envelope = Envelope {
        webhook_id: Uuid::nil(),
        source: "test".into(),
        received_at: Timestamp::default(),
        traceparent: None,
        tracestate: None,
    };
    Held {
        seq,
        event: Arc::new(Event {
            envelope: Arc::new(envelope),
            index: 0,
            message_id: Uuid::nil(),
            content: Content::Session(Fields {
                session: seq.to_string(),
                ..Fields::default()
            }),
            body: Bytes::from(vec![b'x'; bytes]),
        }),
        label: "created".into(),
        route: Arc::new(Route {
            exchange: "e".into(),
            routing_key: "k".into(),
        }),
        route_id: ROUTE,
        is_head: true,
        attempts: 0,
        condemned: None,
        is_damaged: false,
        is_whole: true,
    }
}

fn commit(flow: &mut Flow, fresh: Vec<Held>) {
    let mut committed = Committed::default();
    committed.fresh = fresh;
    flow.committed(committed, 0);
}

fn report(flow: &mut Flow, report: Report, now: u64) {
    flow.reported(report, now, Timestamp::default());
}

fn actions(flow: &mut Flow, now: u64) -> Vec<Action> {
    std::iter::from_fn(|| flow.next_action(now, Timestamp::default())).collect()
}

#[test]
fn a_late_window_costs_the_link_it_is_on() {
    let mut flow = flow(16);
    report(&mut flow, Report::Up(Link::Main), 0);
    for (window, seq) in [(1, 1), (2, 2)] {
        commit(&mut flow, vec![held(seq, 10)]);
        let sent = actions(&mut flow, 0);
        assert!(matches!(&sent[..], [Action::Publish { window: id, .. }] if *id == window));
    }
    let closed = Outcome::ChannelClosed(404, "no exchange".into());
    report(&mut flow, Report::Done(2, vec![closed]), 0);
    assert!(actions(&mut flow, CONFIRM_TIMEOUT - 1).is_empty());
    let late = actions(&mut flow, CONFIRM_TIMEOUT);
    assert!(
        matches!(&late[..], [Action::Reconnect(Link::Main, _)]),
        "{late:?}"
    );
}

#[test]
fn a_window_is_not_late_because_another_was() {
    let mut flow = flow(16);
    report(&mut flow, Report::Up(Link::Main), 0);
    commit(&mut flow, vec![held(1, 10)]);
    assert_eq!(actions(&mut flow, 0).len(), 1);
    commit(&mut flow, vec![held(2, 10)]);
    assert_eq!(actions(&mut flow, 400).len(), 1);
    let closed = Outcome::ChannelClosed(404, "no exchange".into());
    report(&mut flow, Report::Done(1, vec![closed]), 450);
    assert!(actions(&mut flow, CONFIRM_TIMEOUT).is_empty());
    assert_eq!(actions(&mut flow, 450 + CONFIRM_TIMEOUT).len(), 1);
}

#[test]
fn a_drain_goes_on_after_a_failed_take() {
    let mut flow = flow(16);
    report(&mut flow, Report::Up(Link::Main), 0);
    flow.behind([ROUTE]);
    assert!(matches!(&actions(&mut flow, 0)[..], [Action::Take(_)]));
    flow.taken(None, 0);
    assert!(!flow.is_idle());
    let again = flow.next_deadline().expect("it tries again");
    assert!(actions(&mut flow, again - 1).is_empty());
    assert!(matches!(&actions(&mut flow, again)[..], [Action::Take(_)]));
}

#[test]
fn dead_letters_that_were_never_sent_have_their_places() {
    let in_flight_max = 4;
    let mut flow = flow(in_flight_max);
    let too_large = (1..=10).map(|seq| held(seq, 101)).collect();
    commit(&mut flow, too_large);
    report(&mut flow, Report::Up(Link::Main), 0);
    let changes = actions(&mut flow, 0);
    assert!(
        changes
            .iter()
            .all(|action| matches!(action, Action::Change(_)))
    );
    assert_eq!(changes.len(), in_flight_max);
}

//! Pauses: what is published, fetched and kept in memory while a route or everything is paused.

use jiff::Timestamp;

use super::{committed, flow, held};
use crate::forwarder::flow::{Action, Flow};
use crate::journal::{Fetched, Seq, SessionBatch};
use crate::rabbitmq::{Link, Outcome, PublisherEvent};
use crate::telemetry::status::{Pause, RouteState};

const NOTHING: [Seq; 0] = [];

fn wall() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

/// A pause of a routing key, or of everything.
fn pause(routing_key: Option<&str>) -> Pause {
    Pause {
        exchange: None,
        routing_key: routing_key.map(Into::into),
        since: wall(),
    }
}

fn connected() -> Flow {
    let mut flow = flow();
    for link in [Link::Main, Link::Probe] {
        flow.reported(PublisherEvent::Up(link), 0, wall());
    }
    flow
}

fn actions(flow: &mut Flow, now: u64) -> Vec<Action> {
    std::iter::from_fn(|| flow.next_action(now, wall())).collect()
}

/// The numbers of the events that are published now.
fn published(flow: &mut Flow, now: u64) -> Vec<Seq> {
    let windows = actions(flow, now).into_iter();
    let events = windows.filter_map(|action| match action {
        Action::Publish { events, .. } => Some(events),
        _ => None,
    });
    events.flatten().map(|queued| queued.seq).collect()
}

#[test]
fn paused_route_publishes_nothing_and_others_flow() {
    let mut flow = connected();
    flow.set_pauses(vec![pause(Some("1"))], wall());
    flow.committed(committed(vec![held(1, 1, "a"), held(2, 2, "b")]), 0);
    assert_eq!(published(&mut flow, 0), [2]);
    let statuses = flow.statuses();
    let states: Vec<_> = statuses.iter().map(|route| route.state).collect();
    assert_eq!(states, [RouteState::Paused, RouteState::Healthy]);
    assert_eq!(statuses[0].since, Some(wall()));
    // It is not fetched, and it does not keep the bridge from stopping.
    flow.reported(PublisherEvent::Done(1, vec![Outcome::Delivered]), 1, wall());
    actions(&mut flow, 1_000_000);
    assert_eq!(flow.next_deadline(), None);

    flow.set_pauses(Vec::new(), wall());
    let fetch = actions(&mut flow, 1_000_001);
    assert!(
        matches!(&fetch[..], [Action::Fetch(request)] if request.route_id == 1),
        "{fetch:?}"
    );
    let batches = vec![SessionBatch {
        events: vec![held(1, 1, "a")],
        has_more: false,
    }];
    let fetched = Fetched {
        batches,
        has_more: false,
        next_due_ms: None,
    };
    flow.fetched(Some(fetched), 1_000_002);
    assert_eq!(published(&mut flow, 1_000_002), [1]);
}

#[test]
fn pause_of_everything_covers_later_routes() {
    let mut flow = connected();
    flow.committed(committed(vec![held(1, 1, "a")]), 0);
    flow.set_pauses(vec![pause(None)], wall());
    flow.committed(committed(vec![held(2, 2, "b")]), 0);
    assert_eq!(published(&mut flow, 0), NOTHING);
    assert!(flow.is_idle());
    flow.set_pauses(vec![pause(Some("2"))], wall());
    let fetches = actions(&mut flow, 1);
    assert!(
        matches!(&fetches[..], [Action::Fetch(request)] if request.route_id == 1),
        "{fetches:?}"
    );
}

#[test]
fn outcomes_during_a_pause_do_not_end_it() {
    for outcome in [Outcome::Delivered, Outcome::Nacked, Outcome::Unknown] {
        let mut flow = connected();
        flow.committed(committed(vec![held(1, 1, "a")]), 0);
        assert_eq!(published(&mut flow, 0), [1]);
        flow.set_pauses(vec![pause(None)], wall());
        flow.reported(PublisherEvent::Done(1, vec![outcome]), 1, wall());
        assert_eq!(published(&mut flow, 2), NOTHING);
        assert_eq!(flow.statuses()[0].state, RouteState::Paused);
        // It is not probed later either.
        let later = actions(&mut flow, 1_000_000);
        assert!(later.is_empty(), "{later:?}");
    }
}

#[test]
fn pause_ends_for_a_number_that_another_route_gets() {
    let mut flow = connected();
    flow.set_pauses(vec![pause(Some("1"))], wall());
    flow.committed(committed(vec![held(1, 1, "a")]), 0);
    assert_eq!(published(&mut flow, 0), NOTHING);
    flow.reset();
    flow.mark_needs_fetch([1]);
    let fetch = actions(&mut flow, 1);
    assert!(matches!(&fetch[..], [Action::Fetch(_)]), "{fetch:?}");
    let mut renamed = held(1, 1, "a");
    let route = std::sync::Arc::make_mut(&mut renamed.route);
    route.routing_key = "renamed".into();
    let fetched = Fetched {
        batches: vec![SessionBatch {
            events: vec![renamed],
            has_more: false,
        }],
        has_more: false,
        next_due_ms: None,
    };
    flow.fetched(Some(fetched), 2);
    assert_eq!(published(&mut flow, 2), [1]);
    assert_eq!(&*flow.statuses()[0].routing_key, "renamed");
}

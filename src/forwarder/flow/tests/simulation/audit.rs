//! Audits the flow's internal state: every count that it keeps must agree with its queues.

use std::collections::{BTreeMap, BTreeSet};

use super::scenario::{IN_FLIGHT_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::forwarder::flow::queues::QueueState;
use crate::forwarder::flow::{BUFFERED_BYTES_FACTOR, Flow};
use crate::journal::RouteId;
use crate::rabbitmq::WINDOWS_PER_ROUTE_MAX;

pub(super) fn audit(flow: &Flow) {
    let (mut buffered, mut bytes, mut awaiting_commit) = (0, 0, 0);
    let mut queues: BTreeMap<RouteId, usize> = BTreeMap::new();
    let mut ready = 0;
    assert_eq!(
        flow.queue_ids.len(),
        flow.queues.len(),
        "sessions with a queue"
    );
    for (queue_id, queue) in &flow.queues {
        assert_eq!(
            flow.queue_ids.get(&queue.key),
            Some(queue_id),
            "a queue without its name"
        );
        buffered += queue.events.len();
        awaiting_commit += queue.awaiting_commit;
        for event in &queue.events {
            bytes += event.event.body.len() as u64;
            assert_eq!(
                flow.seqs.get(&event.seq),
                Some(queue_id),
                "an event without its queue"
            );
        }
        if matches!(queue.state, QueueState::Ready | QueueState::InFlight) {
            *queues.entry(queue.events[0].route_id).or_default() += 1;
        }
        ready += usize::from(queue.state == QueueState::Ready);
        let is_in_order = queue.events.iter().zip(queue.events.iter().skip(1));
        assert!(
            is_in_order
                .clone()
                .all(|(first, next)| first.seq < next.seq)
        );
    }
    assert_eq!(
        (flow.buffered, flow.buffered_bytes),
        (buffered, bytes),
        "buffered events"
    );
    assert_eq!(
        flow.awaiting_commit, awaiting_commit,
        "changes awaiting commit"
    );
    let in_flight: usize = flow
        .windows
        .values()
        .map(|window| window.queues.len())
        .sum();
    let in_flight_bytes: u64 = flow.windows.values().map(|window| window.bytes).sum();
    assert_eq!(
        (flow.in_flight, flow.in_flight_bytes),
        (in_flight, in_flight_bytes),
        "messages in flight"
    );
    let listed: BTreeSet<_> = flow
        .routes
        .values()
        .flat_map(|route| &route.ready)
        .collect();
    let places: usize = flow.routes.values().map(|route| route.ready.len()).sum();
    assert_eq!((listed.len(), places), (ready, ready), "ready queues");
    for (route_id, route) in &flow.routes {
        let expected = queues.get(route_id).copied().unwrap_or_default();
        assert_eq!(route.queues, expected, "queues of route {route_id}");
        let windows = flow.windows.values();
        let windows = windows
            .filter(|window| window.route_id == *route_id)
            .count();
        assert_eq!(route.windows, windows, "windows of route {route_id}");
        assert!(
            windows <= WINDOWS_PER_ROUTE_MAX,
            "windows of route {route_id}"
        );
    }
    // The room for a fetch is checked before its result is known, so the limits can be
    // exceeded.
    assert!(
        buffered <= 2 * flow.buffered_max(),
        "{buffered} events are buffered"
    );
    let bytes_max = (BUFFERED_BYTES_FACTOR + 1) * IN_FLIGHT_BYTES_MAX + MESSAGE_BYTES_MAX + 500;
    assert!(bytes <= bytes_max, "{bytes} bytes are buffered");
}

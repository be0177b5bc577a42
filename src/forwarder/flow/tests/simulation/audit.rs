//! The flow's own books: every count it keeps beside the lanes must agree with the lanes.

use std::collections::{BTreeMap, BTreeSet};

use super::World;
use super::scenario::{IN_FLIGHT_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::forwarder::flow::lanes::LaneState;
use crate::forwarder::flow::{HELD_BYTES_FACTOR, WINDOWS_PER_ROUTE_MAX};
use crate::journal::RouteId;

impl World {
    pub(super) fn audit(&self) {
        let flow = &self.forwarder.flow;
        let (mut held, mut bytes, mut unmarked) = (0, 0, 0);
        let mut lanes: BTreeMap<RouteId, usize> = BTreeMap::new();
        let mut ready = 0;
        assert_eq!(
            flow.lane_ids.len(),
            flow.lanes.len(),
            "sessions with a lane"
        );
        for (lane_id, lane) in &flow.lanes {
            assert_eq!(
                flow.lane_ids.get(&lane.key),
                Some(lane_id),
                "a lane without its name"
            );
            held += lane.queue.len();
            unmarked += lane.unmarked;
            for event in &lane.queue {
                bytes += event.event.body.len() as u64;
                assert_eq!(
                    flow.seqs.get(&event.seq),
                    Some(lane_id),
                    "an event without its lane"
                );
            }
            if matches!(lane.state, LaneState::Ready | LaneState::InFlight) {
                *lanes.entry(lane.queue[0].route_id).or_default() += 1;
            }
            ready += usize::from(lane.state == LaneState::Ready);
            let is_in_order = lane.queue.iter().zip(lane.queue.iter().skip(1));
            assert!(
                is_in_order
                    .clone()
                    .all(|(first, next)| first.seq < next.seq)
            );
        }
        assert_eq!(
            (flow.held, flow.held_bytes),
            (held, bytes),
            "events in hand"
        );
        assert_eq!(flow.unmarked, unmarked, "changes that are not acknowledged");
        let in_flight: usize = flow.windows.values().map(|window| window.lanes.len()).sum();
        let in_flight_bytes: u64 = flow.windows.values().map(|window| window.bytes).sum();
        assert_eq!(
            (flow.in_flight, flow.in_flight_bytes),
            (in_flight, in_flight_bytes),
            "messages in flight"
        );
        let queued: BTreeSet<_> = flow
            .routes
            .values()
            .flat_map(|route| &route.ready)
            .collect();
        let places: usize = flow.routes.values().map(|route| route.ready.len()).sum();
        assert_eq!((queued.len(), places), (ready, ready), "ready lanes");
        for (route_id, route) in &flow.routes {
            let expected = lanes.get(route_id).copied().unwrap_or_default();
            assert_eq!(route.lanes, expected, "lanes of route {route_id}");
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
        // What a take under way brings is not known when its room is looked at.
        assert!(held <= 2 * flow.held_max(), "{held} events in hand");
        let bytes_max = (HELD_BYTES_FACTOR + 1) * IN_FLIGHT_BYTES_MAX + MESSAGE_BYTES_MAX + 500;
        assert!(bytes <= bytes_max, "{bytes} bytes in hand");
    }

    /// Nothing is left of what is done.
    pub(super) fn is_empty_handed(&self) {
        let flow = &self.forwarder.flow;
        assert!(
            flow.is_idle() && flow.is_settled(),
            "it is at rest and not idle"
        );
        assert!(flow.lanes.is_empty(), "{:?}", flow.lanes);
        assert!(flow.lane_ids.is_empty(), "{:?}", flow.lane_ids);
        assert!(flow.seqs.is_empty(), "{:?}", flow.seqs);
    }
}

//! Tests of the flow: in the forwarder's loop, with a simulated journal and broker in virtual time,
//! from seeds (`simulation`); bugs found that way, as deterministic steps (`retold`); the flow alone
//! (`alone`).

mod alone;
mod pauses;
mod retold;
mod simulation;

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::forwarder::flow::{Flow, FlowLimits};
use crate::journal::{Committed, QueuedEvent, RouteId, Seq};
use crate::webhook::routing::Route;
use crate::webhook::samples;

const IN_FLIGHT_MAX: usize = 4;
const MESSAGE_BYTES_MAX: u64 = 100;

/// Milliseconds.
const CONFIRM_TIMEOUT: u64 = 1_000;

fn flow() -> Flow {
    flow_within(10_000)
}

fn flow_within(in_flight_bytes_max: u64) -> Flow {
    let limits = FlowLimits {
        in_flight_max: IN_FLIGHT_MAX,
        in_flight_bytes_max,
        message_bytes_max: MESSAGE_BYTES_MAX,
        confirm_timeout: Duration::from_millis(CONFIRM_TIMEOUT),
        attempts_max: 3,
    };
    let retry = Backoff::new(Duration::from_millis(20), Duration::from_millis(200), 1);
    Flow::new(limits, retry)
}

/// The head of a new session for each number.
fn held(seq: Seq, route_id: RouteId, name: &str) -> QueuedEvent {
    let body = format!(r#"{{"id":"s{seq}","status":"created","name":"{name}"}}"#);
    QueuedEvent {
        seq,
        event: Arc::new(samples::event(body)),
        routed_status: "created".into(),
        route: Arc::new(Route {
            exchange: "e".into(),
            routing_key: route_id.to_string().into(),
        }),
        route_id,
        is_head: true,
        attempts: 0,
        dead_letter_cause: None,
        is_damaged: false,
        has_body: true,
    }
}

fn committed(fresh: Vec<QueuedEvent>) -> Committed {
    let mut committed = Committed::default();
    committed.fresh.extend(fresh);
    committed
}

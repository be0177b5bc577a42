//! Faults of exchanges, queues, bindings and permissions on a running broker.

use std::time::Duration;

use serde_json::json;

use super::broker::seen;
use super::{Evidence, SHOWS_WITHIN, last};
use crate::ledger::Queue;
use crate::schedule::{Kind, Planned};
use crate::stage::{PASSWORD, SACRIFICE, Stage, USER, declare_sacrifice, until};

/// After a refused login the bridge waits 5 s to 30 s.
const LOGIN_WITHIN: Duration = Duration::from_secs(35);
const TIGHT: &str = "tight";

pub(super) async fn inject(stage: &Stage, planned: &Planned) -> Evidence {
    let vhost = &stage.vhost;
    match planned.kind {
        Kind::ExchangeDeleted => {
            let exchange = ["agents", "alarms", "chat-sessions"][one_of(planned, 3)];
            delete_exchange(stage, planned, exchange).await
        }
        Kind::BindingDeleted => {
            let exchange = ["agents", "alarms", "chat-sessions"][one_of(planned, 3)];
            let before = stage.consumers.delivered(Queue::Unrouted);
            // Nobody consumes this queue, so it must not be the only bound queue at any moment.
            if exchange != "alarms" {
                vhost.unbind(SACRIFICE, exchange, "#").await;
            }
            stage.unbind(exchange).await;
            let is_unrouted = until(SHOWS_WITHIN, async || {
                stage.consumers.delivered(Queue::Unrouted) > before
            })
            .await;
            last(planned).await;
            stage.bind(exchange).await;
            if exchange != "alarms" {
                vhost.bind(SACRIFICE, exchange, "#").await;
            }
            seen(is_unrouted, "events came to the unrouted queue")
        }
        Kind::Returned => {
            stage.unbind("bare").await;
            let evidence = retried(stage, "unroutable").await;
            last(planned).await;
            stage.bind("bare").await;
            evidence
        }
        Kind::QueueDeleted => {
            vhost.delete_queue(SACRIFICE).await;
            let is_gone = vhost.message_count(SACRIFICE).await.is_none();
            last(planned).await;
            declare_sacrifice(vhost).await;
            seen(is_gone, "the queue was gone")
        }
        Kind::QueueFull => {
            let arguments = json!({"x-max-length": 1, "x-overflow": "reject-publish"});
            vhost.declare_queue(TIGHT, arguments).await;
            vhost.bind(TIGHT, "alarms", "#").await;
            let evidence = retried(stage, "nacked").await;
            last(planned).await;
            vhost.delete_queue(TIGHT).await;
            evidence
        }
        Kind::PermissionRevoked => {
            vhost.allow(USER, ".*", "^(?!alarms$).*", ".*").await;
            // A channel that was in use a moment ago has cached its permissions.
            stage.proxy.cut();
            let is_closed = until(SHOWS_WITHIN, async || has_closed_route(stage).await).await;
            last(planned).await;
            vhost.allow(USER, ".*", ".*", ".*").await;
            seen(is_closed, "the bridge says that a route is closed")
        }
        _ => {
            vhost.user(USER, "another password").await;
            stage.proxy.cut();
            let evidence = stage.broker_is("refused", SHOWS_WITHIN).await;
            last(planned).await;
            vhost.user(USER, PASSWORD).await;
            stage.broker_is("connected", LOGIN_WITHIN).await?;
            evidence
        }
    }
}

fn one_of(planned: &Planned, count: u64) -> usize {
    usize::try_from(planned.dice % count).expect("small")
}

/// Deletes an exchange, which the bridge must declare again.
async fn delete_exchange(stage: &Stage, planned: &Planned, exchange: &str) -> Evidence {
    stage.vhost.delete_exchange(exchange).await;
    last(planned).await;
    let is_back = until(2 * SHOWS_WITHIN, async || {
        stage.vhost.has_exchange(exchange).await
    })
    .await;
    if !is_back {
        let arguments = json!({"alternate-exchange": "chat-sessions.unrouted"});
        stage
            .vhost
            .declare_exchange(exchange, "topic", arguments)
            .await;
    }
    stage.bind(exchange).await;
    if exchange != "alarms" {
        stage.vhost.bind(SACRIFICE, exchange, "#").await;
    }
    seen(is_back, "the bridge declared it again")
}

async fn has_closed_route(stage: &Stage) -> bool {
    let status = stage.status().await.unwrap_or_default();
    let routes = status["routes"].as_array();
    routes.is_some_and(|routes| routes.iter().any(|route| route["state"] == "closed"))
}

/// Waits until the bridge has retried a message for this reason.
async fn retried(stage: &Stage, reason: &str) -> Evidence {
    let count = async || {
        let metrics = stage.metrics().await?;
        let retries = metrics.sum_where("publish_retries_total", &[("reason", reason)]);
        Some((stage.pid(), retries))
    };
    let before = count().await;
    let more = until(SHOWS_WITHIN, async || {
        let now = count().await;
        match (before, now) {
            (Some((pid, retries)), Some((same, more))) if pid == same => more > retries,
            // A new process counts from zero.
            (_, Some((_, more))) => more > 0.0,
            (_, None) => false,
        }
    })
    .await;
    seen(
        more,
        format!("the bridge counts messages that were {reason}"),
    )
}

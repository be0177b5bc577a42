//! Messages that the consumers of a queue with a `retry_delay` have rejected: takes them from
//! `<queue>.rejected` and has them wait in `<queue>.retry`, from where the broker brings them back,
//! or makes dead letters of them. A connection of its own, there only if such a queue is configured.
//!
//! At least once: a message is acknowledged when its copy is confirmed and was not returned. What
//! cannot be placed stays unacknowledged and is tried again; neither the bridge's end nor the
//! broker's takes it away.

mod placing;
mod verdict;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Consumer, Event};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::connection;
use super::endpoints::Endpoints;
use super::link::{Shared, part};
use super::live::{CallError, Live};
use super::publisher::short;
use super::topology::Delayed;

/// Rejected messages of one queue in hand at a time; AMQP cannot bound their bytes.
const PREFETCH: u16 = 4;
/// Until a queue that cannot be consumed is asked for again.
const CONSUME_AGAIN: Duration = Duration::from_secs(2);
/// How often lapin is asked whether it still is connected, should an event have been missed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Shown in the broker's management pages.
const CONSUMER_TAG: &str = "deskbridge-retry";

/// Sees to the rejected messages of all queues that want it.
pub(super) struct DelayedTask {
    pub(super) shared: Arc<Shared>,
    pub(super) queues: watch::Receiver<Vec<Delayed>>,
}

/// Why a connection is no longer served.
enum Ended {
    Lost(String),
    OtherQueues,
    Shutdown,
}

impl DelayedTask {
    /// Runs until shutdown.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let settings = &shared.settings;
        let (min, max) = (settings.reconnect_delay_min, settings.reconnect_delay_max);
        let mut endpoints = Endpoints::new(&settings.urls, min, max, Instant::now());
        while self.is_wanted().await {
            let (index, due) = endpoints.next(Instant::now());
            let attempt = async {
                tokio::time::sleep_until(due).await;
                let url = endpoints.url(index);
                connection::connect(url, &settings.tls, settings.connect_timeout).await
            };
            let attempt = tokio::select! {
                biased;
                () = shared.shutdown.cancelled() => return,
                attempt = attempt => attempt,
            };
            let live = match attempt {
                Ok(connection) => Arc::new(Live::new(connection)),
                Err(error) => {
                    // The main link fails in the same way, and says so.
                    debug!(reason = error.reason(), "no connection for retries");
                    endpoints.failed(index, error.is_refusal(), Instant::now());
                    continue;
                }
            };
            endpoints.connected(index);
            let since = Instant::now();
            match self.serve(&live).await {
                Ended::Lost(reason) => {
                    debug!(reason, "the connection for retries was lost");
                    endpoints.lost(index, since.elapsed(), Instant::now());
                }
                Ended::OtherQueues => part(&live).await,
                Ended::Shutdown => return part(&live).await,
            }
        }
    }

    /// Waits until there is a queue to see to; false at shutdown.
    async fn is_wanted(&mut self) -> bool {
        let shutdown = self.shared.shutdown.clone();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => false,
            wanted = self.queues.wait_for(|queues| !queues.is_empty()) => wanted.is_ok(),
        }
    }

    async fn serve(&mut self, live: &Arc<Live>) -> Ended {
        let queues = self.queues.borrow_and_update().clone();
        // Dropped with everything in hand, which the broker then has again.
        let mut consuming = JoinSet::new();
        for queue in queues {
            let (shared, live) = (Arc::clone(&self.shared), Arc::clone(live));
            consuming.spawn(keep_consuming(shared, live, queue));
        }
        let mut events = pin!(live.amqp().events_listener());
        live.set_blocked(live.amqp().status().blocked());
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled() => return Ended::Shutdown,
                reason = live.lost() => return Ended::Lost(reason),
                Some(event) = events.next() => match event {
                    Event::ConnectionBlocked(_) => live.set_blocked(true),
                    Event::ConnectionUnblocked => live.set_blocked(false),
                    Event::Error(error) if !live.amqp().status().connected() => {
                        live.fail(error.to_string());
                    }
                    _ => {}
                },
                changed = self.queues.changed() => return match changed {
                    Ok(()) => Ended::OtherQueues,
                    Err(_) => Ended::Shutdown,
                },
                _ = checks.tick() => if !live.amqp().status().connected() {
                    live.fail("the connection was closed");
                }
            }
        }
    }
}

/// Consumes one queue's rejected messages until the connection is lost.
async fn keep_consuming(shared: Arc<Shared>, live: Arc<Live>, queue: Delayed) {
    let mut is_told = false;
    loop {
        let reason = match consume(&shared, &live, &queue).await {
            Err(CallError::Lost) => return,
            Err(CallError::Closed(_, text)) => text,
            Ok(()) => "the broker ended the subscription".to_owned(),
        };
        if !is_told {
            warn!(
                queue = queue.queue,
                reason,
                "rejected messages wait: `{}` cannot be read; asking again every {CONSUME_AGAIN:?}",
                queue.rejected
            );
            is_told = true;
        }
        let pause = tokio::time::sleep(CONSUME_AGAIN);
        if live.unless_lost(pause).await.is_err() {
            return;
        }
    }
}

/// Consumes until the broker ends it.
async fn consume(shared: &Arc<Shared>, live: &Arc<Live>, queue: &Delayed) -> Result<(), CallError> {
    shared
        .declarer
        .ensure_exchange(live, &queue.rejected)
        .await?;
    let mut rejected = subscribe(live, &queue.rejected).await?;
    info!(
        queue = queue.queue,
        "rejected messages come again after a while"
    );
    let mut placing = JoinSet::new();
    loop {
        tokio::select! {
            Some(placed) = placing.join_next() => placed.expect("placing a message does not panic")?,
            delivery = live.unless_lost(rejected.next()) => match delivery? {
                Some(Ok(delivery)) => {
                    let (shared, live, queue) = (Arc::clone(shared), Arc::clone(live), queue.clone());
                    placing.spawn(async move {
                        placing::settle(&shared, &live, &queue, delivery).await
                    });
                }
                Some(Err(error)) => return Err(live.classify("read rejected messages", &error)),
                None => return Ok(()),
            },
        }
    }
}

async fn subscribe(live: &Live, queue: &str) -> Result<Consumer, CallError> {
    let channel = live.open_channel().await?;
    let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
    live.call("limit what it sends ahead", qos).await?;
    let consumer = channel.basic_consume(
        short(queue),
        CONSUMER_TAG.into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    live.call("take a subscription", consumer).await
}

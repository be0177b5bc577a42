//! Retries messages that consumers of a queue with a `retry_delay` rejected. Consumes
//! `<queue>.rejected` and republishes each message: either to `<queue>.retry`, from which the
//! broker returns it to the queue after the delay, or as a dead letter. Each such queue has its own
//! task and its own connection, to the broker that the main link uses, so that a failure of one does
//! not affect the others.
//!
//! At least once: a message is acknowledged when its copy is confirmed and was not returned. A
//! message that cannot be republished stays unacknowledged and is tried again. It survives a
//! restart of the bridge and of the broker.

mod decision;
mod header_limit;
mod republish;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::select_all;
use futures_util::stream::FuturesUnordered;
use lapin::Consumer;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::connection::{self, ConnectError, FrameSize};
use super::link::{CLOSE_TIMEOUT, Shared};
use super::open_connection::{CallError, OpenConnection};
use super::publisher::short;
use super::topology::RetryTopology;
use super::url::BrokerUrl;
use crate::telemetry::status::{BrokerState, BrokerStatus};

/// Unacknowledged messages per queue. The limit is low because AMQP cannot limit their bytes.
const PREFETCH: u16 = 4;
/// Delay before a queue that cannot be consumed is tried again.
const CONSUME_AGAIN: Duration = Duration::from_secs(2);
/// A connection that lasts for less than this counts as short-lived.
const SHORT_LIVED: Duration = Duration::from_secs(10);
/// Consecutive short-lived connections after which a finding is reported.
const SHORT_LIVED_MAX: u32 = 3;
/// Part of lapin's error when a frame exceeds the negotiated `frame_max`. The broker sends such a
/// frame when the `x-death` that it adds makes the headers of a message too large.
const TOO_LARGE_FRAME: &str = "frame too large";
/// The start of every finding about rejected messages that do not come again.
pub const REJECTED_WAIT: &str = "rejected messages of queue";
/// Shown in the management UI.
const CONSUMER_TAG: &str = "deskbridge-retry";

/// Retries the rejected messages of one queue.
struct QueueTask {
    shared: Arc<Shared>,
    queue: RetryTopology,
    stop: CancellationToken,
}

/// The connections of one queue.
struct Connections {
    /// A connection with [`FrameSize::Large`], if the queue has messages that only such a
    /// connection can read.
    large: Option<OpenConnection>,
    writing: OpenConnection,
}

/// Runs a [`QueueTask`] for each queue whose rejected messages the bridge retries, until shutdown.
pub(super) async fn keep_retrying(shared: &Arc<Shared>) {
    if !shared.settings().retries_rejected {
        return;
    }
    let mut delayed = shared.declarer.delayed();
    loop {
        let queues = delayed.borrow_and_update().clone();
        let stop = shared.shutdown.child_token();
        let mut tasks = JoinSet::new();
        for queue in &queues {
            let task = QueueTask {
                shared: Arc::clone(shared),
                queue: queue.clone(),
                stop: stop.clone(),
            };
            tasks.spawn(task.run());
        }
        let changed = shared.shutdown.run_until_cancelled(delayed.changed());
        let is_over = !matches!(changed.await, Some(Ok(())));
        stop.cancel();
        tasks.join_all().await;
        if is_over {
            return;
        }
        let planned = &shared.declarer.topology().by_broker;
        for RetryTopology {
            queue, rejected, ..
        } in queues
        {
            let finding = format!(
                "{REJECTED_WAIT} `{queue}` wait in `{rejected}`, if it has any: no `[[queues]]` section with this name and a `retry_delay` is left"
            );
            let is_removed = !planned.iter().any(|planned| planned.name == queue);
            shared
                .declarer
                .note_retries(&queue, is_removed.then_some(finding));
        }
        shared.show_findings();
    }
}

impl QueueTask {
    async fn run(self) {
        let mut status = self.shared.status.subscribe();
        let mut endpoints = self.shared.settings().endpoints(1);
        let mut frames = FrameSize::Agreed;
        let (mut failures, mut short_lived) = (0, 0);
        loop {
            let (index, due) = endpoints.next(Instant::now());
            let is_refused = endpoints.is_refused();
            let attempt = async {
                tokio::time::sleep_until(due).await;
                // Until then, the main link reports why there is no connection. Cannot fail: `shared`
                // owns the sender.
                let _ = status.wait_for(is_connected).await;
                if is_refused {
                    self.shared.read_urls_again().await;
                }
                let url = self.shared.url();
                (self.connect(&url, frames).await, url)
            };
            let (connections, url) = match self.stop.run_until_cancelled(attempt).await {
                None => break,
                Some((Ok(connections), url)) => (connections, url),
                Some((Err(error), _)) => {
                    let (reason, is_refusal) = (error.reason(), error.is_refusal());
                    debug!(reason, "retry connection failed");
                    endpoints.failed(index, is_refusal, Instant::now());
                    failures += 1;
                    if (is_refusal || failures > 1) && is_connected(&status.borrow()) {
                        self.note(Some(format!(
                            "{REJECTED_WAIT} `{}` wait: the connection that consumes them cannot be opened: {reason}",
                            self.queue.queue
                        )));
                    }
                    continue;
                }
            };
            if failures > 0 {
                failures = 0;
                self.note(None);
            }
            endpoints.connected(index);
            let since = Instant::now();
            let other_broker = async {
                let url = url.to_string();
                let _ = status
                    .wait_for(|status| status.url.as_ref() != Some(&url))
                    .await;
                "another broker is in use".to_owned()
            };
            let serving = async {
                tokio::select! {
                    reason = self.serve(&connections, short_lived >= SHORT_LIVED_MAX) => reason,
                    reason = other_broker => reason,
                }
            };
            let Some(reason) = self.stop.run_until_cancelled(serving).await else {
                for connection in connections.all() {
                    connection.close(CLOSE_TIMEOUT).await;
                }
                break;
            };
            debug!(reason, "retry connection lost");
            connections
                .all()
                .for_each(|connection| connection.fail(&*reason));
            let is_short = since.elapsed() < SHORT_LIVED;
            short_lived = if is_short { short_lived + 1 } else { 0 };
            if reason.contains(TOO_LARGE_FRAME) && frames == FrameSize::Agreed {
                frames = FrameSize::Large;
            } else if short_lived == SHORT_LIVED_MAX {
                self.note(Some(format!(
                    "{REJECTED_WAIT} `{}` wait: the connection that consumes them is lost repeatedly: {reason}",
                    self.queue.queue
                )));
            }
            endpoints.lost(index, since.elapsed(), Instant::now());
        }
        self.shared.declarer.note_retries(&self.queue.queue, None);
    }

    /// Sets or clears the finding about the queue's retries. A new finding is logged.
    fn note(&self, finding: Option<String>) {
        let declarer = &self.shared.declarer;
        declarer.note_retries(&self.queue.queue, finding);
        self.shared.show_findings();
    }

    async fn connect(
        &self,
        url: &BrokerUrl,
        frames: FrameSize,
    ) -> Result<Connections, ConnectError> {
        let settings = &self.shared.settings();
        let writing = connection::connect(settings, url, FrameSize::Agreed).await?;
        let large = match frames {
            FrameSize::Agreed => None,
            FrameSize::Large => Some(connection::connect(settings, url, frames).await?),
        };
        Ok(Connections { large, writing })
    }

    /// Serves the queue until a connection is lost, and returns the reason. With `was_found`, the
    /// finding about short-lived connections is removed once this one has lasted for
    /// [`SHORT_LIVED`].
    async fn serve(&self, connections: &Connections, was_found: bool) -> String {
        let lasting = async {
            tokio::time::sleep(SHORT_LIVED).await;
            if was_found {
                self.note(None);
            }
        };
        let working = async {
            tokio::join!(self.keep_consuming(connections), lasting);
            // A connection is lost; the other branch says why.
            std::future::pending().await
        };
        // Dropping `working` drops the unacknowledged messages; the broker delivers them again.
        tokio::select! {
            biased;
            reason = connections.watch_over() => reason,
            reason = working => reason,
        }
    }

    /// Consumes the rejected messages until the connection is lost.
    async fn keep_consuming(&self, connections: &Connections) {
        let (queue, rejected) = (&self.queue.queue, &self.queue.rejected);
        let mut is_reported = false;
        loop {
            let reason = match self.consume(connections, &mut is_reported).await {
                Err(CallError::Lost) => return,
                Err(CallError::Closed(_, text)) => text,
                Ok(()) => "the broker cancelled the consumer".to_owned(),
            };
            if !is_reported {
                warn!(
                    queue,
                    reason,
                    "rejected messages wait: `{rejected}` cannot be consumed; retrying every {CONSUME_AGAIN:?}",
                );
                self.note(Some(format!(
                    "{REJECTED_WAIT} `{queue}` wait: `{rejected}` cannot be consumed: {reason}"
                )));
                is_reported = true;
            }
            let pause = tokio::time::sleep(CONSUME_AGAIN);
            if connections.reading().unless_lost(pause).await.is_err() {
                return;
            }
        }
    }

    /// Consumes the rejected messages until the broker cancels the consumer.
    async fn consume(
        &self,
        connections: &Connections,
        is_reported: &mut bool,
    ) -> Result<(), CallError> {
        let connection = connections.reading();
        let RetryTopology {
            queue, rejected, ..
        } = &self.queue;
        self.shared
            .declarer
            .ensure_exchange(connection, rejected)
            .await?;
        let mut deliveries = subscribe(connection, rejected).await?;
        if std::mem::take(is_reported) {
            self.note(None);
        }
        info!(queue, "consuming rejected messages for delayed retry");
        let mut republishing = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(republished) = republishing.next() => republished?,
                delivery = connection.unless_lost(deliveries.next()) => match delivery? {
                    Some(Ok(delivery)) => republishing.push(self.settle(connections, delivery)),
                    Some(Err(error)) => return Err(connection.classify("read rejected messages", &error)),
                    None => return Ok(()),
                },
            }
        }
    }
}

fn is_connected(status: &BrokerStatus) -> bool {
    matches!(status.state, BrokerState::Connected | BrokerState::Blocked)
}

impl Connections {
    fn reading(&self) -> &OpenConnection {
        self.large.as_ref().unwrap_or(&self.writing)
    }

    fn all(&self) -> impl Iterator<Item = &OpenConnection> {
        self.large.iter().chain([&self.writing])
    }

    /// Tracks the state of the connections until one is lost, and returns the reason.
    async fn watch_over(&self) -> String {
        let watching = self
            .all()
            .map(|connection| Box::pin(connection.watch_over()));
        select_all(watching).await.0
    }
}

async fn subscribe(connection: &OpenConnection, queue: &str) -> Result<Consumer, CallError> {
    let channel = connection.open_channel().await?;
    let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
    connection.call("set the prefetch count", qos).await?;
    let consumer = channel.basic_consume(
        short(queue),
        CONSUMER_TAG.into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    connection.call("start a consumer", consumer).await
}

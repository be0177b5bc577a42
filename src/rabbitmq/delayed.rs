//! Messages that the consumers of a queue with a `retry_delay` have rejected: takes them from
//! `<queue>.rejected` and has them wait in `<queue>.retry`, from where the broker brings them back,
//! or makes dead letters of them. Each such queue has a task and a connection of its own, so that
//! what happens to one disturbs no other.
//!
//! At least once: a message is acknowledged when its copy is confirmed and was not returned. What
//! cannot be placed stays unacknowledged and is tried again; neither the bridge's end nor the
//! broker's takes it away.

mod fitting;
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
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::connection::{self, FrameSize};
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
/// A connection that lasts for less has done nothing of use.
const SHORT_LIVED: Duration = Duration::from_secs(10);
/// Short-lived connections in a row after which something is wrong with the queue.
const SHORT_LIVED_MAX: u32 = 3;
/// In the error of a connection on which the broker sent more in one frame than was agreed: it does
/// so with the headers of a message that its own `x-death` has made too large.
const TOO_LARGE_FRAME: &str = "frame too large";
/// Shown in the broker's management pages.
const CONSUMER_TAG: &str = "deskbridge-retry";

/// Sees to the rejected messages of all queues that want it.
pub(super) struct DelayedTask {
    pub(super) shared: Arc<Shared>,
    pub(super) is_wanted: watch::Receiver<bool>,
}

/// Sees to the rejected messages of one queue.
struct QueueTask {
    shared: Arc<Shared>,
    queue: Delayed,
    stop: CancellationToken,
}

/// The connections of one queue. They are the same one unless it has messages that only a
/// connection with large frames can read.
#[derive(Clone)]
struct Lives {
    reading: Arc<Live>,
    writing: Arc<Live>,
}

/// Why a connection is no longer served.
enum Ended {
    Lost(String),
    Stopped,
}

impl DelayedTask {
    /// Runs until shutdown.
    pub(super) async fn run(mut self) {
        let shutdown = self.shared.shutdown.clone();
        let wanted = self.is_wanted.wait_for(|is_wanted| *is_wanted);
        if !matches!(shutdown.run_until_cancelled(wanted).await, Some(Ok(_))) {
            return;
        }
        let mut delayed = self.shared.declarer.delayed();
        loop {
            let queues = delayed.borrow_and_update().clone();
            let stop = shutdown.child_token();
            let mut tasks = JoinSet::new();
            for queue in queues {
                let task = QueueTask {
                    shared: Arc::clone(&self.shared),
                    queue,
                    stop: stop.clone(),
                };
                tasks.spawn(task.run());
            }
            let is_over = tokio::select! {
                biased;
                () = shutdown.cancelled() => true,
                changed = delayed.changed() => changed.is_err(),
            };
            stop.cancel();
            tasks.join_all().await;
            if is_over {
                return;
            }
        }
    }
}

impl QueueTask {
    async fn run(self) {
        let settings = &self.shared.settings;
        let (min, max) = (settings.reconnect_delay_min, settings.reconnect_delay_max);
        let mut endpoints = Endpoints::new(&settings.urls, min, max, Instant::now());
        let mut frames = FrameSize::Agreed;
        let mut short_lived = 0;
        loop {
            let (index, due) = endpoints.next(Instant::now());
            let attempt = async {
                tokio::time::sleep_until(due).await;
                self.connect(index, frames).await
            };
            let attempt = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                attempt = attempt => attempt,
            };
            let lives = match attempt {
                Ok(lives) => lives,
                Err(error) => {
                    // The main link fails in the same way, and says so.
                    debug!(reason = error.reason(), "no connection for retries");
                    endpoints.failed(index, error.is_refusal(), Instant::now());
                    continue;
                }
            };
            endpoints.connected(index);
            let since = Instant::now();
            match self.serve(&lives, short_lived >= SHORT_LIVED_MAX).await {
                Ended::Lost(reason) => {
                    debug!(reason, "the connection for retries was lost");
                    lives.fail(&reason);
                    let is_short = since.elapsed() < SHORT_LIVED;
                    short_lived = if is_short { short_lived + 1 } else { 0 };
                    if reason.contains(TOO_LARGE_FRAME) && frames == FrameSize::Agreed {
                        frames = FrameSize::Large;
                    } else if short_lived == SHORT_LIVED_MAX {
                        self.finding(format!(
                            "rejected messages of queue `{}` wait: the connection that takes them is lost again and again: {reason}",
                            self.queue.queue
                        ));
                    }
                    endpoints.lost(index, since.elapsed(), Instant::now());
                }
                Ended::Stopped => {
                    lives.part().await;
                    break;
                }
            }
        }
        self.shared.declarer.note_retries(&self.queue.queue, None);
    }

    fn finding(&self, finding: String) {
        note(&self.shared, &self.queue.queue, Some(finding));
    }

    async fn connect(
        &self,
        index: usize,
        frames: FrameSize,
    ) -> Result<Lives, connection::ConnectError> {
        let settings = &self.shared.settings;
        let (url, tls, timeout) = (
            &settings.urls[index],
            &settings.tls,
            settings.connect_timeout,
        );
        let connect = async |frames| {
            let connection = connection::connect_with(url, tls, timeout, frames).await?;
            Ok::<_, connection::ConnectError>(Arc::new(Live::new(connection)))
        };
        let writing = connect(FrameSize::Agreed).await?;
        let reading = match frames {
            FrameSize::Agreed => Arc::clone(&writing),
            FrameSize::Large => connect(FrameSize::Large).await?,
        };
        Ok(Lives { reading, writing })
    }

    /// Serves a queue until a connection is lost. `was_found`: its finding goes when this one lasts.
    async fn serve(&self, lives: &Lives, was_found: bool) -> Ended {
        // Dropped with everything in hand, which the broker then has again.
        let mut consuming = JoinSet::new();
        consuming.spawn(keep_consuming(
            Arc::clone(&self.shared),
            lives.clone(),
            self.queue.clone(),
        ));
        let writing = watch_over(&lives.writing);
        let reading = async {
            if Arc::ptr_eq(&lives.reading, &lives.writing) {
                std::future::pending().await
            } else {
                watch_over(&lives.reading).await
            }
        };
        let lasting = async {
            tokio::time::sleep(SHORT_LIVED).await;
            if was_found {
                note(&self.shared, &self.queue.queue, None);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Ended::Stopped,
            reason = writing => Ended::Lost(reason),
            reason = reading => Ended::Lost(reason),
            () = lasting => unreachable!("it goes on"),
        }
    }
}

impl Lives {
    fn fail(&self, reason: &str) {
        self.reading.fail(reason);
        self.writing.fail(reason);
    }

    async fn part(&self) {
        if !Arc::ptr_eq(&self.reading, &self.writing) {
            part(&self.reading).await;
        }
        part(&self.writing).await;
    }
}

/// Follows a connection until it is lost, and says why.
async fn watch_over(live: &Live) -> String {
    let mut events = pin!(live.amqp().events_listener());
    live.set_blocked(live.amqp().status().blocked());
    let mut checks = tokio::time::interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            reason = live.lost() => return reason,
            Some(event) = events.next() => match event {
                Event::ConnectionBlocked(_) => live.set_blocked(true),
                Event::ConnectionUnblocked => live.set_blocked(false),
                Event::Error(error) if !live.amqp().status().connected() => {
                    live.fail(error.to_string());
                }
                _ => {}
            },
            _ = checks.tick() => if !live.amqp().status().connected() {
                live.fail("the connection was closed");
            }
        }
    }
}

/// Shows and logs what is wrong with a queue's retries, or shows that nothing is.
fn note(shared: &Shared, queue: &str, finding: Option<String>) {
    shared.declarer.note_retries(queue, finding);
    shared.show_findings();
}

/// Consumes one queue's rejected messages until the connection is lost.
async fn keep_consuming(shared: Arc<Shared>, lives: Lives, queue: Delayed) {
    let mut is_told = false;
    loop {
        let reason = match consume(&shared, &lives, &queue, &mut is_told).await {
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
            let finding = format!(
                "rejected messages of queue `{}` wait: `{}` cannot be read: {reason}",
                queue.queue, queue.rejected
            );
            note(&shared, &queue.queue, Some(finding));
            is_told = true;
        }
        let pause = tokio::time::sleep(CONSUME_AGAIN);
        if lives.reading.unless_lost(pause).await.is_err() {
            return;
        }
    }
}

/// Consumes until the broker ends it.
async fn consume(
    shared: &Arc<Shared>,
    lives: &Lives,
    queue: &Delayed,
    is_told: &mut bool,
) -> Result<(), CallError> {
    let live = &lives.reading;
    shared
        .declarer
        .ensure_exchange(live, &queue.rejected)
        .await?;
    let mut rejected = subscribe(live, &queue.rejected).await?;
    if std::mem::take(is_told) {
        note(shared, &queue.queue, None);
    }
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
                    let (shared, lives, queue) = (Arc::clone(shared), lives.clone(), queue.clone());
                    placing.spawn(async move {
                        placing::settle(&shared, &lives, &queue, delivery).await
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

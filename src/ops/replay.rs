//! Publishes messages for `events replay` and `dead-letters replay`, over a connection of its own.
//! [`Delivery`] publishes items window by window, for both. [`feed`] and [`publish`] replay events of
//! the journal, in order per session.

mod counts;
mod delivery;
mod feed;
mod items;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::counts::{Ended, ReplayCounts, UNCONFIRMED};
pub use self::delivery::{Delivery, Step};
pub use self::feed::{Fed, Obstacle, Rendering, ReplayedEvent, feed};
pub use self::items::Item;
use super::broker_settings;
use super::failure::failed;
use crate::config::Config;
use crate::journal::JournalError;
use crate::rabbitmq::topology::{Object, PlannedQueue, Topology};

/// What a caller may want to show while a replay runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// One more event was confirmed or has failed.
    Done,
    /// The broker accepts no messages because of an alarm; the replay waits.
    Blocked,
}

/// Connects to the broker. The queue `to_queue` is only verified, never declared. Without it, the
/// topology is declared or verified as in the bridge.
///
/// # Errors
/// If no broker accepts the connection, or if the queue is missing.
pub async fn connect(
    config: &Config,
    to_queue: Option<&str>,
) -> anyhow::Result<Delivery<ReplayedEvent>> {
    let mut settings = broker_settings(config)?;
    if let Some(queue) = to_queue {
        settings.topology = only_queue(queue);
    }
    let delivery = Delivery::open(settings, config, false).await;
    let delivery = delivery.map_err(|why| {
        let advice = "nothing was published; run `deskbridge check`, and this command again when it finds no error";
        failed("connecting to the broker", why, advice)
    })?;
    match to_queue {
        Some(queue) => check_queue(delivery, queue).await,
        None => Ok(delivery),
    }
}

/// A topology of this queue alone, which is verified and never declared.
#[must_use]
pub fn only_queue(name: &str) -> Topology {
    Topology::verified(vec![Object::Queue(PlannedQueue {
        name: name.into(),
        arguments: Vec::new(),
    })])
}

/// Returns a delivery that was opened with [`only_queue`], if that queue exists.
///
/// # Errors
/// If the queue is missing or cannot be checked. The delivery is closed.
pub async fn check_queue<T>(delivery: Delivery<T>, queue: &str) -> anyhow::Result<Delivery<T>> {
    let Some(finding) = delivery.findings().into_iter().next() else {
        return Ok(delivery);
    };
    delivery.close().await;
    let advice = "nothing was published; declare the queue first, or check its name";
    Err(failed(format!("checking queue `{queue}`"), finding, advice))
}

/// Publishes the events of the feed until each has an outcome, until an interruption, or until the
/// broker does not come back.
pub async fn publish(
    mut delivery: Delivery<ReplayedEvent>,
    mut feed: mpsc::Receiver<Result<Vec<Fed>, JournalError>>,
    mut notify: impl FnMut(Notice),
    interrupted: &CancellationToken,
) -> ReplayCounts {
    let mut counts = ReplayCounts::default();
    let mut is_fed = false;
    while !(is_fed && delivery.is_idle()) {
        let has_room = delivery.has_room();
        tokio::select! {
            biased;
            () = interrupted.cancelled() => counts.ended = Ended::Interrupted,
            step = delivery.next() => match step {
                Step::Done(done) => for (event, outcome) in done {
                    counts.record(event, outcome);
                    notify(Notice::Done);
                },
                Step::Blocked => notify(Notice::Blocked),
                Step::BrokerAway => counts.ended = Ended::BrokerAway,
                Step::Unconfirmed => counts.ended = Ended::Unconfirmed,
            },
            page = feed.recv(), if !is_fed && has_room => match page {
                Some(Ok(page)) => for fed in page {
                    match fed {
                        Ok(item) => delivery.add(item),
                        Err((seq, obstacle)) => {
                            if !matches!(obstacle, Obstacle::Pending) {
                                notify(Notice::Done);
                            }
                            counts.skipped(seq, obstacle);
                        }
                    }
                },
                Some(Err(why)) => counts.ended = Ended::Unreadable(why),
                None => is_fed = true,
            },
        }
        if !matches!(counts.ended, Ended::Complete) {
            break;
        }
    }
    for (event, outcome) in delivery.finish().await {
        counts.record(event, outcome);
    }
    counts.unknown = delivery.in_doubt() as u64;
    delivery.close().await;
    counts
}

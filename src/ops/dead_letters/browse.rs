//! Opens a queue for browsing, if that does not use up deliveries of its messages, and visits them.

use std::ops::ControlFlow;

use super::summary::MessageSummary;
use super::target::QueueTarget;
use crate::ops::failure::failed;
use crate::rabbitmq::queue::{DeliveryLimit, QueueBrowser, QueueError, QueuedMessage};

/// From here on a delivery limit counts as unlimited: no queue is browsed so often.
const DELIVERY_LIMIT_UNLIMITED: u64 = 1_000_000;

/// How much of a queue was browsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Browsed {
    /// Number of messages that were ready when the queue was opened.
    pub waiting: u64,
    /// Number of these that were not browsed.
    pub unbrowsed: u64,
}

impl From<&QueueBrowser> for Browsed {
    fn from(queue: &QueueBrowser) -> Self {
        Self {
            waiting: queue.waiting(),
            unbrowsed: queue.unfetched(),
        }
    }
}

impl QueueTarget {
    /// Passes each message to `visit`, in order, until `visit` breaks. All messages return to the
    /// queue.
    ///
    /// # Errors
    /// If the queue cannot be read, or the connection is lost; unless forced, also if browsing uses
    /// up deliveries that matter.
    pub async fn browse(
        &self,
        mut visit: impl FnMut(QueuedMessage, MessageSummary) -> ControlFlow<()>,
    ) -> anyhow::Result<Browsed> {
        let mut queue = self.open().await?;
        let browsing = async {
            'batches: loop {
                let batch = queue.fetch().await?;
                if batch.is_empty() {
                    break;
                }
                for message in batch {
                    let summary = MessageSummary::of(&message, self);
                    if visit(message, summary).is_break() {
                        break 'batches;
                    }
                }
            }
            let browsed = Browsed::from(&queue);
            queue.close().await?;
            Ok(browsed)
        };
        browsing.await.map_err(|error| self.failed(error))
    }

    pub(super) async fn open(&self) -> anyhow::Result<QueueBrowser> {
        let opening = async {
            let queue = QueueBrowser::open(&self.settings, &self.queue).await?;
            let limit = queue.delivery_limit(&self.settings).await?;
            Ok((queue, limit))
        };
        let (queue, limit) = opening.await.map_err(|error| self.failed(error))?;
        let deliveries = match limit {
            DeliveryLimit::Unlimited => return Ok(queue),
            DeliveryLimit::Limited(limit) if limit >= DELIVERY_LIMIT_UNLIMITED => return Ok(queue),
            DeliveryLimit::Stream => {
                let why = "it is a stream, and messages cannot be removed from a stream";
                return Err(failed(self.browsing(), why, "use a client for streams"));
            }
            _ if self.is_forced => return Ok(queue),
            DeliveryLimit::Limited(limit) => {
                format!("of the {limit} that its delivery limit allows")
            }
            DeliveryLimit::BrokersDefault => "of the 20 that RabbitMQ 4 allows".into(),
            DeliveryLimit::Unknown => {
                "of those its delivery limit allows, if it is a quorum queue".into()
            }
        };
        let why = format!("browsing uses up one delivery of each of its messages, {deliveries}");
        let advice = "use --force to browse nevertheless; give the queue a higher `x-delivery-limit` to browse often";
        Err(failed(self.browsing(), why, advice))
    }

    /// The error to report, with advice.
    pub(super) fn failed(&self, error: QueueError) -> anyhow::Error {
        let advice = match &error {
            QueueError::Connect(_) | QueueError::Lost(_) => {
                "`deskbridge check`; run it again when the broker is back, nothing is lost"
            }
            QueueError::Missing(_) => "check the name (--queue), and the vhost in `rabbitmq.urls`",
            QueueError::Refused(405, _) => "the queue is exclusive to another connection",
            QueueError::Refused(..) => {
                "let the user read the queue (`rabbitmqctl list_permissions`), and stop an exclusive consumer of it"
            }
            QueueError::Withheld(_) => "stop that consumer for a moment",
        };
        failed(self.browsing(), error, advice)
    }

    fn browsing(&self) -> String {
        format!("browsing queue `{}`", self.queue)
    }
}

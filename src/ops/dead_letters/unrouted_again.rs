//! Replayed messages that are in the queue of unrouted events again: if no queue is bound for their
//! keys, the alternate exchange routes them back into it.

use jiff::Timestamp;

use super::target::QueueTarget;
use crate::rabbitmq::queue::{QueueBrowser, QueueError, QueuedMessage};
use crate::webhook::message::{Header, replayed_at};

/// How many replayed messages are unrouted again; a lower bound unless `is_exact`.
#[derive(Debug, Clone, Copy)]
pub struct UnroutedAgain {
    pub count: u64,
    pub is_exact: bool,
}

/// Counts the messages of this replay behind those that were in the queue before. `None` if there
/// are none, or if the queue is not that of `unrouted.exchange`.
pub(super) async fn count(
    target: &QueueTarget,
    queue: &mut QueueBrowser,
    at: Timestamp,
) -> Result<Option<UnroutedAgain>, QueueError> {
    let (name, Header::Text(at)) = replayed_at(at) else {
        return Ok(None);
    };
    if target.queue != target.config.unrouted.exchange {
        return Ok(None);
    }
    queue.extend().await?;
    let mut count = 0;
    loop {
        let batch = queue.fetch().await?;
        if batch.is_empty() {
            break;
        }
        let is_ours = |message: &&QueuedMessage| message.text(name) == Some(&at);
        count += batch.iter().filter(is_ours).count() as u64;
    }
    let is_exact = queue.unfetched() == 0;
    Ok((count > 0).then_some(UnroutedAgain { count, is_exact }))
}

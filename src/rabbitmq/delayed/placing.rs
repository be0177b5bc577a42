//! Puts one rejected message where its verdict says, and lets go of it when it is confirmed there.
//! One message at a time on a channel: a return is then certainly that message's.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::Timestamp;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicPublishOptions};
use lapin::{BasicProperties, Confirmation};
use tracing::warn;

use super::super::link::Shared;
use super::super::live::{CallError, Live};
use super::super::publisher::short;
use super::super::topology::Delayed;
use super::verdict::Verdict;
use super::{Lives, fitting, note};

/// Delays before a message that could not be placed is tried again.
const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// Kept by the broker across a restart.
const PERSISTENT: u8 = 2;

/// Why a message is not placed yet.
enum Unplaced {
    /// The broker's words.
    Refused(String),
    /// The connection is lost.
    Lost,
}

/// Places the message, for as long as it takes, then acknowledges it.
///
/// # Errors
/// Only if the connection is lost: the broker has the message then, and gives it again.
pub(super) async fn settle(
    shared: &Shared,
    lives: &Lives,
    queue: &Delayed,
    delivery: Delivery,
) -> Result<(), CallError> {
    let headers = delivery.properties.headers().clone().unwrap_or_default();
    let key = delivery.routing_key.as_str();
    let (verdict, left_out) = fitting::judge(queue, &headers, key, Timestamp::now());
    if !left_out.is_empty() {
        let id = delivery.properties.message_id().as_ref();
        let message_id = id.map(lapin::types::ShortString::as_str);
        warn!(
            queue = queue.queue,
            message_id,
            ?left_out,
            "the headers of a rejected message are too large to be retried; it becomes a dead letter without some of them"
        );
        let finding = format!(
            "a rejected message of queue `{}` had headers too large to be retried and became a dead letter without some of them: {left_out:?}",
            queue.queue
        );
        note(shared, &queue.queue, Some(finding));
    }
    let live = &*lives.writing;
    let mut delays = ExponentialBuilder::new()
        .with_min_delay(AGAIN_MIN)
        .with_max_delay(AGAIN_MAX)
        .without_max_times()
        .build();
    let mut is_told = false;
    while let Err(unplaced) = place(shared, live, &verdict, &delivery).await {
        let Unplaced::Refused(reason) = unplaced else {
            return Err(CallError::Lost);
        };
        if !is_told {
            let exchange = &verdict.exchange;
            warn!(
                queue = queue.queue,
                exchange, reason, "a rejected message cannot be placed; it is tried again"
            );
            let finding = format!(
                "a rejected message of queue `{}` cannot be placed in exchange `{exchange}`: {reason}",
                queue.queue
            );
            note(shared, &queue.queue, Some(finding));
            is_told = true;
        }
        let pause = tokio::time::sleep(delays.next().unwrap_or(AGAIN_MAX));
        live.unless_lost(pause).await?;
    }
    if is_told {
        note(shared, &queue.queue, None);
    }
    let ack = delivery.acker.ack(BasicAckOptions::default());
    lives
        .reading
        .call("take an acknowledgement", ack)
        .await
        .map(drop)
}

async fn place(
    shared: &Shared,
    live: &Live,
    verdict: &Verdict,
    delivery: &Delivery,
) -> Result<(), Unplaced> {
    let exchange = Arc::from(verdict.exchange.as_str());
    if !live.is_known(&exchange) {
        shared.declarer.ensure_exchange(live, &exchange).await?;
        live.set_known(&exchange, true);
    }
    let channel = live.confirm_channel(&exchange).await?;
    let mandatory = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let published = async {
        let confirm = channel.basic_publish(
            short(&exchange),
            short(&verdict.key),
            mandatory,
            &delivery.data,
            properties(&delivery.properties, verdict),
        );
        confirm.await?.await
    };
    let outcome = live.call("confirm a rejected message", published).await;
    let refused = match outcome {
        Ok(Confirmation::Ack(None)) => {
            live.wrote();
            live.keep_channel(&exchange, channel);
            return Ok(());
        }
        Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
            format!("{} {}", returned.reply_code, returned.reply_text)
        }
        Ok(_) => "refused by a queue".to_owned(),
        Err(error) => return Err(forget(live, &exchange, error)),
    };
    live.set_known(&exchange, false);
    Err(Unplaced::Refused(refused))
}

/// The exchange is looked for again before the next try.
fn forget(live: &Live, exchange: &Arc<str>, error: CallError) -> Unplaced {
    live.set_known(exchange, false);
    error.into()
}

impl From<CallError> for Unplaced {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Closed(code, text) => Self::Refused(format!("{code} {text}")),
            CallError::Lost => Self::Lost,
        }
    }
}

/// Those it came with, but for headers, `user_id` (the broker takes only our own) and `expiration`
/// (the message is not to die on its way).
fn properties(of: &BasicProperties, verdict: &Verdict) -> BasicProperties {
    let mut copy = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_headers(verdict.headers.clone());
    macro_rules! keep {
        ($($get:ident => $with:ident),* $(,)?) => {
            $(if let Some(value) = of.$get() {
                copy = copy.$with(value.clone());
            })*
        };
    }
    keep!(
        content_type => with_content_type,
        content_encoding => with_content_encoding,
        priority => with_priority,
        correlation_id => with_correlation_id,
        reply_to => with_reply_to,
        message_id => with_message_id,
        timestamp => with_timestamp,
        kind => with_type,
        app_id => with_app_id,
    );
    copy
}

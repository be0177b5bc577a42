//! Publishes one window: its messages together and in order on a channel of its own, every confirm
//! awaited before anything is said. Knows nothing of when to try again.

mod attribution;
pub(super) mod properties;
pub(in crate::rabbitmq) mod size;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{MaybeDone, maybe_done};
use futures_util::stream::FuturesUnordered;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, PublisherConfirm};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use tokio::sync::mpsc;
use tracing::debug;
use uuid::Uuid;

use self::attribution::Tally;
use self::properties::properties;
pub(super) use self::properties::short;
use super::live::{CallError, Live, telling};
use super::topology::declare::Declarer;
use super::{Outcome, Report, Window};
use crate::failpoint::{self, Place};
use crate::webhook::message::Message;

/// Confirms of one window are reported at most this often: well below any confirm timeout.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// The outcome of every message of a window, in its order.
pub(super) async fn publish(
    live: &Live,
    declarer: &Declarer,
    window: Window,
    reports: &mpsc::Sender<Report>,
) -> Vec<Outcome> {
    let count = window.messages.len();
    let outcome = match attempt(live, declarer, window, reports).await {
        Ok(outcomes) => return outcomes,
        Err(CallError::Closed(code, text)) => Outcome::ChannelClosed(code, text),
        Err(CallError::Lost) => Outcome::Unknown,
    };
    vec![outcome; count]
}

async fn attempt(
    live: &Live,
    declarer: &Declarer,
    window: Window,
    reports: &mpsc::Sender<Report>,
) -> Result<Vec<Outcome>, CallError> {
    let Some(first) = window.messages.first() else {
        return Ok(Vec::new());
    };
    let route = Arc::clone(&first.route);
    let exchange = &route.exchange;
    // Publishing to a missing exchange rejects the whole channel and sometimes costs the
    // connection: it is looked for once on every connection, and again when it is in doubt.
    if window.ensure_exchange || !live.is_known(exchange) {
        declarer.ensure_exchange(live, exchange).await?;
        live.set_known(exchange, true);
    }
    let channel = live.confirm_channel(exchange).await?;
    let ids: Vec<Uuid> = window
        .messages
        .iter()
        .map(|message| message.message_id)
        .collect();
    match exchange_messages(live, &channel, window, &ids, reports).await {
        Ok(tally) => {
            // A channel of RabbitMQ's that was opened while a quorum queue had no leader may go on
            // refusing for that queue long after it has one again: the next try gets another.
            if !tally.is_any_nacked() {
                live.keep_channel(exchange, channel);
            }
            tally.outcomes(&ids).ok_or_else(|| {
                live.fail("the broker returned a message that was not of this window");
                CallError::Lost
            })
        }
        Err(error) => {
            live.set_known(exchange, false);
            Err(error)
        }
    }
}

async fn exchange_messages(
    live: &Live,
    channel: &Channel,
    window: Window,
    ids: &[Uuid],
    reports: &mpsc::Sender<Report>,
) -> Result<Tally, CallError> {
    failpoint::pass(Place::RabbitmqPublishBefore);
    let confirms = write(live, channel, window.messages).await?;
    failpoint::pass(Place::RabbitmqPublishAfter);
    let mut confirms: FuturesUnordered<_> = confirms
        .into_iter()
        .enumerate()
        .map(async |(index, confirm)| (index, confirm.await))
        .collect();
    let mut tally = Tally::default();
    let mut reported = Instant::now();
    while let Some((index, confirmation)) = live.unless_lost(confirms.next()).await? {
        let confirmation = confirmation.map_err(|error| live.classify("confirm", &error))?;
        failpoint::pass(Place::RabbitmqConfirmBefore);
        tally.confirmed(index, confirmation.is_ack());
        count_return(&mut tally, confirmation, ids[index]);
        if reported.elapsed() >= PROGRESS_INTERVAL && !confirms.is_empty() {
            reported = Instant::now();
            // Nobody left to tell: the bridge is ending.
            let _ = live
                .unless_lost(reports.send(Report::Progress(window.id)))
                .await?;
        }
    }
    failpoint::pass(Place::RabbitmqConfirmAfter);
    Ok(tally)
}

/// Counts the return that a confirm brought along, if any. `confirmed` is whose confirm it is.
fn count_return(tally: &mut Tally, confirmation: Confirmation, confirmed: Uuid) {
    if let Some(returned) = confirmation.take_message() {
        let id = returned
            .properties
            .message_id()
            .as_ref()
            .map(lapin::types::ShortString::as_str);
        let reason = format!("{} {}", returned.reply_code, returned.reply_text);
        if id.is_none_or(|id| Uuid::try_parse(id) != Ok(confirmed)) {
            debug!(returned = id, %confirmed, "a return came with the confirm of another message");
        }
        tally.returned(id, reason);
    }
}

/// Hands all messages to lapin before waiting for the first to be written: one by one costs a
/// thread's round trip each.
async fn write(
    live: &Live,
    channel: &Channel,
    messages: Vec<Message>,
) -> Result<Vec<PublisherConfirm>, CallError> {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let publish = async |mut message: Message| {
        let properties = properties(&mut message);
        let (exchange, key) = (&message.route.exchange, &message.route.routing_key);
        let (exchange, key) = (short(exchange), short(key));
        channel
            .basic_publish(exchange, key, options, &message.body, properties)
            .await
    };
    let mut publishing: Vec<_> = messages
        .into_iter()
        .map(|message| maybe_done(Box::pin(publish(message))))
        .collect();
    let written = live
        .unless_stalled("take messages", write_in_order(live, &mut publishing))
        .await?;
    let mut confirms = Vec::with_capacity(written.len());
    let mut errors = Vec::new();
    for result in written {
        match result {
            Ok(confirm) => confirms.push(confirm),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        // The channel is gone. Which error says why is a matter of timing; the confirms know too.
        for confirm in std::mem::take(&mut confirms) {
            if let Err(error) = live.unless_stalled("close the channel", confirm).await? {
                errors.push(error);
            }
        }
    }
    match telling(errors) {
        Some(error) => Err(live.classify("publish", &error)),
        None => Ok(confirms),
    }
}

type Publishing<F> = MaybeDone<Pin<Box<F>>>;

async fn write_in_order<F: Future>(
    live: &Live,
    publishing: &mut [Publishing<F>],
) -> Vec<F::Output> {
    poll_fn(|context| {
        for message in publishing.iter_mut() {
            let _ = Pin::new(message).poll(context);
        }
        Poll::Ready(())
    })
    .await;
    let mut written = Vec::with_capacity(publishing.len());
    for message in publishing {
        (&mut *message).await;
        live.wrote();
        written.extend(Pin::new(message).take_output());
    }
    written
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use lapin::message::{BasicReturnMessage, Delivery};

    use super::*;

    #[test]
    fn a_return_that_comes_with_anothers_confirm_counts_for_the_message_it_is() {
        let [confirmed, returned] = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let mut tally = Tally::default();
        tally.confirmed(0, true);
        tally.confirmed(1, true);
        let mut delivery = Delivery::mock(0, "e".into(), "k".into(), false, Vec::new());
        delivery.properties =
            BasicProperties::default().with_message_id(short(&returned.to_string()));
        let message = BasicReturnMessage {
            delivery,
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
        };
        count_return(&mut tally, Confirmation::Ack(Some(message)), confirmed);
        let back = Outcome::Returned("312 NO_ROUTE".into());
        assert_eq!(
            tally.outcomes(&[confirmed, returned]),
            Some(vec![Outcome::Delivered, back])
        );
    }
}

//! Publishes one window: its messages together and in order on a channel of its own. Outcomes are
//! reported only when every confirm has arrived. Does not decide when to retry.

mod attribution;
pub(super) mod properties;
pub(in crate::rabbitmq) mod size;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{MaybeDone, maybe_done};
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, PublisherConfirm};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tracing::debug;

use self::attribution::Attribution;
pub(super) use self::properties::short;
use super::open_connection::{CallError, OpenConnection, most_specific_error};
use super::topology::declare::Declarer;
use super::{Outcome, OutgoingMessage, PublishWindow, PublisherEvent};
use crate::failpoint::{self, Failpoint};

/// Minimum time between two progress reports of a window; well below any confirm timeout.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// One write of this many wakes the task. lapin writes in order, on its own thread, and a wake-up
/// for each message would cost more than the message.
const AWAITED_EVERY: usize = 16;
/// The write of a message with a body of at least this size always wakes the task, so that progress
/// is seen on a slow connection.
const LARGE_BYTES: usize = 64 << 10;

/// Publishes a window and returns the outcome of each message, in the window's order.
pub(super) async fn publish(
    connection: &OpenConnection,
    declarer: &Declarer,
    window: PublishWindow,
    reports: &mpsc::Sender<PublisherEvent>,
) -> Vec<Outcome> {
    let count = window.messages.len();
    attempt(connection, declarer, window, reports)
        .await
        .unwrap_or_else(|error| vec![error.into(); count])
}

async fn attempt(
    connection: &OpenConnection,
    declarer: &Declarer,
    window: PublishWindow,
    reports: &mpsc::Sender<PublisherEvent>,
) -> Result<Vec<Outcome>, CallError> {
    let Some(first) = window.messages.first() else {
        return Ok(Vec::new());
    };
    let route = Arc::clone(first.route());
    let exchange = &route.exchange;
    // Publishing to a missing exchange closes the channel, and sometimes the connection. So the
    // exchange is checked once per connection, and again after a failure.
    if window.ensure_exchange || !connection.is_known(exchange) {
        declarer.ensure_exchange(connection, exchange).await?;
        connection.set_known(exchange, true);
    }
    let channel = connection.confirm_channel(exchange).await?;
    let ids: Vec<_> = window
        .messages
        .iter()
        .map(OutgoingMessage::message_id)
        .collect();
    match exchange_messages(connection, &channel, window, &ids, reports).await {
        Ok(attribution) => {
            // In RabbitMQ, a channel that was opened while a quorum queue had no leader can keep
            // rejecting messages for that queue long after it has a leader again. The next attempt
            // gets another channel.
            if !attribution.is_any_nacked() {
                connection.keep_channel(exchange, channel);
            }
            attribution.outcomes(&ids).ok_or_else(|| {
                connection
                    .fail("the broker returned a message that does not belong to this window");
                CallError::Lost
            })
        }
        Err(error) => {
            connection.set_known(exchange, false);
            Err(error)
        }
    }
}

async fn exchange_messages(
    connection: &OpenConnection,
    channel: &Channel,
    window: PublishWindow,
    ids: &[Option<String>],
    reports: &mpsc::Sender<PublisherEvent>,
) -> Result<Attribution, CallError> {
    failpoint::pass(Failpoint::RabbitmqPublishBefore);
    let confirms = write(connection, channel, window.messages).await?;
    failpoint::pass(Failpoint::RabbitmqPublishAfter);
    let confirmed = confirm_all(confirms, window.id, reports);
    let confirmations = connection
        .unless_lost(confirmed)
        .await?
        .map_err(|error| connection.classify("confirm", &error))?;
    let mut attribution = Attribution::default();
    for (confirmation, id) in confirmations.into_iter().zip(ids) {
        failpoint::pass(Failpoint::RabbitmqConfirmBefore);
        attribution.confirmed(confirmation.is_ack());
        count_return(&mut attribution, confirmation, id.as_deref());
    }
    failpoint::pass(Failpoint::RabbitmqConfirmAfter);
    Ok(attribution)
}

/// Awaits all confirms of a window, and returns them in its order. The last one is awaited first:
/// most of the others have arrived by then, without a wake-up for each.
async fn confirm_all(
    confirms: Vec<PublisherConfirm>,
    window: u64,
    reports: &mpsc::Sender<PublisherEvent>,
) -> lapin::Result<Vec<Confirmation>> {
    let mut waiting: Vec<_> = confirms.into_iter().map(maybe_done).collect();
    let mut next_report = Instant::now() + PROGRESS_INTERVAL;
    let mut reported = 0;
    for index in (0..waiting.len()).rev() {
        while timeout_at(next_report.into(), &mut waiting[index])
            .await
            .is_err()
        {
            let arrived = poll_quietly(&mut waiting);
            if arrived > reported {
                // Fails only when the receiver is gone: the bridge is shutting down.
                let _ = reports.send(PublisherEvent::Progress(window)).await;
            }
            (reported, next_report) = (arrived, Instant::now() + PROGRESS_INTERVAL);
        }
        if let MaybeDone::Done(Err(_)) = &waiting[index] {
            poll_quietly(&mut waiting);
            break;
        }
    }
    let (mut confirmations, mut errors) = (Vec::with_capacity(waiting.len()), Vec::new());
    for confirm in &mut waiting {
        match Pin::new(confirm).take_output() {
            Some(Ok(confirmation)) => confirmations.push(confirmation),
            Some(Err(error)) => errors.push(error),
            None => {}
        }
    }
    match most_specific_error(errors) {
        Some(error) => Err(error),
        None => Ok(confirmations),
    }
}

/// Polls all futures without registering a wake-up; returns how many are complete.
fn poll_quietly<F: Future + Unpin>(waiting: &mut [MaybeDone<F>]) -> usize {
    let mut context = Context::from_waker(Waker::noop());
    let mut is_complete = |one: &mut MaybeDone<F>| match one {
        MaybeDone::Future(_) => Pin::new(one).poll(&mut context).is_ready(),
        MaybeDone::Done(_) | MaybeDone::Gone => true,
    };
    waiting
        .iter_mut()
        .map(&mut is_complete)
        .filter(|is| *is)
        .count()
}

/// Counts the return that lapin attached to a confirm, if any. `confirmed` is the id of the message
/// that was confirmed.
fn count_return(
    attribution: &mut Attribution,
    confirmation: Confirmation,
    confirmed: Option<&str>,
) {
    if let Some(returned) = confirmation.take_message() {
        let id = returned
            .properties
            .message_id()
            .as_ref()
            .map(lapin::types::ShortString::as_str);
        let reason = format!("{} {}", returned.reply_code, returned.reply_text);
        if id != confirmed {
            debug!(
                returned = id,
                confirmed, "a return came with the confirm of another message"
            );
        }
        attribution.returned(id, reason);
    }
}

/// Passes all messages to lapin before it waits for the first write. One by one, each message would
/// cost a round trip between threads.
async fn write(
    connection: &OpenConnection,
    channel: &Channel,
    messages: Vec<OutgoingMessage>,
) -> Result<Vec<PublisherConfirm>, CallError> {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let publish = async |message: OutgoingMessage| {
        let (route, properties, body) = message.into_amqp();
        let (exchange, key) = (short(&route.exchange), short(&route.routing_key));
        channel
            .basic_publish(exchange, key, options, &body, properties)
            .await
    };
    let last = messages.len().saturating_sub(1);
    let mut publishing: Vec<_> = messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| Publishing {
            is_awaited: index == last
                || index % AWAITED_EVERY == AWAITED_EVERY - 1
                || message.body().len() >= LARGE_BYTES,
            write: maybe_done(Box::pin(publish(message))),
        })
        .collect();
    let written = connection
        .unless_stalled(
            "accept messages",
            write_in_order(connection, &mut publishing),
        )
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
        // The channel is closed. Timing decides which error carries the broker's reply; it may be
        // one of the confirms.
        for confirm in std::mem::take(&mut confirms) {
            if let Err(error) = connection
                .unless_stalled("close the channel", confirm)
                .await?
            {
                errors.push(error);
            }
        }
    }
    match most_specific_error(errors) {
        Some(error) => Err(connection.classify("publish", &error)),
        None => Ok(confirms),
    }
}

/// One message that is being written to the socket.
struct Publishing<F: Future> {
    /// Whether its write wakes the task. All messages before it have been written by then.
    is_awaited: bool,
    write: MaybeDone<Pin<Box<F>>>,
}

async fn write_in_order<F: Future>(
    connection: &OpenConnection,
    publishing: &mut [Publishing<F>],
) -> Vec<F::Output> {
    poll_fn(|context| {
        let mut quiet = Context::from_waker(Waker::noop());
        for message in publishing.iter_mut() {
            let context = if message.is_awaited {
                &mut *context
            } else {
                &mut quiet
            };
            let _ = Pin::new(&mut message.write).poll(context);
        }
        Poll::Ready(())
    })
    .await;
    let mut written = Vec::with_capacity(publishing.len());
    for run in publishing.split_inclusive_mut(|message| message.is_awaited) {
        if let Some(last) = run.last_mut() {
            (&mut last.write).await;
        }
        for message in run {
            (&mut message.write).await;
            written.extend(Pin::new(&mut message.write).take_output());
        }
        connection.wrote();
    }
    written
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use lapin::message::{BasicReturnMessage, Delivery};

    use super::*;

    #[test]
    fn return_with_another_confirm_is_attributed() {
        let mut attribution = Attribution::default();
        attribution.confirmed(true);
        attribution.confirmed(true);
        let mut delivery = Delivery::mock(0, "e".into(), "k".into(), false, Vec::new());
        delivery.properties = BasicProperties::default().with_message_id(short("b"));
        let message = BasicReturnMessage {
            delivery,
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
        };
        let confirmation = Confirmation::Ack(Some(message));
        count_return(&mut attribution, confirmation, Some("a"));
        let back = Outcome::Returned("312 NO_ROUTE".into());
        assert_eq!(
            attribution.outcomes(&["a", "b"].map(|id| Some(id.into()))),
            Some(vec![Outcome::Delivered, back])
        );
    }
}

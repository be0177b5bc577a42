//! Publishes one window: its messages together and in order on a channel of its own, every confirm
//! awaited before anything is said. Knows nothing of when to try again.

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
/// One write of this many wakes the task. lapin writes in order, on a thread of its own, and a
/// wake-up for each message would cost more than the message.
const AWAITED_EVERY: usize = 16;
/// The write of a message with such a body wakes the task in any case, so that a slow connection
/// is seen to make progress.
const LARGE_BYTES: usize = 64 << 10;

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
    let confirmed = confirm_all(confirms, window.id, reports);
    let confirmations = live
        .unless_lost(confirmed)
        .await?
        .map_err(|error| live.classify("confirm", &error))?;
    let mut tally = Tally::default();
    for (confirmation, id) in confirmations.into_iter().zip(ids) {
        failpoint::pass(Place::RabbitmqConfirmBefore);
        tally.confirmed(confirmation.is_ack());
        count_return(&mut tally, confirmation, *id);
    }
    failpoint::pass(Place::RabbitmqConfirmAfter);
    Ok(tally)
}

/// All confirms of a window, in its order. The last one is awaited first: most of the others have
/// arrived by then, without a wake-up for each.
async fn confirm_all(
    confirms: Vec<PublisherConfirm>,
    window: u64,
    reports: &mpsc::Sender<Report>,
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
                // The receiver is gone when the bridge ends.
                let _ = reports.send(Report::Progress(window)).await;
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
    match telling(errors) {
        Some(error) => Err(error),
        None => Ok(confirmations),
    }
}

/// Polls without asking for a wake-up; returns how many are complete.
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
    let last = messages.len().saturating_sub(1);
    let mut publishing: Vec<_> = messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| Publishing {
            is_awaited: index == last
                || index % AWAITED_EVERY == AWAITED_EVERY - 1
                || message.body.len() >= LARGE_BYTES,
            write: maybe_done(Box::pin(publish(message))),
        })
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

/// One message on its way to the socket.
struct Publishing<F: Future> {
    /// Its write wakes the task: those before it have been written by then.
    is_awaited: bool,
    write: MaybeDone<Pin<Box<F>>>,
}

async fn write_in_order<F: Future>(
    live: &Live,
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
        live.wrote();
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
        tally.confirmed(true);
        tally.confirmed(true);
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

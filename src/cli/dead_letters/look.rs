//! Opens a queue to look into, if that costs its messages nothing, and goes through it.

use std::ops::ControlFlow;

use deskbridge::rabbitmq::queue::{Letter, Nature, Queue, QueueError};

use super::Place;
use crate::cli::failure::failed;
use crate::cli::output::say;

/// Looks that nobody lives to see.
const LIMIT_THAT_MATTERS_NOT: u64 = 1_000_000;

/// Opens it. Refuses a queue whose messages a look would use up, unless forced.
pub async fn open(place: &Place) -> anyhow::Result<Queue> {
    let queue = Queue::open(&place.settings, &place.queue).await;
    let queue = queue.map_err(|error| told(place, error))?;
    let nature = queue
        .nature(&place.settings)
        .await
        .map_err(|error| told(place, error))?;
    let deliveries = match nature {
        Nature::Unlimited => return Ok(queue),
        Nature::Limited(limit) if limit >= LIMIT_THAT_MATTERS_NOT => return Ok(queue),
        Nature::Stream => {
            let why = "it is a stream, of which nothing is ever taken";
            return Err(refused(place, why.into(), "use a client for streams"));
        }
        _ if place.is_forced => return Ok(queue),
        Nature::Limited(limit) => format!("of the {limit} that its delivery limit allows"),
        Nature::BrokersDefault => "of the 20 that RabbitMQ 4 allows".into(),
        Nature::Unknown => "of those its delivery limit allows, if it is a quorum queue".into(),
    };
    let why = format!("a look uses up one delivery of each of its messages, {deliveries}");
    let advice =
        "--force to look nevertheless; give the queue a higher `x-delivery-limit` to look often";
    Err(refused(place, why, advice))
}

/// Shows each message to `visit`, in order, until it has seen enough.
pub async fn each(
    queue: &mut Queue,
    mut visit: impl FnMut(Letter) -> ControlFlow<()>,
) -> Result<(), QueueError> {
    loop {
        let window = queue.take().await?;
        if window.is_empty() {
            return Ok(());
        }
        for letter in window {
            if visit(letter).is_break() {
                return Ok(());
            }
        }
    }
}

/// What went wrong, and what to try.
pub fn told(place: &Place, error: QueueError) -> anyhow::Error {
    let advice = match &error {
        QueueError::Connect(_) | QueueError::Lost(_) => {
            "`deskbridge check`; run it again when the broker is back, nothing is lost"
        }
        QueueError::Missing(_) => {
            "is it the right name (--queue), and the right vhost in `rabbitmq.urls`?"
        }
        QueueError::Refused(405, _) => "the queue belongs to another connection alone",
        QueueError::Refused(..) => {
            "may the user read the queue, and has nobody else an exclusive consumer on it?"
        }
        QueueError::Withheld(_) => "stop that consumer for a moment",
    };
    failed(
        format!("looking into queue `{}`", place.queue),
        error,
        advice,
    )
}

fn refused(place: &Place, why: String, advice: &str) -> anyhow::Error {
    failed(format!("looking into queue `{}`", place.queue), why, advice)
}

/// Says on standard error that nothing matches.
pub fn tell_none(place: &Place, waiting: u64) {
    let queue = &place.queue;
    match waiting {
        0 => say(format_args!("queue `{queue}` has no message that is ready")),
        1 => say(format_args!(
            "the one message in queue `{queue}` does not match"
        )),
        _ => say(format_args!(
            "none of the {waiting} messages in queue `{queue}` matches"
        )),
    }
}

/// Says that more is there than one pass takes.
pub fn tell_untaken(place: &Place, queue: &Queue, is_whole: bool) {
    if is_whole && queue.untaken() > 0 {
        say(format_args!(
            "the last {} messages in queue `{}` were not looked at: a pass takes no more",
            queue.untaken(),
            place.queue
        ));
    }
}

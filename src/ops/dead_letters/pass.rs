//! One pass over the messages that are in a queue when it begins. What happened to each is reported
//! in order, once it is certain.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::browse::Browsed;
use super::destination::Destination;
use super::plan::{Action, Planner};
use super::selection::MessageSelection;
use super::summary::MessageSummary;
use super::target::QueueTarget;
use super::unrouted_again::{self, UnroutedAgain};
use crate::ops::failure::failed;
use crate::ops::replay::{Delivery, Item, Step, UNCONFIRMED, check_queue, only_queue};
use crate::rabbitmq::queue::{QueueBrowser, QueuedMessage};
use crate::rabbitmq::topology::Topology;
use crate::rabbitmq::{Outcome, OutgoingMessage};
use crate::webhook::routing::Route;

/// What happened to a message.
#[derive(Debug)]
pub enum Disposition {
    /// It was discarded or replayed, or would be; with its new routes.
    Done(Vec<Arc<Route>>),
    /// It stays in the queue, for this reason.
    Kept(String),
}

/// A selected message that a pass has handled.
#[derive(Debug)]
pub struct HandledMessage {
    pub summary: MessageSummary,
    pub disposition: Disposition,
    /// False if the connection was lost before the removal was confirmed.
    pub is_certain: bool,
}

/// The result of a pass.
#[derive(Debug, Default)]
pub struct PassResult {
    /// Messages that are certainly done.
    pub done: u64,
    /// Messages that may be done or not.
    pub in_doubt: u64,
    /// Selected messages that stay in the queue.
    pub kept: u64,
    /// Ids of the selection that no message has.
    pub missing: Vec<String>,
    /// How much was browsed; `None` if the pass ended early.
    pub complete: Option<Browsed>,
    /// Replayed messages that are in the queue of unrouted events again.
    pub unrouted_again: Option<UnroutedAgain>,
    /// Why the pass ended early, unless it was stopped.
    pub error: Option<anyhow::Error>,
}

struct Pass<'a> {
    target: &'a QueueTarget,
    selection: &'a MessageSelection,
    /// `None` if messages are discarded.
    planner: Option<Planner<'a>>,
    is_dry_run: bool,
    messages_max: u64,
    queue: QueueBrowser,
    /// Handled messages that were not reported yet, each with the number of removals that have to
    /// be confirmed before it is certain.
    unreported: VecDeque<(HandledMessage, u64)>,
    reports: mpsc::Sender<HandledMessage>,
    stop: CancellationToken,
    /// The counts so far; until the end, `done` includes what is in doubt.
    result: PassResult,
}

/// A message of the queue and what is published for it.
struct Planned {
    message: QueuedMessage,
    summary: MessageSummary,
    messages: Vec<OutgoingMessage>,
    routes: Vec<Arc<Route>>,
    /// Number of messages that have an outcome.
    completed: usize,
    /// Why one of them was not delivered.
    failure: Option<String>,
}

/// Replays or discards the selected messages. Once `stop` is cancelled or the receiver of the
/// reports is dropped, finishes what is in flight.
///
/// # Errors
/// If the queue cannot be browsed, or no broker accepts a connection. Later errors are in the
/// result.
pub async fn run(
    target: &QueueTarget,
    selection: &MessageSelection,
    action: &Action,
    reports: mpsc::Sender<HandledMessage>,
    stop: CancellationToken,
) -> anyhow::Result<PassResult> {
    let (planner, is_dry_run, messages_max) = match action {
        Action::Discard { messages_max } => (None, false, *messages_max),
        Action::Replay {
            destination,
            body,
            is_dry_run,
        } => {
            let planner = Planner::new(target, destination, body.as_ref())?;
            let messages_max = if body.is_some() { 1 } else { u64::MAX };
            (Some(planner), *is_dry_run, messages_max)
        }
    };
    let queue = target.open().await?;
    let mut delivery = match &planner {
        Some(planner) => open_delivery(target, planner.destination, is_dry_run).await?,
        None => None,
    };
    let mut pass = Pass {
        target,
        selection,
        planner,
        is_dry_run,
        messages_max,
        queue,
        unreported: VecDeque::new(),
        reports,
        stop,
        result: PassResult {
            missing: selection.ids.clone(),
            ..PassResult::default()
        },
    };
    let ended = pass.run(&mut delivery).await;
    if let Some(delivery) = delivery {
        delivery.close().await;
    }
    Ok(pass.close(ended).await)
}

/// Opens a separate connection, because an alarm blocks everything on a connection that publishes,
/// including acknowledgements. It declares nothing, but checks that the queue of the destination
/// exists. If it is lost, the delivery ends. A dry run only does the check.
async fn open_delivery(
    target: &QueueTarget,
    destination: &Destination,
    is_dry_run: bool,
) -> anyhow::Result<Option<Delivery<usize>>> {
    let queue = match destination {
        Destination::Queue(queue) => Some(queue),
        Destination::Original | Destination::Exchange(_) => None,
    };
    if is_dry_run && queue.is_none() {
        return Ok(None);
    }
    let mut settings = target.settings.clone();
    let nothing = || Topology::verified(Vec::new());
    settings.topology = queue.map_or_else(nothing, |queue| only_queue(queue));
    let delivery = Delivery::open(settings, &target.config, true).await;
    let mut delivery = delivery.map_err(|why| {
        let advice = "`deskbridge check`; run it again when the broker is back, nothing is lost";
        failed("connecting to the broker", why, advice)
    })?;
    if let Some(queue) = queue {
        delivery = check_queue(delivery, queue).await?;
    }
    if is_dry_run {
        delivery.close().await;
        return Ok(None);
    }
    Ok(Some(delivery))
}

impl Pass<'_> {
    /// Returns false if it was stopped.
    async fn run(&mut self, delivery: &mut Option<Delivery<usize>>) -> anyhow::Result<bool> {
        while self.result.done < self.messages_max {
            let batch = self.queue.fetch().await;
            let batch = batch.map_err(|error| self.target.failed(error))?;
            self.report().await;
            if batch.is_empty() {
                break;
            }
            let planned = self.plan(batch);
            match delivery {
                Some(delivery) => self.publish(planned, delivery).await?,
                None => {
                    for one in planned {
                        if self.is_stopped() {
                            break;
                        }
                        self.finish(&one).await?;
                    }
                }
            }
            if self.is_stopped() && self.result.done < self.messages_max {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_cancelled() || self.reports.is_closed()
    }

    /// The selected messages of a batch that do not stay in the queue.
    fn plan(&mut self, batch: Vec<QueuedMessage>) -> Vec<Planned> {
        let mut planned = Vec::new();
        for message in batch {
            if self.result.done + planned.len() as u64 >= self.messages_max {
                break;
            }
            let summary = MessageSummary::of(&message, self.target);
            if !self.selection.selects(&summary) {
                continue;
            }
            self.result.missing.retain(|id| !summary.is_called(id));
            let messages = self.planner.as_ref().map_or(Ok(Vec::new()), |planner| {
                planner.outgoing(&message, &summary)
            });
            match messages {
                Ok(messages) => planned.push(Planned {
                    message,
                    summary,
                    routes: messages.iter().map(|one| Arc::clone(one.route())).collect(),
                    messages,
                    completed: 0,
                    failure: None,
                }),
                Err(why) => self.record(summary, Disposition::Kept(why)),
            }
        }
        planned
    }

    /// Publishes in the order of the queue. If it is stopped, finishes what is in flight.
    async fn publish(
        &mut self,
        mut planned: Vec<Planned>,
        delivery: &mut Delivery<usize>,
    ) -> anyhow::Result<()> {
        for (index, one) in planned.iter_mut().enumerate() {
            for message in one.messages.drain(..) {
                // A return belongs to the message with its id, so there may be only one.
                let id = message.message_id().map(Into::into);
                let mut item = Item::new(index, id, message);
                item.is_alone = item.key.is_none();
                delivery.add(item);
            }
        }
        loop {
            // All sessions of a corrected body are published, or none of them counts.
            if self.is_stopped() && self.messages_max > 1 {
                delivery.drop_waiting();
            }
            if delivery.is_idle() {
                return Ok(());
            }
            let completed = match delivery.next().await {
                Step::Done(completed) => completed,
                step => return Err(given_up(&step, delivery.reason())),
            };
            for (index, outcome) in completed {
                self.record_outcome(&mut planned[index], outcome).await?;
            }
        }
    }

    /// Processes the outcome of a published message. When all messages that replace a queued message
    /// have an outcome, and all were delivered, removes the queued message.
    async fn record_outcome(&mut self, one: &mut Planned, outcome: Outcome) -> anyhow::Result<()> {
        let failure = match outcome {
            Outcome::Delivered => None,
            Outcome::Returned(reason) => Some(format!("no queue takes it ({reason})")),
            Outcome::Nacked => Some("the broker refused it; is a queue full?".into()),
            Outcome::ChannelClosed { reason, .. } => {
                Some(format!("the broker refused it: {reason}"))
            }
            Outcome::Unknown => Some("the connection was lost".into()),
        };
        one.failure = one.failure.take().or(failure);
        one.completed += 1;
        if one.completed < one.routes.len() {
            return Ok(());
        }
        match one.failure.take() {
            None => self.finish(one).await?,
            Some(why) => self.record(one.summary.clone(), Disposition::Kept(why)),
        }
        Ok(())
    }

    /// Removes a message from the queue, except in a dry run, and records it as done.
    async fn finish(&mut self, one: &Planned) -> anyhow::Result<()> {
        let removed = if self.is_dry_run {
            Ok(())
        } else {
            self.queue.remove(&one.message).await
        };
        self.record(one.summary.clone(), Disposition::Done(one.routes.clone()));
        removed.map_err(|error| self.target.failed(error))
    }

    fn record(&mut self, summary: MessageSummary, disposition: Disposition) {
        let removals = match disposition {
            Disposition::Done(_) => {
                self.result.done += 1;
                self.queue.removed()
            }
            Disposition::Kept(_) => {
                self.result.kept += 1;
                0
            }
        };
        let handled = HandledMessage {
            summary,
            disposition,
            is_certain: true,
        };
        self.unreported.push_back((handled, removals));
    }

    /// Reports what is certain by now. Reports are dropped if the receiver is gone.
    async fn report(&mut self) {
        let confirmed = self.queue.confirmed_removals();
        let is_certain = |(_, removals): &mut (_, u64)| *removals <= confirmed;
        while let Some((handled, _)) = self.unreported.pop_front_if(is_certain) {
            let _ = self.reports.send(handled).await;
        }
    }

    /// Waits until all removals are confirmed, and returns all other messages to the queue.
    async fn close(mut self, mut ended: anyhow::Result<bool>) -> PassResult {
        let target = self.target;
        let mut browsed = Browsed::from(&self.queue);
        if self.result.done == self.messages_max {
            browsed.unbrowsed = 0;
        }
        if let (Ok(true), Some(planner), 1..) = (&ended, &self.planner, self.result.done)
            && !self.is_dry_run
            && !matches!(planner.destination, Destination::Queue(_))
        {
            match unrouted_again::count(target, &mut self.queue, planner.at).await {
                Ok(count) => self.result.unrouted_again = count,
                Err(error) => ended = Err(target.failed(error)),
            }
        }
        let flushed = self.queue.flush_acks().await;
        self.report().await;
        let closed = match flushed {
            Ok(()) => self.queue.close().await,
            Err(error) => Err(error),
        };
        if matches!(ended, Ok(true)) && self.unreported.is_empty() {
            self.result.complete = Some(browsed);
        }
        for (mut handled, _) in self.unreported {
            if matches!(handled.disposition, Disposition::Done(_)) {
                handled.is_certain = false;
                self.result.done -= 1;
                self.result.in_doubt += 1;
            }
            let _ = self.reports.send(handled).await;
        }
        let closed = closed.map_err(|error| target.failed(error));
        self.result.error = ended.and(closed).err();
        self.result
    }
}

/// The error of a replay that cannot go on. `reason` is why the connection was lost.
fn given_up(step: &Step<usize>, reason: String) -> anyhow::Error {
    let why = match step {
        Step::Blocked => {
            "the broker takes no messages at the moment: an alarm of memory or disk".into()
        }
        Step::Unconfirmed => UNCONFIRMED.into(),
        Step::BrokerAway | Step::Done(_) => reason,
    };
    let advice = "run it again when the broker is available; messages still in the queue may have arrived, with the same message_id";
    failed("replaying", why, advice)
}

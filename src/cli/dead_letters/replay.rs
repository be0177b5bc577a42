//! `dead-letters replay`: publishes messages again, and removes each when the broker has confirmed
//! that a queue has it. One that cannot be published stays where it is.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use deskbridge::rabbitmq::Outcome;
use deskbridge::rabbitmq::queue::replay::{Replay, Replayer};
use deskbridge::rabbitmq::queue::{Letter, Queue};
use deskbridge::webhook::message::Header;
use jiff::Timestamp;

use super::destination::Destination;
use super::interrupt::Interrupt;
use super::report::Report;
use super::summary::Summary;
use super::{Aim, Place, again, corrected, look};
use crate::cli::Exit;
use crate::cli::failure::{failed, misused};
use crate::cli::time::Period;

pub const AFTER_HELP: &str = "\
Each message goes to the exchange and routing key it was published with at first, with the same message_id, \
properties and headers, but for those that tell of its death, and with `replayed-at`. So every queue bound \
there gets it, also one that had it before: consumers know it by its message_id. It is removed only when the \
broker has confirmed it and a queue took it; else it stays, and the command exits with 1. Interrupted, it \
finishes what is on its way; killed, at worst a message is in both places. It is told as replayed when it is \
gone from here for good; as perhaps replayed if the connection ended before that was sure.

Headers of a message are anybody's who may publish there, and the bridge may publish to more than it does. So \
only exchanges of [routing] are published to; a message that was going to another one, or straight into a queue, is \
kept, unless --to-exchange NAME sends all that are selected to one exchange, each with its own routing key. \
`list` marks what the bridge did not write.

--body FILE sends the session (or the array of sessions) in FILE in place of one message: routed by what \
stands in it, with a message_id of its own and the header `corrected-from`.

A message of reason invalid or malformed is kept unless it is given a corrected body. One of reason too-large \
has no body here; `deskbridge events replay` sends its event from the journal. What comes back to the queue of \
`unrouted.exchange`, since nobody is bound for its key, is told of, and the command exits with 1.

Examples:
  deskbridge dead-letters replay --reason unroutable,nacked --dry-run
  deskbridge dead-letters replay --all
  deskbridge dead-letters replay --queue orders.failed --to-exchange orders --all
  deskbridge dead-letters replay --body corrected.json 53d46ec3-435e-8633-874a-52aaacb9ecc7";

/// Arguments of `dead-letters replay`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) aim: Aim,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Publish to this exchange instead of the one each was going to; '' is the default exchange, whose
    /// keys are names of queues
    #[arg(long, value_name = "NAME", conflicts_with = "body")]
    to_exchange: Option<String>,
    /// Send what is in this file in place of the message's body
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    body: Option<PathBuf>,
}

/// A message that is held, with what is published for it.
struct Held {
    letter: Letter,
    summary: Summary,
    replays: Vec<Replay>,
}

/// What is done to what.
struct Pass<'a> {
    place: &'a Place,
    arguments: &'a Arguments,
    body: Option<Bytes>,
    destination: Destination,
    dead: Period,
    queue: Queue,
    replayer: Option<Replayer>,
    report: Report<'a>,
    interrupt: Interrupt,
    now: Timestamp,
}

/// Goes once through what is in the queue now.
pub async fn run(place: &Place, arguments: &Arguments) -> anyhow::Result<Exit> {
    let body = read_body(place, arguments)?;
    let destination = Destination::new(&place.config, arguments.to_exchange.as_deref())?;
    let dead = arguments.aim.selection.filters.dead(&place.clock)?;
    let interrupt = Interrupt::listen()?;
    let queue = look::open(place).await?;
    let replayer = if arguments.dry_run {
        None
    } else {
        let timeout = place.config.rabbitmq.confirm_timeout;
        let connected = Replayer::connect(&place.settings, timeout).await;
        Some(connected.map_err(|error| look::told(place, error.into()))?)
    };
    let mut pass = Pass {
        place,
        arguments,
        body,
        destination,
        dead,
        queue,
        replayer,
        report: Report::new(place, &arguments.aim)?,
        interrupt,
        now: Timestamp::now(),
    };
    let result = pass.go().await;
    look::tell_untaken(place, &pass.queue, matches!(result, Ok(true)));
    let waiting = pass.queue.waiting();
    let (result, again) = match result {
        Ok(true) if !arguments.dry_run && pass.report.count() > 0 => {
            match again::look(place, &mut pass.queue, pass.now).await {
                Ok(again) => (Ok(true), again),
                Err(error) => (Err(error), None),
            }
        }
        result => (result, None),
    };
    let closed = pass.report.close(pass.queue).await;
    let verb = if arguments.dry_run {
        "would be replayed"
    } else {
        "replayed"
    };
    let exit = match result {
        Ok(true) => pass.report.end(verb, waiting).await,
        _ => pass.report.end_early(verb).await,
    }?;
    result?;
    closed?;
    Ok(again.map_or(exit, |again| again.tell(place)))
}

/// The header that tells of a replay.
pub fn replayed_at(now: Timestamp) -> (&'static str, Header) {
    ("replayed-at", Header::Text(format!("{now:.3}")))
}

fn read_body(place: &Place, arguments: &Arguments) -> anyhow::Result<Option<Bytes>> {
    let selection = &arguments.aim.selection;
    if selection.is_empty() {
        let advice = "ids, filters such as --reason, or --all; --dry-run shows what would be done";
        return Err(misused("which messages?", advice));
    }
    let Some(file) = &arguments.body else {
        return Ok(None);
    };
    if selection.ids.len() != 1 {
        let advice = "`deskbridge dead-letters replay --body FILE ID`";
        return Err(misused("--body is for one message", advice));
    }
    let doing = format!("reading the corrected body `{}`", file.display());
    let body = std::fs::read(file).map_err(|why| failed(&doing, why, "name a file"))?;
    let body = Bytes::from(body);
    let checked = corrected::check(&place.config, &body);
    checked.map_err(|why| {
        let advice = "one chat session with `id` and `status`, or an array of them";
        failed(&doing, why, advice)
    })?;
    Ok(Some(body))
}

/// Headers that tell of a message's death and way here, or would lead copies of it elsewhere.
fn tells_of_death(name: &str) -> bool {
    ["dead-letter-", "x-first-death-", "x-last-death-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || [
            "original-exchange",
            "original-routing-key",
            "attempts",
            "journal-event",
            "x-death",
            "x-delivery-count",
            "x-acquired-count",
            "replayed-at",
            "CC",
            "BCC",
        ]
        .contains(&name)
}

impl Pass<'_> {
    /// Whether it came to its end.
    async fn go(&mut self) -> anyhow::Result<bool> {
        loop {
            let window = self.queue.take().await;
            let window = window.map_err(|error| look::told(self.place, error))?;
            self.report.tell(&self.queue).await;
            if window.is_empty() {
                return Ok(true);
            }
            let mut held = Vec::new();
            for letter in window {
                held.extend(self.plan(letter));
            }
            if !self.replay(held).await? {
                return Ok(false);
            }
            if self.body.is_some() && self.report.count() > 0 {
                return Ok(true);
            }
        }
    }

    /// What is published for it, if it is meant and can be.
    fn plan(&mut self, letter: Letter) -> Option<Held> {
        let summary = Summary::of(&letter, self.place.holding());
        if !self.arguments.aim.selection.takes(&summary, self.dead) {
            return None;
        }
        self.report.meet(&summary);
        match self.replays(&letter, &summary) {
            Ok(replays) => Some(Held {
                letter,
                summary,
                replays,
            }),
            Err(why) => {
                self.report.kept(summary, why);
                None
            }
        }
    }

    fn replays(&self, letter: &Letter, summary: &Summary) -> Result<Vec<Replay>, String> {
        if let Some(body) = &self.body {
            let messages = corrected::messages(&self.place.config, letter, body, self.now)?;
            return Ok(messages.iter().map(Replay::of_message).collect());
        }
        if summary.is_in_journal() {
            return Err("its body is in the journal: `deskbridge events replay` is the way".into());
        }
        if let Some(reason) = summary.fault() {
            return Err(format!(
                "it is {reason}; send a corrected body with --body FILE"
            ));
        }
        let route = self.destination.of(summary.origin.clone()?)?;
        let added = [replayed_at(self.now)];
        Ok(vec![Replay::of(letter, route, tells_of_death, &added)])
    }

    /// Whether to go on.
    async fn replay(&mut self, held: Vec<Held>) -> anyhow::Result<bool> {
        if self.body.is_some() {
            // One corrected body takes the place of one message.
            return match held.into_iter().next() {
                Some(held) => self.publish_all(held).await,
                None => Ok(!self.is_ended()),
            };
        }
        let replays: Vec<Replay> = held
            .iter()
            .flat_map(|held| held.replays.iter().cloned())
            .collect();
        let mut next = 0;
        while next < held.len() {
            if self.is_ended() {
                return Ok(false);
            }
            let Some(replayer) = &self.replayer else {
                let held = &held[next];
                let routes = vec![held.replays[0].route().clone()];
                let summary = held.summary.clone();
                self.report.done("would replay", summary, routes, 0);
                next += 1;
                continue;
            };
            let outcomes = replayer.publish(&replays[next..]).await;
            for (held, outcome) in held[next..].iter().zip(&outcomes) {
                self.settle(held, outcome).await?;
            }
            next += outcomes.len();
        }
        Ok(!self.is_ended())
    }

    /// Whether nothing new is begun.
    fn is_ended(&self) -> bool {
        self.interrupt.is_set() || self.report.is_unread()
    }

    /// All messages of a corrected body, or it does not count.
    async fn publish_all(&mut self, held: Held) -> anyhow::Result<bool> {
        let Some(replayer) = &self.replayer else {
            let routes = held.replays.iter().map(|one| one.route().clone());
            let routes = routes.collect();
            self.report.done("would replay", held.summary, routes, 0);
            return Ok(true);
        };
        let mut outcomes = Vec::new();
        while outcomes.len() < held.replays.len() && !outcomes.contains(&Outcome::Unknown) {
            outcomes.extend(replayer.publish(&held.replays[outcomes.len()..]).await);
        }
        let failed = outcomes
            .into_iter()
            .find(|outcome| *outcome != Outcome::Delivered);
        self.settle(&held, &failed.unwrap_or(Outcome::Delivered))
            .await?;
        Ok(true)
    }

    async fn settle(&mut self, held: &Held, outcome: &Outcome) -> anyhow::Result<()> {
        let why = match outcome {
            Outcome::Delivered => {
                let removed = self.queue.remove(&held.letter).await;
                let routes = held.replays.iter().map(|one| one.route().clone());
                let (summary, removal) = (held.summary.clone(), self.queue.removed());
                self.report
                    .done("replayed", summary, routes.collect(), removal);
                return removed.map_err(|error| look::told(self.place, error));
            }
            Outcome::Returned(reason) => format!("no queue takes it ({reason})"),
            Outcome::Nacked => "the broker refused it; is a queue full?".into(),
            Outcome::ChannelClosed(code, text) => format!("the broker refused it: {text} ({code})"),
            Outcome::Unknown => {
                let why = match &self.replayer {
                    Some(replayer) => replayer.why_lost().await,
                    None => String::new(),
                };
                let advice = "run it again when the broker is well; what is still in the queue may have arrived, with the same message_id";
                return Err(failed("replaying", why, advice));
            }
        };
        self.report.kept(held.summary.clone(), why);
        Ok(())
    }
}

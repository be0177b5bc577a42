//! Publishes held messages again, in runs: the messages of a run are on their way together, and a
//! return counts for the `message_id` it carries. On a connection of its own, since an alarm stops
//! whatever comes from a connection that publishes, acknowledgements too.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::options::BasicPublishOptions;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::time::timeout;

use super::letter::Letter;
use crate::rabbitmq::connection::{self, Unreachable};
use crate::rabbitmq::live::{CallError, Live, telling};
use crate::rabbitmq::publisher::properties::{header, properties, short};
use crate::rabbitmq::publisher::size::{HEADERS_BYTES_MAX, table_bytes};
use crate::rabbitmq::topology::scratch::Scratch;
use crate::rabbitmq::{Outcome, Settings};
use crate::webhook::message::{Header, Message};
use crate::webhook::routing::Route;

/// What the broker calls a frame that is too large.
const FRAME_ERROR: u16 = 501;
/// Messages on their way together.
const RUN_MAX: usize = 64;

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Replay {
    route: Route,
    properties: BasicProperties,
    body: Bytes,
}

impl Replay {
    /// The same message, with some headers less and some more. It carries no `user_id`: the broker
    /// takes only our own.
    #[must_use]
    pub fn of(
        letter: &Letter,
        route: Route,
        is_dropped: impl Fn(&str) -> bool,
        added: &[(&'static str, Header)],
    ) -> Self {
        let mut headers = FieldTable::default();
        for (name, value) in letter.properties.headers().iter().flatten() {
            if !is_dropped(name.as_str()) {
                headers.insert(name.clone(), value.clone());
            }
        }
        for (name, value) in added {
            headers.insert(short(name), header(value.clone()));
        }
        Self {
            route,
            properties: without_user(&letter.properties).with_headers(headers),
            body: letter.received.body.clone(),
        }
    }

    /// A message of the bridge's.
    #[must_use]
    pub fn of_message(message: &Message) -> Self {
        Self {
            route: (*message.route).clone(),
            properties: properties(&mut message.clone()),
            body: message.body.clone(),
        }
    }

    /// Where it goes.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.route
    }

    fn id(&self) -> Option<&str> {
        let id = self.properties.message_id().as_ref();
        id.map(lapin::types::ShortString::as_str)
    }
}

fn without_user(from: &BasicProperties) -> BasicProperties {
    let mut to = BasicProperties::default();
    macro_rules! copy {
        ($($read:ident => $write:ident),*) => {
            $(if let Some(value) = from.$read() { to = to.$write(value.clone()); })*
        };
    }
    copy!(
        content_type => with_content_type, content_encoding => with_content_encoding,
        delivery_mode => with_delivery_mode, priority => with_priority,
        correlation_id => with_correlation_id, reply_to => with_reply_to,
        expiration => with_expiration, message_id => with_message_id,
        timestamp => with_timestamp, kind => with_type, app_id => with_app_id
    );
    to
}

/// A connection that publishes.
pub struct Replayer {
    live: Live,
    confirm_timeout: Duration,
}

impl Replayer {
    /// Connects.
    ///
    /// # Errors
    /// If no broker takes us.
    pub async fn connect(
        settings: &Settings,
        confirm_timeout: Duration,
    ) -> Result<Self, Unreachable> {
        Ok(Self {
            live: Live::new(connection::connect_to_any(settings).await?),
            confirm_timeout,
        })
    }

    /// Publishes the first run of these, in order, and awaits what becomes of each: the outcomes of
    /// the first so many. After [`Outcome::Unknown`] the connection is gone.
    pub async fn publish(&self, replays: &[Replay]) -> Vec<Outcome> {
        let run = &replays[..self.run_length(replays)];
        match self.attempt(run).await {
            Ok(outcomes) => outcomes,
            // The broker closes the channel for one of them: which one is seen one by one.
            Err(CallError::Closed(..)) if run.len() > 1 => {
                let mut outcomes = Vec::new();
                for replay in run {
                    outcomes.push(self.publish_alone(replay).await);
                }
                outcomes
            }
            Err(error) => vec![outcome_of(error); run.len()],
        }
    }

    /// Why nothing is known of what was published.
    pub async fn why_lost(&self) -> String {
        self.live.lost().await
    }

    /// A message alone, until the exchange has taken one: lapin may send more of a run after it has
    /// acknowledged that the broker closed the channel, and the broker ends the connection then
    /// (`CHANNEL_ERROR - expected 'channel.open'`).
    fn run_length(&self, replays: &[Replay]) -> usize {
        match replays.first() {
            Some(first) if self.live.is_known(&first.route.exchange) => run_length(replays),
            first => first.iter().count(),
        }
    }

    async fn publish_alone(&self, replay: &Replay) -> Outcome {
        match self.attempt(std::slice::from_ref(replay)).await {
            Ok(mut outcomes) => outcomes.pop().unwrap_or(Outcome::Unknown),
            Err(error) => outcome_of(error),
        }
    }

    async fn attempt(&self, run: &[Replay]) -> Result<Vec<Outcome>, CallError> {
        let Some(first) = run.first() else {
            return Ok(Vec::new());
        };
        let exchange = &first.route.exchange;
        self.fail_if_blocked();
        // Publishing to a missing exchange could cost the connection.
        if !exchange.is_empty() && !self.live.is_known(exchange) {
            Scratch::new(&self.live).look_for_exchange(exchange).await?;
        }
        for replay in run {
            fits(&replay.properties)?;
        }
        let channel = self.live.confirm_channel(exchange).await?;
        let outcomes = self.exchange(&channel, run).await;
        match &outcomes {
            Ok(_) => {
                self.live.set_known(exchange, true);
                self.live.keep_channel(exchange, channel);
            }
            Err(_) => self.live.set_known(exchange, false),
        }
        outcomes
    }

    /// An alarm of the broker stops every call on this connection: nobody waits for its end.
    fn fail_if_blocked(&self) {
        if self.live.amqp().status().blocked() {
            self.live
                .fail("the broker takes no messages at the moment: an alarm of memory or disk");
        }
    }

    async fn exchange(&self, channel: &Channel, run: &[Replay]) -> Result<Vec<Outcome>, CallError> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let confirmed = async {
            let (mut confirms, mut errors) = (Vec::with_capacity(run.len()), Vec::new());
            for replay in run {
                let (exchange, key) = (
                    short(&replay.route.exchange),
                    short(&replay.route.routing_key),
                );
                let properties = replay.properties.clone();
                let sent = channel.basic_publish(exchange, key, options, &replay.body, properties);
                match sent.await {
                    Ok(confirm) => confirms.push(confirm),
                    Err(error) => {
                        errors.push(error);
                        break;
                    }
                }
            }
            let mut confirmations = Vec::with_capacity(confirms.len());
            for confirmed in join_all(confirms).await {
                match confirmed {
                    Ok(confirmation) => confirmations.push(confirmation),
                    Err(error) => errors.push(error),
                }
            }
            match telling(errors) {
                None => Ok(confirmations),
                Some(error) => Err(error),
            }
        };
        let within = timeout(self.confirm_timeout, self.live.unless_lost(confirmed));
        let Ok(confirmed) = within.await else {
            self.fail_if_blocked();
            let after = self.confirm_timeout;
            self.live
                .fail(format!("not everything was confirmed within {after:?}"));
            return Err(CallError::Lost);
        };
        let confirmed: Result<Vec<Confirmation>, _> = confirmed?;
        match confirmed {
            Ok(confirmations) => attribute(run, confirmations).ok_or_else(|| {
                self.live
                    .fail("the broker returned a message that was not of this run");
                CallError::Lost
            }),
            Err(error) => Err(self.live.classify("take messages", &error)),
        }
    }
}

/// The broker would end the connection.
fn fits(properties: &BasicProperties) -> Result<(), CallError> {
    let bytes = properties.headers().as_ref().map_or(0, table_bytes);
    if bytes <= HEADERS_BYTES_MAX {
        return Ok(());
    }
    let problem = format!("{bytes} bytes of headers are too large for one frame");
    Err(CallError::Closed(FRAME_ERROR, problem))
}

fn outcome_of(error: CallError) -> Outcome {
    match error {
        CallError::Closed(code, text) => Outcome::ChannelClosed(code, text),
        CallError::Lost => Outcome::Unknown,
    }
}

/// Messages for one exchange that differ in their `message_id`; one without it goes alone.
fn run_length(replays: &[Replay]) -> usize {
    let Some(first) = replays.first() else {
        return 0;
    };
    let mut ids = HashSet::new();
    let together = replays.iter().take(RUN_MAX).take_while(|replay| {
        let is_new = replay.id().is_some_and(|id| ids.insert(id.to_owned()));
        is_new && replay.route.exchange == first.route.exchange
    });
    together.count().max(1)
}

/// A return is told with any confirm of the channel; of a run of one it can be of that one only.
fn attribute(run: &[Replay], confirmations: Vec<Confirmation>) -> Option<Vec<Outcome>> {
    let is_acked: Vec<bool> = confirmations.iter().map(Confirmation::is_ack).collect();
    let mut returns = HashMap::new();
    for returned in confirmations
        .into_iter()
        .filter_map(Confirmation::take_message)
    {
        let reason = format!("{} {}", returned.reply_code, returned.reply_text);
        let id = returned.properties.message_id().as_ref();
        let id = id.map(ToString::to_string);
        if !run.iter().any(|replay| replay.id() == id.as_deref()) {
            return None;
        }
        returns.insert(id, reason);
    }
    let outcome = |(replay, is_acked): (&Replay, bool)| {
        let returned = returns.get(&replay.id().map(ToOwned::to_owned));
        match (is_acked, returned) {
            (false, _) => Outcome::Nacked,
            (true, Some(reason)) => Outcome::Returned(reason.clone()),
            (true, None) => Outcome::Delivered,
        }
    };
    Some(run.iter().zip(is_acked).map(outcome).collect())
}

#[cfg(test)]
mod tests {
    use lapin::message::{BasicReturnMessage, Delivery};

    use super::*;

    fn replay(exchange: &str, id: Option<&str>) -> Replay {
        let properties = BasicProperties::default();
        Replay {
            route: Route {
                exchange: exchange.into(),
                routing_key: "k".into(),
            },
            properties: match id {
                Some(id) => properties.with_message_id(short(id)),
                None => properties,
            },
            body: Bytes::new(),
        }
    }

    fn back(id: Option<&str>) -> BasicReturnMessage {
        let mut delivery = Delivery::mock(0, "e".into(), "k".into(), false, Vec::new());
        delivery.properties = replay("e", id).properties;
        BasicReturnMessage {
            delivery,
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
        }
    }

    #[test]
    fn a_run_has_one_exchange_and_no_two_messages_of_one_id() {
        let check = |all: &[(&str, Option<&str>)], expected: usize| {
            let replays: Vec<_> = all.iter().map(|(to, id)| replay(to, *id)).collect();
            assert_eq!(run_length(&replays), expected, "{all:?}");
        };
        check(&[], 0);
        check(&[("e", Some("a")), ("e", Some("b"))], 2);
        check(&[("e", Some("a")), ("e", Some("a"))], 1);
        check(&[("e", Some("a")), ("f", Some("b"))], 1);
        check(&[("e", None), ("e", Some("b"))], 1);
        check(&[("e", Some("a")), ("e", None)], 1);
        let many: Vec<_> = (0..100).map(|n| n.to_string()).collect();
        let many: Vec<_> = many.iter().map(|id| replay("e", Some(id))).collect();
        assert_eq!(run_length(&many), RUN_MAX);
    }

    #[test]
    fn a_return_that_comes_with_anothers_confirm_counts_for_the_message_it_is() {
        let run = [replay("e", Some("a")), replay("e", Some("b"))];
        let returned = Outcome::Returned("312 NO_ROUTE".into());
        let ack = Confirmation::Ack;
        let confirms = vec![ack(Some(back(Some("b")))), ack(None)];
        let expected = Some(vec![Outcome::Delivered, returned.clone()]);
        assert_eq!(attribute(&run, confirms), expected);
        let foreign = vec![ack(Some(back(Some("c")))), ack(None)];
        assert_eq!(attribute(&run, foreign), None);
        let alone = [replay("e", None)];
        let confirms = vec![ack(Some(back(None)))];
        assert_eq!(attribute(&alone, confirms), Some(vec![returned]));
        let nacked = vec![Confirmation::Nack(None), ack(None)];
        let expected = Some(vec![Outcome::Nacked, Outcome::Delivered]);
        assert_eq!(attribute(&run, nacked), expected);
    }
}

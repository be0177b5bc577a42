//! `dead-letters`: listing removes nothing; replaying publishes a message to its original
//! destination and removes it only then; discarding removes the selected messages and no others.

mod browse;
mod discard;
mod errors;
pub(crate) mod replay;
mod replay_to_queue;
mod summary;

use std::process::Output;

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation};
use serde_json::{Value, json};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::message::{Message, arguments};
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

pub(crate) const DEAD: &str = "chat-sessions.dead-letter";
const UNROUTED: &str = "chat-sessions.unrouted";

/// A bridge with few publish attempts that has declared its topology.
async fn bridge_with(vhost: &Vhost, toml: &str) -> Bridge {
    BridgeBuilder::new(vhost)
        .with("retry = {delay_min = '20ms', delay_max = '50ms', attempts_max = 2}")
        .with(toml)
        .connected()
        .await
}

/// The output of a command.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    out: Vec<u8>,
    text: String,
    err: String,
}

impl Told {
    /// Panics with all output unless the exit code is this one.
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// The JSON objects of standard output, one per line.
    #[track_caller]
    fn objects(&self) -> Vec<Value> {
        let object = |line| serde_json::from_str(line).expect("a line of JSON");
        self.text.lines().map(object).collect()
    }

    /// One field of each object.
    #[track_caller]
    fn field(&self, name: &str) -> Vec<Value> {
        self.objects().iter().map(|one| one[name].clone()).collect()
    }
}

impl From<Output> for Told {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs `dead-letters` with the configuration of a bridge.
async fn dead_letters(bridge: &Bridge, line: &str) -> Told {
    let words: Vec<_> = line.split_whitespace().collect();
    bridge.run("dead-letters", &words).await.into()
}

/// A message to publish.
struct Put<'a> {
    exchange: &'a str,
    key: &'a str,
    id: Option<&'a str>,
    headers: Value,
    body: &'a [u8],
}

impl Put<'_> {
    /// Publishes the messages and waits for the confirm of each.
    async fn all(vhost: &Vhost, messages: &[Put<'_>]) {
        let channel = vhost.channel().await;
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await.unwrap();
        let mut sent = Vec::new();
        for put in messages {
            let options = BasicPublishOptions {
                mandatory: true,
                ..Default::default()
            };
            let mut properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_headers(arguments(&put.headers));
            if let Some(id) = put.id {
                properties = properties.with_message_id(id.into());
            }
            let (exchange, key) = (put.exchange.into(), put.key.into());
            let publish = channel.basic_publish(exchange, key, options, put.body, properties);
            sent.push(publish.await.unwrap());
        }
        for confirm in sent {
            assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
        }
    }
}

/// Publishes dead letters as the bridge does, `<prefix>-0` and so on, whose original destination is
/// the exchange `orders` with key `k`.
pub(crate) async fn put_letters(vhost: &Vhost, prefix: &str, count: usize, reason: &'static str) {
    let letters: Vec<_> = (0..count)
        .map(|n| (format!("{prefix}-{n}"), reason))
        .collect();
    put_letters_of(vhost, &letters).await;
}

/// As [`put_letters`], with an id and a reason for each.
async fn put_letters_of(vhost: &Vhost, letters: &[(String, &'static str)]) {
    let headers = |id: &str, reason: &str| {
        json!({
            "source": "deskdirector", "session-id": id, "status": "missed",
            "received-at": "2026-01-02T03:04:05.000Z",
            "dead-letter-reason": reason, "dead-letter-detail": "312 NO_ROUTE",
            "dead-letter-at": "2026-01-02T04:04:05.000Z",
            "original-exchange": "orders", "original-routing-key": "k", "attempts": 2,
        })
    };
    let puts: Vec<_> = letters
        .iter()
        .map(|(id, reason)| Put {
            exchange: DEAD,
            key: reason,
            id: Some(id),
            headers: headers(id, reason),
            body: id.as_bytes(),
        })
        .collect();
    Put::all(vhost, &puts).await;
    holds(vhost, DEAD, letters.len()).await;
}

/// Waits until exactly this number of messages is ready in a queue.
async fn holds(vhost: &Vhost, queue: &str, count: usize) {
    let count = u32::try_from(count).unwrap();
    let what = format!("`{queue}` holds {count}");
    eventually(&what, SOON, || async {
        vhost.message_count(queue).await == Some(count)
    })
    .await;
}

/// Consumes messages of a queue and rejects them for good.
async fn reject(vhost: &Vhost, queue: &str, count: usize) {
    let channel = vhost.channel().await;
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    let mut deliveries = consuming.await.unwrap();
    for _ in 0..count {
        let delivery = deliveries.next().await.unwrap().unwrap();
        let reject = BasicRejectOptions { requeue: false };
        delivery.acker.reject(reject).await.unwrap();
    }
    channel.close(200, "done".into()).await.unwrap();
}

fn ids(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(Message::id).collect()
}

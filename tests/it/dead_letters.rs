//! `dead-letters`: looking takes nothing away, replaying brings a message where it was going and
//! removes it only then, discarding removes what was meant and nothing else.

mod discarding;
mod looking;
pub(crate) mod replaying;
mod trouble;

use std::process::Output;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation};
use serde_json::{Value, json};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::message::{Message, arguments};
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

pub(crate) const DEAD: &str = "chat-sessions.dead-letter";
const UNROUTED: &str = "chat-sessions.unrouted";

/// A bridge that gives up soon, and whose topology is there.
async fn bridge_with(vhost: &Vhost, toml: &str) -> Bridge {
    let bridge = BridgeBuilder::new(vhost)
        .with("retry = {delay_min = '20ms', delay_max = '50ms', attempts_max = 2}")
        .with(toml)
        .start()
        .await;
    bridge.broker_is("connected").await;
    bridge
}

/// What a command said.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    out: Vec<u8>,
    text: String,
    err: String,
}

impl Told {
    /// Panics with all it said unless it exited like this.
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// The objects it printed, one a line.
    #[track_caller]
    fn objects(&self) -> Vec<Value> {
        let object = |line| serde_json::from_str(line).expect("a line of JSON");
        self.text.lines().map(object).collect()
    }

    /// One field of each.
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

/// Runs `dead-letters` with a bridge's configuration.
async fn dead_letters(bridge: &Bridge, line: &str) -> Told {
    let words: Vec<_> = line.split_whitespace().collect();
    bridge.run("dead-letters", &words).await.into()
}

/// A message by hand.
struct Put<'a> {
    exchange: &'a str,
    key: &'a str,
    id: Option<&'a str>,
    headers: Value,
    body: &'a [u8],
}

impl Put<'_> {
    /// Publishes them and waits until each is confirmed.
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

/// So many dead letters of the bridge's kind, `<prefix>-0` and so on, on their way to `orders` with
/// key `k`.
pub(crate) async fn put_letters(vhost: &Vhost, prefix: &str, count: usize, reason: &'static str) {
    let letters: Vec<_> = (0..count)
        .map(|n| (format!("{prefix}-{n}"), reason))
        .collect();
    put_letters_of(vhost, &letters).await;
}

/// The same, with an id and a reason of each.
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

/// Waits until just so many messages are ready in a queue.
async fn holds(vhost: &Vhost, queue: &str, count: usize) {
    let count = u32::try_from(count).unwrap();
    let what = format!("`{queue}` holds {count}");
    eventually(&what, SOON, || async {
        vhost.message_count(queue).await == Some(count)
    })
    .await;
}

fn ids(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(Message::id).collect()
}

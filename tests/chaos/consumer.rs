//! The consumers: one connection per queue. Every delivery is checked and logged before it is
//! acknowledged. Connections are killed now and then, so that the broker redelivers what was not
//! acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery as Received;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::event::{
    EXCHANGES, Event, FORGED, SOURCE, Script, exchange_of, message_id, routed, routing_key_of,
};
use crate::ledger::{Delivery, Ledger, Queue};
use crate::support::message::Message;

const PREFETCH: u16 = 400;
const ACK_EVERY: usize = 100;
const ACK_PAUSE: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_millis(200);
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// All consumers of a run.
pub struct Consumers {
    all: Vec<Consumer>,
}

struct Consumer {
    queue: Queue,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    kill: Notify,
    kills: AtomicU64,
    delivered: AtomicU64,
    is_idle: AtomicBool,
}

impl Consumers {
    /// Starts a consumer for each queue; the queues must exist.
    pub fn start(amqp_url: &str, script: Script, ledger: &Arc<Ledger>) -> Self {
        let audits = (0..EXCHANGES.len())
            .map(|position| Queue::Audit(u8::try_from(position).expect("a few exchanges")));
        let all = [Queue::All, Queue::Unrouted, Queue::DeadLetter]
            .into_iter()
            .chain(audits)
            .map(|queue| {
                let state = Arc::<State>::default();
                let reader = Reader {
                    amqp_url: format!("{amqp_url}?heartbeat=10"),
                    queue,
                    script,
                    ledger: Arc::clone(ledger),
                    state: Arc::clone(&state),
                };
                let task = tokio::spawn(reader.run());
                Consumer { queue, state, task }
            })
            .collect();
        Self { all }
    }

    /// Kills the connection of one consumer with everything it has not acknowledged; says which
    /// one, and whether it was connected.
    pub async fn kill(&self, dice: u64) -> Result<String, String> {
        // Every other time the consumer of the queue that receives everything, which is the first.
        let length = self.all.len() as u64 * 2;
        let position = usize::try_from(dice % length).expect("small");
        let consumer = self.all.get(position).unwrap_or(&self.all[0]);
        let before = consumer.state.kills.load(Ordering::Relaxed);
        consumer.state.kill.notify_one();
        for _ in 0..500 {
            if consumer.state.kills.load(Ordering::Relaxed) > before {
                return Ok(format!(
                    "the consumer of {:?} lost its connection",
                    consumer.queue
                ));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("the consumer was not connected".into())
    }

    /// Number of deliveries of a queue so far.
    pub fn delivered(&self, queue: Queue) -> u64 {
        let of_queue = self.all.iter().find(|one| one.queue == queue);
        of_queue.map_or(0, |one| one.state.delivered.load(Ordering::Relaxed))
    }

    /// Whether all consumers are connected, idle, and have acknowledged everything.
    pub fn are_idle(&self) -> bool {
        let mut all = self.all.iter();
        all.all(|one| one.state.is_idle.load(Ordering::Relaxed))
    }

    pub fn total(&self) -> u64 {
        let all = self.all.iter();
        all.map(|one| one.state.delivered.load(Ordering::Relaxed))
            .sum()
    }
}

impl Drop for Consumers {
    fn drop(&mut self) {
        for consumer in &self.all {
            consumer.task.abort();
        }
    }
}

/// The name of the queue on the broker.
pub fn name_of(queue: Queue) -> String {
    match queue {
        Queue::All => "all".into(),
        Queue::Audit(position) => format!("audit-{}", EXCHANGES[usize::from(position)]),
        Queue::Unrouted => "chat-sessions.unrouted".into(),
        Queue::DeadLetter => "chat-sessions.dead-letter".into(),
    }
}

struct Reader {
    amqp_url: String,
    queue: Queue,
    script: Script,
    ledger: Arc<Ledger>,
    state: Arc<State>,
}

impl Reader {
    async fn run(self) {
        loop {
            let properties =
                ConnectionProperties::default().with_connection_name("consumer".into());
            let connecting = Connection::connect(&self.amqp_url, properties);
            if let Ok(Ok(connection)) = tokio::time::timeout(CONNECT_MAX, connecting).await {
                let _ = self.read(&connection).await;
                self.state.is_idle.store(false, Ordering::Relaxed);
                let closing = connection.close(200, "".into());
                let _ = tokio::time::timeout(RETRY, closing).await;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn read(&self, connection: &Connection) -> lapin::Result<()> {
        let channel = connection.create_channel().await?;
        channel
            .basic_qos(PREFETCH, BasicQosOptions::default())
            .await?;
        let mut deliveries = channel
            .basic_consume(
                name_of(self.queue).into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let mut unacknowledged = None;
        let mut count = 0;
        loop {
            let next = tokio::select! {
                next = tokio::time::timeout(ACK_PAUSE, deliveries.next()) => next,
                () = self.state.kill.notified() => {
                    self.state.kills.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
            };
            let is_idle = next.is_err();
            match next {
                Ok(None) => return Ok(()),
                Ok(Some(delivery)) => {
                    unacknowledged = Some(self.log(delivery?));
                    count += 1;
                }
                Err(_) => {}
            }
            if (is_idle || count >= ACK_EVERY)
                && let Some(last) = unacknowledged.take()
            {
                channel
                    .basic_ack(last, BasicAckOptions { multiple: true })
                    .await?;
                count = 0;
            }
            self.state.is_idle.store(is_idle, Ordering::Relaxed);
        }
    }

    /// Checks and logs a delivery; returns its tag.
    fn log(&self, received: Received) -> u64 {
        let tag = received.delivery_tag;
        let message = Message::from(received);
        let event = self.script.read(&message.body);
        let id = message.message_id.as_deref().unwrap_or_default();
        let delivery = Delivery {
            queue: self.queue,
            at: self.ledger.now(),
            event,
            message_id: uuid::Uuid::parse_str(id).map_or(0, |id| id.as_u128()),
            is_redelivered: message.redelivered,
            flaw: event.and_then(|event| flaw(self.script, event, &message).map(Into::into)),
        };
        self.ledger.history().deliveries.push(delivery);
        self.state.delivered.fetch_add(1, Ordering::Relaxed);
        tag
    }
}

/// Describes the first error in bytes, route or properties, if there is one.
fn flaw(script: Script, event: Event, message: &Message) -> Option<String> {
    if event.session >= FORGED {
        return None;
    }
    let session = script.session_id(event.session);
    let status = script.status(event);
    let body = script.body(event);
    let id = message_id(&session, &body).to_string();
    let kind = format!("chat-session.{}", routed(status));
    let key = routing_key_of(status);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let header = |name: &str| {
        let value = message.headers.get(name);
        value
            .and_then(|value| value.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    if message.body != body {
        return Some(format!("its body is not what was sent: {}", message.text()));
    }
    for (what, found, expected) in [
        ("exchange", message.exchange.clone(), exchange_of(status)),
        ("routing key", message.routing_key.clone(), &*key),
        (
            "content_type",
            text(&message.content_type),
            "application/json",
        ),
        ("message_id", text(&message.message_id), &*id),
        ("correlation_id", text(&message.correlation_id), &*session),
        ("type", text(&message.kind), &*kind),
        ("app_id", text(&message.app_id), "deskbridge"),
        ("header source", header("source"), SOURCE),
        ("header session-id", header("session-id"), &*session),
        ("header status", header("status"), status),
    ] {
        if found != expected {
            return Some(format!("its {what} is `{found}`, not `{expected}`"));
        }
    }
    if message.delivery_mode != Some(2) {
        return Some("it is not persistent".into());
    }
    if message.timestamp.is_none() {
        return Some("it has no timestamp".into());
    }
    None
}

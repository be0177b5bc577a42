//! A consumer, in a process of its own, that records when each session's message arrived. It
//! consumes without acknowledgements, which costs the broker least.

use std::time::SystemTime;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use serde::{Deserialize, Serialize};

use crate::role;
use crate::sender::micros;
use crate::support::vhost::connect;

/// What to consume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subscription {
    pub amqp_url: String,
    pub queue: String,
    /// Number of messages of one load, after which it ends.
    pub sessions: usize,
}

/// The arrival time of each session's message, in microseconds since 1970, by the session's number.
pub type Arrivals = Vec<u64>;

/// Runs this role.
pub fn play(subscription: &Subscription) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(consume(subscription));
}

async fn consume(subscription: &Subscription) {
    let connection = connect(&subscription.amqp_url).await;
    let channel = connection.create_channel().await.expect("a channel");
    let options = BasicConsumeOptions {
        no_ack: true,
        ..Default::default()
    };
    let queue = subscription.queue.as_str().into();
    let consuming = channel.basic_consume(queue, "".into(), options, FieldTable::default());
    let mut deliveries = consuming.await.expect("a queue");
    role::say(&"ready");
    let mut arrivals: Arrivals = vec![0; subscription.sessions];
    for _ in 0..subscription.sessions {
        let delivery = deliveries.next().await.expect("the connection lasts");
        let number = number(&delivery.expect("a message"));
        arrivals[number] = micros(SystemTime::now());
    }
    assert!(!arrivals.contains(&0), "a message came twice");
    role::say(&arrivals);
    role::wait_for_line();
}

/// The number at the end of the session's id: see [`crate::bodies::Elements`].
fn number(delivery: &Delivery) -> usize {
    let id = delivery.properties.correlation_id().as_ref();
    let number = id.and_then(|id| id.as_str().rsplit('-').next()?.parse().ok());
    number.expect("a session of a load")
}

//! The upper limit, in a process of its own: lapin, one channel, confirms, as many messages in
//! flight as the bridge's default, no journal, no ordering. RabbitMQ parses all properties and
//! headers of a message, regardless of the publisher. Therefore this publishes the bridge's own
//! messages, and the same bodies without properties, to show what those cost.

use futures_util::StreamExt;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use serde::{Deserialize, Serialize};

use crate::bodies::{Elements, Shape};
use crate::role;
use crate::support::vhost::connect;

const IN_FLIGHT: usize = 256;

/// What to publish.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Batch {
    pub amqp_url: String,
    pub exchange: String,
    pub sessions: usize,
    /// Gets one message of this queue and uses its properties for all messages; `None`: bare
    /// messages.
    pub like_one_of: Option<String>,
}

/// Runs this role.
pub fn play(batch: &Batch) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(publish(batch));
}

async fn publish(batch: &Batch) {
    let connection = connect(&batch.amqp_url).await;
    let channel = connection.create_channel().await.expect("a channel");
    let properties = match &batch.like_one_of {
        Some(queue) => properties_of_one(&channel, queue).await,
        None => bare(),
    };
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("confirms");
    let elements = Elements::new(Shape::default());
    let bodies: Vec<_> = (0..batch.sessions).map(|n| elements.element(n)).collect();
    role::wait_for_go();
    let options = BasicPublishOptions {
        mandatory: true,
        ..Default::default()
    };
    let exchange = batch.exchange.as_str();
    let confirms = futures_util::stream::iter(&bodies).map(|body| {
        let key = "chat-session.created".into();
        let sent = channel.basic_publish(exchange.into(), key, options, body, properties.clone());
        async { sent.await.expect("published").await.expect("confirmed") }
    });
    let mut confirms = confirms.buffered(IN_FLIGHT);
    while let Some(confirm) = confirms.next().await {
        assert!(matches!(confirm, Confirmation::Ack(None)), "{confirm:?}");
    }
    role::say(&"done");
    role::wait_for_line();
}

/// The minimum for a message to survive a restart of the broker.
fn bare() -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
}

async fn properties_of_one(channel: &Channel, queue: &str) -> BasicProperties {
    let options = BasicGetOptions { no_ack: true };
    let got = channel.basic_get(queue.into(), options).await;
    let message = got.expect("a queue").expect("a message in it");
    message.delivery.properties
}

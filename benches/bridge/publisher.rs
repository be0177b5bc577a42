//! What the bridge is measured against: lapin, one channel, confirms, so many messages in flight
//! as the bridge has by default, nothing journalled, no order. It publishes the messages that the
//! bridge publishes: RabbitMQ reads all of their properties and headers, whoever sends them. The
//! same bodies bare, without any, show what that costs.

use futures_util::StreamExt;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection};

use crate::support::vhost::connect;

const IN_FLIGHT: usize = 256;

pub struct Publisher {
    channel: Channel,
    _connection: Connection,
}

impl Publisher {
    /// What a message needs to survive a restart of the broker, and no more.
    pub fn bare() -> BasicProperties {
        BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
    }

    pub async fn connect(amqp_url: &str) -> Self {
        let connection = connect(amqp_url).await;
        let channel = connection.create_channel().await.expect("a channel");
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .expect("confirms");
        Self {
            channel,
            _connection: connection,
        }
    }

    /// Takes a message of the bridge's from a queue: its properties and headers.
    pub async fn properties_of(&mut self, queue: &str) -> BasicProperties {
        let options = BasicGetOptions { no_ack: true };
        let got = self.channel.basic_get(queue.into(), options).await;
        let message = got.expect("a queue").expect("a message in it");
        message.delivery.properties
    }

    /// Publishes all and waits for every confirm.
    pub async fn publish(
        &mut self,
        exchange: &str,
        properties: &BasicProperties,
        bodies: &[Vec<u8>],
    ) {
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let channel = &self.channel;
        let confirms = futures_util::stream::iter(bodies).map(|body| {
            let key = "chat-session.created".into();
            let sent =
                channel.basic_publish(exchange.into(), key, options, body, properties.clone());
            async { sent.await.expect("published").await.expect("confirmed") }
        });
        let mut confirms = confirms.buffered(IN_FLIGHT);
        while let Some(confirm) = confirms.next().await {
            assert!(matches!(confirm, Confirmation::Ack(None)), "{confirm:?}");
        }
    }
}

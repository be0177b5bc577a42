//! What the bridge is measured against: lapin, one channel, confirms, so many messages in flight
//! as the bridge has by default, nothing journalled, no headers, no order.

use futures_util::StreamExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection};

use crate::support::vhost::connect;

const IN_FLIGHT: usize = 256;

pub struct Publisher {
    channel: Channel,
    _connection: Connection,
}

impl Publisher {
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

    /// Publishes all and waits for every confirm.
    pub async fn publish(&mut self, exchange: &str, bodies: &[Vec<u8>]) {
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into());
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

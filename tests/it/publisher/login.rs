//! A broker that refuses the login.

use deskbridge::telemetry::status::BrokerState;

use super::harness::{Harness, config};
use crate::support::broker::Broker;

/// `reconnects::vhost_connection_limit_is_retried_slowly` shows how a refusal is retried.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_password_and_missing_vhost_are_refused() {
    let vhost = Broker::shared().await.vhost().await;
    for (url, reason) in [
        (
            vhost.amqp_url_as("guest", "wrong-password"),
            "ACCESS_REFUSED",
        ),
        (format!("{}-missing", vhost.amqp_url), "vhost"),
    ] {
        let mut harness = Harness::start(&config(&[&url]));
        let status = harness.state_is(BrokerState::Refused).await;
        let told = format!("{status:?}");
        assert!(status.reason.unwrap().contains(reason), "{told}");
        assert!(!told.contains("wrong-password"), "{told}");
    }
}

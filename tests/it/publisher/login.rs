//! A broker that refuses the login.

use std::time::{Duration, Instant};

use deskbridge::rabbitmq::Link;
use deskbridge::telemetry::status::BrokerState;

use super::harness::{Harness, config};
use crate::support::broker::Broker;
use crate::support::proxy::Proxy;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_password_is_reported_and_retried_slowly() {
    let vhost = Broker::shared().await.vhost().await;
    vhost.user("bridge-login", "right-password").await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let url = format!(
        "amqp://bridge-login:wrong-password@{}/{}",
        proxy.address(),
        vhost.name
    );
    let mut harness = Harness::start(&config(&[&url]));
    let status = harness.state_is(BrokerState::Refused).await;
    assert!(
        status.reason.as_ref().unwrap().contains("ACCESS_REFUSED"),
        "{status:?}"
    );
    assert!(
        !format!("{status:?}").contains("wrong-password"),
        "{status:?}"
    );
    let refused = Instant::now();
    vhost.user("bridge-login", "wrong-password").await;
    harness.comes_up(Link::Main).await;
    assert!(refused.elapsed() > Duration::from_millis(4_900));
    assert_eq!(proxy.connections(), 2, "there was another attempt");
    assert_eq!(harness.status.borrow().reason, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_vhost_is_refused() {
    let vhost = Broker::shared().await.vhost().await;
    let url = format!("{}-missing", vhost.amqp_url);
    let mut harness = Harness::start(&config(&[&url]));
    let status = harness.state_is(BrokerState::Refused).await;
    assert!(status.reason.unwrap().contains("vhost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusing_broker_does_not_delay_the_other() {
    let vhost = Broker::shared().await.vhost().await;
    let refusing = format!("{}-missing", vhost.amqp_url);
    let harness = Harness::up(&config(&[&refusing, &vhost.amqp_url])).await;
    assert_eq!(harness.status.borrow().state, BrokerState::Connected);
}

//! A broker that refuses us.

use std::time::Duration;

use deskbridge::rabbitmq::{Link, Report};
use deskbridge::telemetry::status::BrokerState;

use super::room::{Room, config};
use crate::support::broker::Broker;
use crate::support::proxy::Proxy;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_said_so_without_the_password_and_tried_again_seldom() {
    let vhost = Broker::shared().await.vhost().await;
    vhost.user("bridge-login", "right-password").await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let url = format!(
        "amqp://bridge-login:wrong-password@{}/{}",
        proxy.address(),
        vhost.name
    );
    let mut room = Room::start(&config(&[&url]));
    let status = room.state_is(BrokerState::Refused).await;
    assert!(
        status.reason.as_ref().unwrap().contains("ACCESS_REFUSED"),
        "{status:?}"
    );
    assert!(
        !format!("{status:?}").contains("wrong-password"),
        "{status:?}"
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(proxy.connections(), 1, "not a storm");

    vhost.user("bridge-login", "wrong-password").await;
    room.reported("up", |report| matches!(report, Report::Up(Link::Main)))
        .await;
    assert_eq!(room.status.borrow().reason, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_vhost_is_refused() {
    let vhost = Broker::shared().await.vhost().await;
    let url = format!("{}-missing", vhost.amqp_url);
    let mut room = Room::start(&config(&[&url]));
    let status = room.state_is(BrokerState::Refused).await;
    assert!(status.reason.unwrap().contains("vhost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_does_not_hold_up_the_other() {
    let vhost = Broker::shared().await.vhost().await;
    let refusing = format!("{}-missing", vhost.amqp_url);
    let room = Room::up(&config(&[&refusing, &vhost.amqp_url])).await;
    assert_eq!(room.status.borrow().state, BrokerState::Connected);
}

//! The broker, its management API and this machine.

use std::net::TcpListener;

use super::super::setup::{Setup, TICKETS, check, unstarted};
use super::{agrees, stopped};
use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::broker::Broker;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down() {
    let url = format!("amqp://guest:guest@{}/%2f", free_address());
    let bridge = BridgeBuilder::at(&url)
        .with("journal.backlog_bytes_max = \"16MiB\"")
        .build();
    let checked = agrees(&bridge, 1, "error: amqp://127.0.0.1:").await;
    assert!(
        checked.first.contains(" cannot be reached: "),
        "{checked:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_of_the_broker() {
    let broker = Broker::own().await;
    let mut setup = Setup::on(broker.vhost().await, TICKETS).await;
    broker.raise_memory_alarm().await;
    agrees(
        &setup.bridge,
        1,
        "error: the broker has an alarm: memory on ",
    )
    .await;
    setup.bridge.reconfigure("rabbitmq.management_url = \"\"");
    let checked = agrees(&setup.bridge, 1, "error: amqp://127.0.0.1:").await;
    assert!(
        checked.first.contains("takes no messages at the moment"),
        "{checked:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_management_api_that_cannot_be_reached() {
    let mut setup = stopped(TICKETS).await;
    let url = format!("http://guest:guest@{}", free_address());
    setup
        .bridge
        .reconfigure(&format!("rabbitmq.management_url = {url:?}"));
    agrees(
        &setup.bridge,
        0,
        "warning: rabbitmq.management_url: http://***@127.0.0.1:",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_management_api_that_refuses_the_login() {
    let mut setup = stopped(TICKETS).await;
    let url = setup.vhost.management_url();
    let url = url.replace("guest:guest", "guest:not-the-password");
    setup
        .bridge
        .reconfigure(&format!("rabbitmq.management_url = {url:?}"));
    let checked = agrees(
        &setup.bridge,
        0,
        "warning: rabbitmq.management_url: http://***@127.0.0.1:",
    )
    .await;
    assert!(checked.first.contains("401"), "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_management_api_is_incomplete() {
    let mut setup = Setup::of(TICKETS).await;
    setup.bridge.reconfigure("rabbitmq.management_url = \"\"");
    let checked = agrees(&setup.bridge, 0, "").await;
    // A memory file system where the tests run is a warning.
    let expected = ["incomplete", "degraded"];
    assert!(expected.contains(&checked.verdict.as_str()), "{checked:#?}");
    assert_eq!(checked.causes, 0, "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_no_directory() {
    let vhost = Broker::shared().await.vhost().await;
    let builder = unstarted(&vhost, "");
    let file = builder.dir().join("file");
    std::fs::write(&file, "").unwrap();
    let bridge = builder.journal_in(&file).build();
    agrees(&bridge, 1, "error: journal.dir: ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_too_short() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = unstarted(&vhost, "sources.deskdirector.secrets = [\"short\"]").build();
    let checked = agrees(&bridge, 2, "sources.deskdirector.secrets").await;
    assert!(
        checked.first.contains("at least 16 are needed"),
        "{checked:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_another_program_has() {
    let setup = stopped(TICKETS).await;
    let _taken = TcpListener::bind(setup.bridge.address()).unwrap();
    agrees(
        &setup.bridge,
        1,
        "error: http.listen: cannot listen on 127.0.0.1:",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_on_the_admin_port() {
    let other = stopped(TICKETS).await;
    let mut setup = Setup::of(TICKETS).await;
    // The webhooks' listener of another bridge.
    let address = setup.bridge.address();
    let vhost = &other.vhost;
    let toml = format!("admin.listen = {:?}\n{TICKETS}", address.to_string());
    let bridge = unstarted(vhost, &toml).build();
    agrees(
        &bridge,
        0,
        "warning: admin.listen: what answers at 127.0.0.1:",
    )
    .await;
    setup.bridge.terminate().await;
    assert_eq!(check(&bridge).await.causes, 0);
}

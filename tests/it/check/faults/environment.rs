//! Faults of the broker, its management API and this machine.

use std::net::TcpListener;

use super::super::setup::{Setup, TICKETS, check, unstarted};
use super::{agrees, agrees_slowly, stopped};
use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::broker::Broker;
use crate::support::sender::array_of_new;

#[tokio::test(flavor = "multi_thread")]
async fn broker_down() {
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
async fn broker_alarm() {
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
    let checked = agrees_slowly(&setup.bridge, 1, "error: amqp://127.0.0.1:").await;
    assert!(
        checked.first.contains("takes no messages at the moment"),
        "{checked:#?}"
    );
    broker.clear_memory_alarm().await;
    setup.finds(0, &[]).await;
    // The probe that `check` published during the alarm has left nothing behind.
    setup.bridge.post(array_of_new("after", 1)).await;
    setup.bridge.backlog_is_empty().await;
    assert_eq!(setup.vhost.messages("tickets").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn management_api_unreachable_or_login_refused() {
    let mut setup = stopped(TICKETS).await;
    let nobody = format!("http://guest:not-the-password@{}", free_address());
    let refusing = setup.vhost.management_url();
    let refusing = refusing.replace("guest:guest", "guest:not-the-password");
    for (url, is_refused) in [(nobody, false), (refusing, true)] {
        let toml = format!("rabbitmq.management_url = {url:?}");
        setup.bridge.reconfigure(&toml);
        let first = "warning: rabbitmq.management_url: http://***@127.0.0.1:";
        let checked = agrees(&setup.bridge, 0, first).await;
        let is_named = checked.first.contains("401");
        assert!(is_named || !is_refused, "{checked:#?}");
        let output = checked.output;
        let is_advised = output.contains("the tag `management`");
        assert_eq!(is_advised, is_refused, "{output}");
        assert!(!output.contains("not-the-password"), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_management_api_is_incomplete() {
    let mut setup = Setup::of(TICKETS).await;
    setup.bridge.reconfigure("rabbitmq.management_url = \"\"");
    let checked = agrees(&setup.bridge, 0, "").await;
    // If the tests run on a tmpfs, `check` adds a warning.
    let expected = ["incomplete", "degraded"];
    assert!(expected.contains(&checked.verdict.as_str()), "{checked:#?}");
    assert_eq!(checked.causes, 0, "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn journal_is_not_a_directory() {
    let vhost = Broker::shared().await.vhost().await;
    let builder = unstarted(&vhost, "");
    let file = builder.dir().join("file");
    std::fs::write(&file, "").unwrap();
    let bridge = builder.journal_in(&file).build();
    agrees(&bridge, 1, "error: journal.dir: ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_secret() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = unstarted(&vhost, "sources.deskdirector.secrets = [\"short\"]").build();
    let checked = agrees(&bridge, 2, "sources.deskdirector.secrets").await;
    assert!(
        checked.first.contains("at least 16 are needed"),
        "{checked:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn port_in_use() {
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
async fn foreign_program_on_admin_port() {
    let other = stopped(TICKETS).await;
    let mut setup = Setup::of(TICKETS).await;
    // The webhook listener of another bridge.
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

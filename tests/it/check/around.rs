//! Login, alarms, clock, certificates, and a management API that does not answer.

use hyper::Method;
use serde_json::json;

use super::setup::{Setup, TICKETS, check, finds, unstarted};
use crate::support::authority::Authority;
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::encrypted::Server;
use crate::support::process::faketime;
use crate::support::sender::array_of_new;
use crate::support::skip::skipped;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_vhost_and_a_wrong_login_are_found() {
    let vhost = Broker::shared().await.vhost().await;
    let wrong = vhost.amqp_url_as("guest", "not-the-password");
    let missing = format!("{}-missing", vhost.amqp_url);
    for url in [wrong, missing] {
        let bridge = BridgeBuilder::at(&url)
            .with("journal.backlog_bytes_max = \"16MiB\"\njournal.retention_bytes = \"16MiB\"")
            .build();
        let checked = check(&bridge).await;
        assert_eq!(checked.code, 1, "{checked:#?}");
        assert_eq!(checked.findings.len(), 1, "{checked:#?}");
        assert!(
            checked.findings[0].starts_with("error: amqp://127.0.0.1:"),
            "{checked:#?}"
        );
        assert!(checked.findings[0].contains(" refuses: "), "{checked:#?}");
        assert!(!checked.output.contains("not-the-password"), "{checked:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_of_the_broker_is_found_with_and_without_the_management_api() {
    let broker = Broker::own().await;
    let mut setup = Setup::on(broker.vhost().await, TICKETS).await;
    setup.finds(0, &[]).await;
    broker.raise_memory_alarm().await;
    setup
        .finds(1, &["error: the broker has an alarm: memory on "])
        .await;
    setup.bridge.reconfigure("rabbitmq.management_url = \"\"");
    let checked = setup.finds(1, &["error: amqp://127.0.0.1:"]).await;
    assert!(
        checked.findings[0].contains("takes no messages at the moment"),
        "{checked:#?}"
    );
    broker.clear_memory_alarm().await;
    setup.finds(0, &[]).await;
    // What was asked under the alarm has left nothing behind.
    setup.bridge.post(array_of_new("after", 1)).await;
    setup.bridge.backlog_is_empty().await;
    assert_eq!(setup.vhost.messages("tickets").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_is_found() {
    let Some(library) = faketime() else {
        return skipped("a_clock_that_is_wrong_is_found", "needs libfaketime");
    };
    let mut setup = Setup::of(TICKETS).await;
    for (time, said) in [("+5m", "ahead of"), ("-5m", "behind")] {
        setup.bridge.set_environment("LD_PRELOAD", Some(&library));
        setup.bridge.set_environment("FAKETIME", Some(time));
        setup
            .bridge
            .set_environment("FAKETIME_DONT_FAKE_MONOTONIC", Some("1"));
        let checked = setup
            .finds(0, &["warning: the clock of this machine is "])
            .await;
        assert!(
            checked.findings[0].ends_with(&format!("s {said} the broker's")),
            "{checked:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_have_expired_or_are_not_good_yet_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ours");
    let nobody = "amqps://guest:guest@127.0.0.1:1/";
    for (years, said) in [
        (2020..2021, "has expired on 2021-01-01"),
        (2090..2091, "is not good before 2090-01-01"),
    ] {
        let (cert, key) = authority.issue_for_years(dir.path(), "bridge", years);
        let bridge = BridgeBuilder::at(nobody)
            .with("journal.backlog_bytes_max = \"16MiB\"\njournal.retention_bytes = \"16MiB\"")
            .with(&format!("rabbitmq.tls.cert_file = {cert:?}\nrabbitmq.tls.key_file = {key:?}\nrabbitmq.tls.ca_file = {:?}", authority.ca_file))
            .build();
        let expected = [
            &*format!(
                "error: rabbitmq.tls.cert_file: the certificate in `{}` {said}",
                cert.display()
            ),
            "error: amqps://127.0.0.1:1/%2f cannot be reached",
        ];
        finds(&bridge, 1, &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_management_api_that_refuses_or_does_not_answer_is_a_warning_that_names_no_password() {
    let vhost = Broker::shared().await.vhost().await;
    let refusing = vhost
        .management_url()
        .replace("guest:guest", "guest:not-the-password");
    let nobody = "http://guest:not-the-password@127.0.0.1:1";
    for (url, is_of_the_login) in [(&*refusing, true), (nobody, false)] {
        let bridge = unstarted(&vhost, "rabbitmq.topology = \"declare\"")
            .with(&format!("rabbitmq.management_url = {url:?}"))
            .build();
        let checked = check(&bridge).await;
        assert_eq!(checked.code, 0, "{checked:#?}");
        let line = checked
            .findings
            .iter()
            .find(|line| line.contains("management_url"));
        assert!(
            line.is_some_and(
                |line| line.starts_with("warning: rabbitmq.management_url: http://***@127.0.0.1:")
            ),
            "{checked:#?}"
        );
        let is_told = checked.output.contains("the tag `management`");
        assert_eq!(is_told, is_of_the_login, "{checked:#?}");
        assert!(!checked.output.contains("not-the-password"), "{checked:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_management_api_with_a_certificate_of_the_configured_authority_is_asked() {
    let mut setup = Setup::of(TICKETS).await;
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ours");
    let (cert, key) = authority.issue(dir.path(), "localhost");
    let address = setup
        .vhost
        .management_url()
        .replace("http://guest:guest@", "");
    let server = Server::before(&cert, &key, address.parse().unwrap()).await;
    let url = format!("https://guest:guest@localhost:{}", server.port);
    setup
        .bridge
        .reconfigure(&format!("rabbitmq.management_url = {url:?}"));
    let unasked = "warning: rabbitmq.management_url: ";
    setup.finds(0, &[unasked]).await;
    setup.bridge.reconfigure(&format!(
        "rabbitmq.tls.ca_file = {:?}",
        authority.ca_file.display().to_string()
    ));
    let checked = setup.finds(0, &[]).await;
    assert!(
        checked.notes[0].ends_with("`tickets` (quorum)"),
        "{checked:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_brokers_are_tried_and_the_first_that_takes_us_is_judged() {
    let mut setup = Setup::of(TICKETS).await;
    let nobody = "amqp://guest:guest@127.0.0.1:1/%2f";
    let stranger = setup.vhost.amqp_url_as("guest", "not-the-password");
    let ours = setup.vhost.amqp_url.clone();
    let unreachable = "amqp://127.0.0.1:1/%2f cannot be reached: ";
    let refusing = format!("{} refuses: ", ours.replace("guest:guest@", ""));
    let brokers = |urls: &[&str]| format!("rabbitmq.urls = {urls:?}");

    setup
        .bridge
        .reconfigure(&brokers(&[nobody, &stranger, &ours]));
    let expected = [
        &*format!("warning: {unreachable}"),
        &format!("warning: {refusing}"),
    ];
    let checked = setup.finds(0, &expected).await;
    assert!(
        checked.notes[0].ends_with("`tickets` (quorum)"),
        "{checked:#?}"
    );
    let next = "`serve` goes on to the next of `rabbitmq.urls`";
    assert_eq!(checked.output.matches(next).count(), 2, "{checked:#?}");

    setup.bridge.reconfigure(&brokers(&[nobody, &stranger]));
    let checked = check(&setup.bridge).await;
    assert_eq!(checked.code, 1, "{checked:#?}");
    for expected in [
        format!("error: {unreachable}"),
        format!("error: {refusing}"),
    ] {
        let is_told = |line: &String| line.starts_with(&expected);
        assert!(checked.findings.iter().any(is_told), "{checked:#?}");
    }
    assert!(!checked.output.contains("not-the-password"), "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_broker_that_has_expired_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ours");
    let (cert, key) = authority.issue_for_years(dir.path(), "localhost", 2020..2021);
    let server = Server::with(&cert, &key).await;
    let url = format!("amqps://localhost:{}/%2f", server.port);
    let bridge = BridgeBuilder::at(&url)
        .with("journal.backlog_bytes_max = \"16MiB\"\njournal.retention_bytes = \"16MiB\"")
        .with(&format!("rabbitmq.tls.ca_file = {:?}", authority.ca_file))
        .build();
    let expected = [
        &*format!(
            "error: rabbitmq.urls: the certificate that {url} presents has expired on 2021-01-01"
        ),
        &format!("error: {url} refuses: "),
    ];
    finds(&bridge, 1, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_with_the_tag_management_is_enough_but_for_what_only_an_administrator_may_see() {
    let mut setup = Setup::of(TICKETS).await;
    let name = format!("{}-looker", setup.vhost.name);
    let user = json!({"password": "looker-password", "tags": "management"});
    setup
        .vhost
        .management(Method::PUT, &format!("users/{name}"), &user)
        .await;
    setup.vhost.allow(&name, "^$", "^$", "^$").await;
    let url = setup.vhost.management_url();
    let url = url.replace("guest:guest", &format!("{name}:looker-password"));
    setup
        .bridge
        .reconfigure(&format!("rabbitmq.management_url = {url:?}"));
    let checked = setup.finds(0, &[]).await;
    let unseen: Vec<_> = checked
        .notes
        .iter()
        .filter(|note| !note.starts_with("note: status `"))
        .collect();
    assert_eq!(unseen.len(), 1, "{checked:#?}");
    assert!(
        unseen[0].starts_with("note: what user `guest` may declare was not looked at"),
        "{checked:#?}"
    );
    assert!(!checked.output.contains("looker-password"), "{checked:#?}");
}

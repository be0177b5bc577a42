//! Brokers, clock, certificates, and the login of the management API.

use hyper::Method;
use serde_json::json;

use super::setup::{Setup, TICKETS, check, finds};
use crate::support::authority::Authority;
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::process::faketime;
use crate::support::skip::skipped;
use crate::support::tls_server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_clock_is_found() {
    let Some(library) = faketime() else {
        return skipped("wrong_clock_is_found", "needs libfaketime");
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
async fn secret_that_is_missing_beside_another_is_a_note() {
    let mut setup = Setup::of(TICKETS).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("second");
    setup.bridge.reconfigure(&format!(
        "sources.deskdirector = {{secret_files = [{file:?}], await_secret = true}}"
    ));
    let checked = setup.finds(0, &[]).await;
    let told = format!(
        "note: sources.deskdirector: the file `{}` is missing; webhooks that are signed with its secret are refused",
        file.display()
    );
    assert!(checked.notes.contains(&told), "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_and_future_certificates_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ours");
    let nobody = "amqps://guest:guest@127.0.0.1:1/";
    for (years, said) in [
        (2020..2021, "has expired on 2021-01-01"),
        (2090..2091, "is not valid before 2090-01-01"),
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
async fn management_api_uses_the_configured_ca() {
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
async fn first_accepting_broker_is_checked() {
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
async fn expired_broker_certificate_is_found() {
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
async fn management_tag_suffices_except_for_admin_views() {
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
        unseen[0].starts_with("note: what user `guest` may declare was not inspected"),
        "{checked:#?}"
    );
    assert!(!checked.output.contains("looker-password"), "{checked:#?}");
}

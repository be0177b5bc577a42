//! Encryption: our own authority, a client certificate, and never plain instead.

use std::path::{Path, PathBuf};

use deskbridge::config::Config;
use deskbridge::telemetry::status::BrokerState;

use super::room::{Room, all_delivered, config, messages};
use crate::support::authority::Authority;
use crate::support::broker::Broker;

async fn broker(dir: &Path, authority: &Authority) -> Broker {
    let (cert, key) = authority.issue(dir, "localhost");
    let (ca, cert, key) = (authority.ca_file.display(), cert.display(), key.display());
    Broker::own_with(&format!(
        "listeners.ssl.default = 127.0.0.1:@TLS_PORT@\n\
         ssl_options.cacertfile = {ca}\nssl_options.certfile = {cert}\nssl_options.keyfile = {key}\n\
         ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n"
    ))
    .await
}

fn with_identity(
    mut config: Config,
    ca_file: &Path,
    identity: Option<&(PathBuf, PathBuf)>,
) -> Config {
    config.rabbitmq.tls.ca_file = Some(ca_file.into());
    config.rabbitmq.tls.cert_file = identity.map(|(cert, _)| cert.clone());
    config.rabbitmq.tls.key_file = identity.map(|(_, key)| key.clone());
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn amqps_works_with_our_own_authority_and_a_client_certificate_and_refuses_anything_less() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Authority::new(dir.path(), "ours");
    let theirs = Authority::new(dir.path(), "theirs");
    let broker = broker(dir.path(), &ours).await;
    let vhost = broker.vhost().await;
    let url = format!(
        "amqps://guest:guest@localhost:{}/{}",
        broker.port("TLS_PORT"),
        vhost.name
    );
    let by_address = url.replace("localhost", "127.0.0.1");
    let ours_client = ours.issue(dir.path(), "bridge");
    let theirs_client = theirs.issue(dir.path(), "stranger");

    let good = with_identity(config(&[&url]), &ours.ca_file, Some(&ours_client));
    let mut room = Room::up(&good).await;
    assert!(all_delivered(
        &room.publish(messages("chat-sessions", "k", 64)).await
    ));

    let refused = [
        ("the system's authorities do not know the broker", {
            let mut config = config(&[&url]);
            (config.rabbitmq.tls.cert_file, config.rabbitmq.tls.key_file) =
                (Some(ours_client.0.clone()), Some(ours_client.1.clone()));
            config
        }),
        (
            "another authority",
            with_identity(config(&[&url]), &theirs.ca_file, Some(&ours_client)),
        ),
        (
            "no client certificate",
            with_identity(config(&[&url]), &ours.ca_file, None),
        ),
        (
            "a stranger's certificate",
            with_identity(config(&[&url]), &ours.ca_file, Some(&theirs_client)),
        ),
        (
            "another name",
            with_identity(config(&[&by_address]), &ours.ca_file, Some(&ours_client)),
        ),
        ("a key without its certificate", {
            let mut config = good.clone();
            config.rabbitmq.tls.cert_file = None;
            config
        }),
        (
            "a file that is not there",
            with_identity(config(&[&url]), Path::new("/nowhere.pem"), None),
        ),
    ];
    let says_it_late = ["no client certificate", "a stranger's certificate"];
    for (what, config) in refused {
        let mut room = Room::start(&config);
        let status = room.status_is(what, |status| status.reason.is_some()).await;
        println!("{what}: {:?}", status.reason);
        let is_refused = status.state == BrokerState::Refused;
        // The broker's last words may be lost with TLS 1.3, the reason may not.
        let is_hinted = status
            .reason
            .is_some_and(|reason| reason.contains("client certificate"));
        assert!(
            is_refused || (is_hinted && says_it_late.contains(&what)),
            "{what}"
        );
        room.shutdown.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn amqps_towards_a_plain_port_never_becomes_plain() {
    let vhost = Broker::shared().await.vhost().await;
    let url = vhost.amqp_url.replace("amqp://", "amqps://");
    let mut room = Room::start(&config(&[&url]));
    let status = room
        .status_is("it fails", |status| status.reason.is_some())
        .await;
    assert_ne!(status.state, BrokerState::Connected);
    room.shutdown.cancel();
}

//! TLS: a private authority, a client certificate, and no fallback to plain text.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use deskbridge::config::Config;
use deskbridge::telemetry::status::{BrokerState, CertificateRole};
use jiff::{SignedDuration, Timestamp};

use super::harness::{Harness, all_delivered, config, messages};
use crate::support::authority::Authority;
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::sender::array_of_new;
use crate::support::tls_server::Server;
use crate::support::vhost::Vhost;

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
async fn only_the_complete_tls_setup_connects() {
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
    let mut harness = Harness::up(&good).await;
    assert!(all_delivered(
        &harness.publish(messages("chat-sessions", "k", 64)).await
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
        let mut harness = Harness::start(&config);
        let status = harness
            .status_is(what, |status| status.reason.is_some())
            .await;
        println!("{what}: {:?}", status.reason);
        let is_refused = status.state == BrokerState::Refused;
        // With TLS 1.3 the broker's last message may be lost, but the reason must be reported.
        let is_hinted = status
            .reason
            .is_some_and(|reason| reason.contains("client certificate"));
        assert!(
            is_refused || (is_hinted && says_it_late.contains(&what)),
            "{what}"
        );
        harness.shutdown.cancel();
    }
    check_process(&url, &vhost, &ours, &ours_client).await;
}

/// The built binary is refused without the private authority, and publishes with it.
async fn check_process(
    url: &str,
    vhost: &Vhost,
    authority: &Authority,
    (cert, key): &(PathBuf, PathBuf),
) {
    let mut bridge = BridgeBuilder::at(url)
        .with("queues = [{name = 'all', keys = ['#']}]")
        .start()
        .await;
    let sent = array_of_new("encrypted", 1);
    assert_eq!(bridge.post(&sent).await.status, 202);
    bridge.broker_is("refused").await;
    let ca = &authority.ca_file;
    bridge.reconfigure(&format!(
        "rabbitmq.tls = {{ca_file = '{}', cert_file = '{}', key_file = '{}'}}",
        ca.display(),
        cert.display(),
        key.display(),
    ));
    bridge.restart().await;
    bridge.broker_is("connected").await;
    let message = Consumer::of(vhost, "all").await.receive().await;
    assert_eq!([b"[".as_slice(), &message.body, b"]"].concat(), sent);
}

#[expect(clippy::too_many_lines, reason = "a list of mistakes")]
#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_has_a_reason_and_advice() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let ours = Authority::new(dir.path(), "ours");
    let theirs = Authority::new(dir.path(), "theirs");
    let vhost = Broker::shared().await.vhost().await;
    let url = |port: u16| config(&[&format!("amqps://localhost:{port}")]);
    let plain_port = vhost.amqp_url.replace("amqp://", "amqps://");
    let with_ca = |config: Config, ca: &Path| with_identity(config, ca, None);
    let (cert, key) = ours.issue(dir.path(), "localhost");
    let good = Server::with(&cert, &key).await;
    let (other_cert, other_key) = ours.issue(dir.path(), "bridge");
    let other = Server::with(&other_cert, &other_key).await;
    let old_dir = tempfile::tempdir().unwrap();
    let (old_cert, old_key) = ours.issue_for_years(old_dir.path(), "localhost", 2000..2001);
    let old = Server::with(&old_cert, &old_key).await;
    let new_dir = tempfile::tempdir().unwrap();
    let (new_cert, new_key) = ours.issue_for_years(new_dir.path(), "localhost", 2090..2091);
    let new = Server::with(&new_cert, &new_key).await;
    // A self-signed certificate, made as for an authority.
    let own_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(at("own.crt"), params.self_signed(&own_key).unwrap().pem()).unwrap();
    std::fs::write(at("own.key"), own_key.serialize_pem()).unwrap();
    let own = Server::with(&at("own.crt"), &at("own.key")).await;
    let der = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
    std::fs::write(at("ca.der"), der.self_signed(&own_key).unwrap().der()).unwrap();
    let encrypted = own_key
        .serialize_pem()
        .replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    std::fs::write(at("encrypted.key"), encrypted).unwrap();
    let identity = |key: &Path| Some((cert.clone(), key.to_owned()));
    // The mistake, the reason that is reported for it, and a part of the advice.
    let told = [
        (
            "another authority",
            with_ca(url(good.port), &theirs.ca_file),
            "an authority that is not in `rabbitmq.tls.ca_file`",
            "ssl_options.cacertfile",
        ),
        (
            "self-signed, as an authority",
            with_ca(url(own.port), &at("own.crt")),
            "presents the certificate of an authority as its own",
            "CA:FALSE",
        ),
        (
            "another name",
            with_ca(url(other.port), &ours.ca_file),
            "is not for `localhost` but for `bridge`",
            "subjectAltName",
        ),
        (
            "expired",
            with_ca(url(old.port), &ours.ca_file),
            "the broker's certificate has expired",
            "clock",
        ),
        (
            "not yet valid",
            with_ca(url(new.port), &ours.ca_file),
            "not valid yet",
            "clock",
        ),
        (
            "the plain port",
            with_ca(config(&[&plain_port]), &ours.ca_file),
            "does not speak TLS",
            "5671",
        ),
        (
            "the port for TLS, without TLS",
            config(&[&format!("amqp://localhost:{}", good.port)]),
            "does not speak plain AMQP",
            "5671",
        ),
        (
            "a key of another certificate",
            with_identity(
                url(good.port),
                &ours.ca_file,
                identity(&at("own.key")).as_ref(),
            ),
            "belongs to another certificate than the one in",
            "openssl pkey -pubout",
        ),
        (
            "an encrypted key",
            with_identity(
                url(good.port),
                &ours.ca_file,
                identity(&at("encrypted.key")).as_ref(),
            ),
            "is encrypted with a password",
            "openssl pkey -in",
        ),
        (
            "a certificate of X.509 version 1",
            with_identity(
                url(good.port),
                &ours.ca_file,
                Some((fixture("version-1.crt"), fixture("version-1.key"))).as_ref(),
            ),
            "is of X.509 version 1",
            "openssl x509 -req -extfile",
        ),
        (
            "a DER file",
            with_ca(url(good.port), &at("ca.der")),
            "is binary (DER)",
            "openssl x509 -inform der",
        ),
    ];
    for (what, config, reason, advice) in told {
        let mut harness = Harness::start(&config);
        let status = harness
            .status_is(what, |status| status.reason.is_some())
            .await;
        println!("{what}: {:?} {:?}", status.reason, status.advice);
        let has = |text: &Option<String>, part: &str| {
            text.as_ref().is_some_and(|text| text.contains(part))
        };
        assert_eq!(status.state, BrokerState::Refused, "{what}");
        assert!(has(&status.reason, reason), "{what}: {:?}", status.reason);
        assert!(has(&status.advice, advice), "{what}: {:?}", status.advice);
        harness.shutdown.cancel();
    }
    for server in [&good, &other, &own, &old, &new] {
        assert_ne!(server.in_tls.load(Ordering::SeqCst), 0);
    }
    for server in [&other, &own, &old, &new] {
        assert_eq!(server.in_plain.load(Ordering::SeqCst), 0);
    }
    // A byte order mark is accepted.
    let marked = at("marked.pem");
    let pem = std::fs::read_to_string(&ours.ca_file).unwrap();
    std::fs::write(&marked, format!("\u{feff}{pem}")).unwrap();
    let broker: std::net::SocketAddr = format!("127.0.0.1:{}", port_of(&vhost.amqp_url))
        .parse()
        .unwrap();
    let before = Server::before(&cert, &key, broker).await;
    let encrypted = vhost.amqp_url.replace("amqp://", "amqps://");
    let encrypted = encrypted.replace("127.0.0.1", "localhost").replace(
        &format!(":{}/", broker.port()),
        &format!(":{}/", before.port),
    );
    let mut harness = Harness::start(&with_ca(config(&[&encrypted]), &marked));
    harness.state_is(BrokerState::Connected).await;
    let status = harness
        .status_is("certificates", |status| status.certificates.len() == 2)
        .await;
    for role in [CertificateRole::Ca, CertificateRole::Broker] {
        // The certificates of these tests are valid for years.
        let until = status.certificates[&role];
        assert!(
            until > Timestamp::now() + SignedDuration::from_hours(24),
            "{until}"
        );
    }
    harness.shutdown.cancel();
}

/// Made with `openssl x509 -req` without extensions; valid until 2126. No library generates this
/// version.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/publisher/tls")
        .join(name)
}

fn port_of(url: &str) -> u16 {
    let url = deskbridge::config::broker_url::BrokerUrl::parse(url).unwrap();
    url.port()
}

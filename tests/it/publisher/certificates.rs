//! Certificates that are not good: refused with the reason, and nothing is ever said in plain.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use deskbridge::telemetry::status::BrokerState;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;

use super::room::{Room, config};
use crate::support::authority::Authority;

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 22;

/// A server with this certificate that counts what clients begin with.
struct Server {
    port: u16,
    in_tls: Arc<AtomicUsize>,
    in_plain: Arc<AtomicUsize>,
}

impl Server {
    async fn with(cert: &Path, key: &Path) -> Self {
        let certificate = CertificateDer::from_pem_file(cert).unwrap();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (in_tls, in_plain) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (tls, plain) = (Arc::clone(&in_tls), Arc::clone(&in_plain));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let mut first = [0];
                let heard = socket.peek(&mut first).await.unwrap_or(0);
                match first {
                    [HANDSHAKE] => tls.fetch_add(1, Ordering::SeqCst),
                    _ => plain.fetch_add(heard, Ordering::SeqCst),
                };
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let _ = acceptor.accept(socket).await;
                });
            }
        });
        Self {
            port,
            in_tls,
            in_plain,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_good_is_refused_with_the_reason_and_never_in_plain() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Authority::new(dir.path(), "ours");
    let theirs = Authority::new(dir.path(), "theirs");
    for (what, authority, name, years, reason) in [
        ("expired", &ours, "localhost", 2001..2002, "expired"),
        (
            "not yet valid",
            &ours,
            "localhost",
            2090..2091,
            "not valid yet",
        ),
        (
            "another authority's",
            &theirs,
            "localhost",
            2020..2100,
            "unknownissuer",
        ),
        (
            "another name",
            &ours,
            "elsewhere.test",
            2020..2100,
            "not valid for name",
        ),
    ] {
        let (cert, key) = authority.issue_for_years(dir.path(), name, years);
        let server = Server::with(&cert, &key).await;
        let mut config = config(&[&format!(
            "amqps://guest:guest@localhost:{}/%2f",
            server.port
        )]);
        config.rabbitmq.tls.ca_file = Some(ours.ca_file.clone());
        let mut room = Room::start(&config);
        let status = room.state_is(BrokerState::Refused).await;
        let said = status.reason.unwrap_or_default();
        println!("{what}: {said}");
        assert!(said.to_lowercase().contains(reason), "{what}: {said}");
        assert_ne!(server.in_tls.load(Ordering::SeqCst), 0, "{what}");
        assert_eq!(server.in_plain.load(Ordering::SeqCst), 0, "{what}");
        room.shutdown.cancel();
    }
}

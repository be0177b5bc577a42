//! A TLS server that only completes the handshake, or forwards the decrypted bytes to another
//! server.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 22;

/// A TLS server with this certificate that counts whether clients begin with TLS or in plain text.
pub struct Server {
    pub port: u16,
    pub in_tls: Arc<AtomicUsize>,
    pub in_plain: Arc<AtomicUsize>,
}

impl Server {
    /// A server that does nothing after the handshake.
    pub async fn with(cert: &Path, key: &Path) -> Self {
        Self::start(cert, key, None).await
    }

    /// A server that forwards the decrypted bytes to that address.
    pub async fn before(cert: &Path, key: &Path, address: SocketAddr) -> Self {
        Self::start(cert, key, Some(address)).await
    }

    async fn start(cert: &Path, key: &Path, behind: Option<SocketAddr>) -> Self {
        let certificate = CertificateDer::from_pem_file(cert).unwrap();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
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
                    let Ok(mut client) = acceptor.accept(socket).await else {
                        return;
                    };
                    if let Some(address) = behind {
                        let mut server = TcpStream::connect(address).await.unwrap();
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
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

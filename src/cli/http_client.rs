//! A small HTTP client for `send`, `health` and `check`: connections are kept, answers are bounded.

use std::io;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Builder};
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The bridge's answers are much shorter.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// The bridge answers within a second.
const TIMEOUT: Duration = Duration::from_secs(30);

type Body = Full<Bytes>;

/// Keeps its connections.
#[derive(Clone)]
pub enum Client {
    /// For `http`.
    Plain(legacy::Client<HttpConnector, Body>),
    /// For `https`.
    Tls(legacy::Client<HttpsConnector<HttpConnector>, Body>),
}

/// What came back.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Client {
    /// A client for that URL, keeping at most so many connections, and trusting whom the system does.
    ///
    /// # Errors
    /// For `https`, if the system has no certificate authorities.
    pub fn for_url(url: &Uri, connections: usize) -> io::Result<Self> {
        Self::trusting(url, connections, None)
    }

    /// The same, trusting these authorities and no others.
    ///
    /// # Errors
    /// For `https`, if there are no certificate authorities.
    pub fn trusting(
        url: &Uri,
        connections: usize,
        authorities: Option<Vec<CertificateDer<'static>>>,
    ) -> io::Result<Self> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.pool_max_idle_per_host(connections);
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(TIMEOUT / 3));
        if url.scheme_str() != Some("https") {
            return Ok(Self::Plain(builder.build(tcp)));
        }
        tcp.enforce_http(false);
        let tls = HttpsConnectorBuilder::new();
        let tls = match authorities {
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(authorities);
                tls.with_tls_config(
                    ClientConfig::builder()
                        .with_root_certificates(roots)
                        .with_no_client_auth(),
                )
            }
            None => tls.with_native_roots()?,
        };
        Ok(Self::Tls(builder.build(
            tls.https_or_http().enable_http1().wrap_connector(tcp),
        )))
    }

    /// Sends a request and reads the whole answer, for 30 s at most.
    ///
    /// # Errors
    /// If no complete answer comes.
    pub async fn ask(&self, request: Request<Body>) -> anyhow::Result<Answer> {
        let asking = async {
            let answer = self.send(request).await?;
            let status = answer.status();
            let headers = answer.headers().clone();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await;
            let body = body
                .map_err(anyhow::Error::from_boxed)
                .context("reading the answer")?
                .to_bytes();
            Ok(Answer {
                status,
                headers,
                body,
            })
        };
        tokio::time::timeout(TIMEOUT, asking)
            .await
            .context("no answer within 30 s")?
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, legacy::Error> {
        match self {
            Self::Plain(client) => client.request(request).await,
            Self::Tls(client) => client.request(request).await,
        }
    }
}

//! A small HTTP client for `send`, `health`, `check` and traces, with keep-alive connections and limits on
//! the size and time of an answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;
use std::vec;

use anyhow::Context;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::{self, Builder};
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower::service_fn;
use tower::util::ServiceFn;

use crate::slow_call;

/// Maximum size of an answer's body. The bridge's answers are much shorter.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Maximum time for a whole answer. The bridge answers within a second.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client with a pool of keep-alive connections. Cheap to clone.
#[derive(Clone)]
pub struct Client(legacy::Client<HttpsConnector<HttpConnector<Lookup>>, Full<Bytes>>);

/// Resolves host names by [`slow_call`].
type Lookup = ServiceFn<fn(Name) -> BoxFuture<'static, io::Result<vec::IntoIter<SocketAddr>>>>;

/// A complete response.
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The response headers.
    pub headers: HeaderMap,
    /// The whole body, at most 4 MiB.
    pub body: Bytes,
}

impl Client {
    /// A client for that URL that keeps at most `connections` idle connections and trusts the
    /// certificate authorities of the system.
    ///
    /// # Errors
    /// For `https`, if the system has no certificate authorities.
    pub fn for_url(url: &Uri, connections: usize) -> io::Result<Self> {
        Self::trusting(url, connections, None)
    }

    /// Like [`Client::for_url`], but if authorities are given it trusts only these.
    ///
    /// # Errors
    /// For `https`, if no authorities are given and the system has none.
    pub fn trusting(
        url: &Uri,
        connections: usize,
        authorities: Option<Vec<CertificateDer<'static>>>,
    ) -> io::Result<Self> {
        let lookup: Lookup = service_fn(|name: Name| {
            let host = name.to_string();
            // The connector sets the port.
            let call = move || (host, 0).to_socket_addrs();
            Box::pin(async move { slow_call::run(name.as_str(), call).await.flatten() })
        });
        let mut tcp = HttpConnector::new_with_resolver(lookup);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(TIMEOUT / 3));
        let tls = HttpsConnectorBuilder::new();
        let is_plain = url.scheme_str() != Some("https");
        let tls = match authorities.or_else(|| is_plain.then(Vec::new)) {
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(authorities);
                let config = ClientConfig::builder().with_root_certificates(roots);
                tls.with_tls_config(config.with_no_client_auth())
            }
            None => tls.with_native_roots()?,
        };
        let connector = tls.https_or_http().enable_http1().wrap_connector(tcp);
        let mut builder = Builder::new(TokioExecutor::new());
        builder.pool_max_idle_per_host(connections);
        Ok(Self(builder.build(connector)))
    }

    /// The answer to a GET, over a connection of its own.
    ///
    /// # Errors
    /// As for [`Client::for_url`] and [`Client::ask`].
    pub async fn get(url: &Uri) -> anyhow::Result<Answer> {
        let request = Request::get(url).body(Full::default())?;
        Self::for_url(url, 1)?.ask(request).await
    }

    /// Sends a request and reads the whole answer within 30 s.
    ///
    /// # Errors
    /// If there is no complete answer within that time, or it is larger than 4 MiB.
    pub async fn ask(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let asking = async {
            let answer = self.0.request(request).await?;
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
}

/// The address to connect to: loopback if the listener has a wildcard address.
#[must_use]
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_address_is_queried_on_loopback() {
        let check = |listen: &str, expected: &str| {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        };
        check("0.0.0.0:9180", "127.0.0.1:9180");
        check("[::]:9180", "[::1]:9180");
        check("10.1.2.3:9180", "10.1.2.3:9180");
    }
}

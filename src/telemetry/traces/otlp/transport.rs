//! The bridge's HTTP client, as the exporter asks for one. It brings no second TLS library.

use std::fmt::{self, Formatter};
use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, Uri};
use opentelemetry_http::{HttpClient, HttpError};

use crate::http_client::Client;

type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

pub(super) struct Transport(Client);

impl Transport {
    /// A client for that URL, with one idle connection.
    ///
    /// # Errors
    /// For `https`, if the system has no certificate authorities.
    pub(super) fn to(url: &Uri) -> io::Result<Self> {
        Client::for_url(url, 1).map(Self)
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("Transport")
    }
}

impl HttpClient for Transport {
    // The signature that `async_trait` expands to.
    fn send_bytes<'client, 'sending>(&'client self, request: Request<Bytes>) -> Sending<'sending>
    where
        'client: 'sending,
    {
        Box::pin(async move {
            let answer = self.0.ask(request.map(Full::new)).await?;
            let mut response = Response::new(answer.body);
            *response.status_mut() = answer.status;
            Ok(response)
        })
    }
}

//! An OTLP collector that decodes the spans it receives, or does not answer as it should.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
pub use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use tokio::net::TcpListener;

use super::wait::{SOON, eventually_some};

/// How the collector answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// 200, and the spans are recorded.
    Accepts,
    /// 500.
    Fails,
    /// Not at all.
    Hangs,
}

/// A span as the tests compare it; ids in hexadecimal.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: String,
    pub kind: SpanKind,
    pub trace_id: String,
    pub id: String,
    /// Empty if it has none.
    pub parent_id: String,
    pub trace_state: String,
    pub started: u64,
    pub ended: u64,
    pub is_error: bool,
    attributes: Vec<KeyValue>,
    resource: Vec<KeyValue>,
}

impl Span {
    /// An attribute as text; empty if there is none.
    pub fn get(&self, key: &str) -> String {
        value_of(&self.attributes, key)
    }

    /// An attribute of the resource as text; empty if there is none.
    pub fn resource(&self, key: &str) -> String {
        value_of(&self.resource, key)
    }
}

/// The collector; it listens until the test ends.
pub struct Collector {
    address: SocketAddr,
    received: Arc<Received>,
}

#[derive(Default)]
struct Received {
    requests: AtomicUsize,
    spans: Mutex<Vec<Span>>,
    headers: Mutex<HeaderMap>,
}

impl Collector {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::<Received>::default();
        let collector = Self {
            address,
            received: Arc::clone(&received),
        };
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let received = Arc::clone(&received);
                let answer =
                    service_fn(move |request| answer(Arc::clone(&received), manner, request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), answer));
            }
        });
        collector
    }

    /// The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests have arrived, answered or not.
    pub fn requests(&self) -> usize {
        self.received.requests.load(Ordering::SeqCst)
    }

    /// A header of the last request.
    pub fn header(&self, name: &str) -> Option<String> {
        let headers = self.received.headers.lock().unwrap();
        Some(headers.get(name)?.to_str().unwrap().to_owned())
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.received.spans.lock().unwrap().clone()
    }

    /// Waits until spans with this name have arrived, and returns these.
    pub async fn spans_named(&self, name: &str, count: usize) -> Vec<Span> {
        let what = format!("{count} spans `{name}` have arrived");
        eventually_some(&what, SOON, || async {
            let mut spans = self.spans();
            spans.retain(|span| span.name == name);
            (spans.len() >= count).then_some(spans)
        })
        .await
    }
}

async fn answer(
    received: Arc<Received>,
    manner: Manner,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    received.requests.fetch_add(1, Ordering::SeqCst);
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut response = Response::new(Full::default());
    match manner {
        Manner::Hangs => tokio::time::sleep(Duration::from_hours(1)).await,
        Manner::Fails => *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR,
        Manner::Accepts => {
            assert_eq!(head.uri.path(), "/v1/traces");
            assert_eq!(head.headers["content-type"], "application/x-protobuf");
            let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
            received.spans.lock().unwrap().extend(decoded(request));
            *received.headers.lock().unwrap() = head.headers;
        }
    }
    Ok(response)
}

fn decoded(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource_spans in request.resource_spans {
        let resource = resource_spans.resource.unwrap_or_default().attributes;
        for span in resource_spans
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans)
        {
            spans.push(Span {
                kind: span.kind(),
                trace_id: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent_id: hex(&span.parent_span_id),
                trace_state: span.trace_state,
                started: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
                is_error: span
                    .status
                    .is_some_and(|status| status.code() == StatusCode::Error),
                name: span.name,
                attributes: span.attributes,
                resource: resource.clone(),
            });
        }
    }
    spans
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn value_of(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|attribute| attribute.value.as_ref()?.value.clone());
    match value {
        None => String::new(),
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(other) => panic!("{key}: {other:?}"),
    }
}

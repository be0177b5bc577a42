//! A bridge without a journal and a broker, and a client that sends arbitrary bytes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config;
use crate::http::body::Bodies;
use crate::http::event_store::EventStore;
use crate::http::ingress::Ingress;
use crate::http::limits::{ConnectionLimits, Stop};
use crate::http::refused::RequestRefusals;
use crate::http::server;
use crate::http::sources::{Source, Sources};
use crate::journal::WriteError;
use crate::telemetry::exposition::classic;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{DiskStatus, Totals};
use crate::telemetry::traces::Traces;
use crate::webhook::Webhook;
use crate::webhook::signature::{Keys, sign};

/// The secret of the source `acme`; `open` needs none.
pub(super) const SECRET: &str = "a secret of acme, long enough";

/// Maximum time for which a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(15);

/// An in-memory journal.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    pub(super) webhooks: Arc<Mutex<Vec<Webhook>>>,
    pub(super) refusal: Arc<Mutex<Option<WriteError>>>,
    pub(super) totals: Arc<Mutex<Totals>>,
    /// What the next append does.
    pub(super) disk: watch::Sender<Disk>,
    /// Number of appends that have begun.
    appends: Arc<AtomicUsize>,
}

/// What an append does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Disk {
    Writes,
    Fails(WriteError),
    Hangs,
    Panics,
}

impl Shelf {
    /// Waits until `appends` appends have begun.
    pub(super) async fn has_begun(&self, appends: usize) {
        eventually(|| self.appends.load(Ordering::Relaxed) >= appends).await;
    }
}

impl EventStore for Shelf {
    fn append(
        &self,
        webhook: Webhook,
        reserved: Box<dyn Send>,
    ) -> impl Future<Output = Result<(), WriteError>> + Send + 'static {
        self.appends.fetch_add(1, Ordering::Relaxed);
        let webhooks = Arc::clone(&self.webhooks);
        let mut disk = self.disk.subscribe();
        let task = tokio::spawn(async move {
            let _reserved = reserved;
            let disk = disk
                .wait_for(|disk| *disk != Disk::Hangs)
                .await
                .unwrap()
                .clone();
            match disk {
                Disk::Fails(error) => Err(error),
                Disk::Panics => panic!("the shelf broke"),
                Disk::Writes | Disk::Hangs => {
                    webhooks.lock().unwrap().push(webhook);
                    Ok(())
                }
            }
        });
        async move { task.await.unwrap() }
    }

    fn refusal(&self) -> Option<WriteError> {
        self.refusal.lock().unwrap().clone()
    }

    fn obstacle(&self) -> Option<String> {
        self.refusal().map(|error| error.to_string())
    }

    fn foreign_locks(&self) -> Option<String> {
        None
    }

    fn disk(&self) -> DiskStatus {
        DiskStatus {
            free_bytes: 1000,
            free_min_bytes: 100,
            ..DiskStatus::default()
        }
    }

    fn totals(&self) -> Totals {
        self.totals.lock().unwrap().clone()
    }

    fn oldest_seconds(&self) -> f64 {
        1.5
    }
}

/// A running public listener.
pub(super) struct Bridge {
    pub(super) address: SocketAddr,
    pub(super) shelf: Shelf,
    pub(super) metrics: Arc<Metrics>,
    pub(super) sources: Sources,
    pub(super) bodies: Bodies,
    pub(super) stop: Stop,
    pub(super) task: JoinHandle<()>,
}

pub(super) fn shelf() -> Shelf {
    Shelf {
        webhooks: Arc::default(),
        refusal: Arc::default(),
        totals: Arc::default(),
        disk: watch::Sender::new(Disk::Writes),
        appends: Arc::default(),
    }
}

pub(super) fn acme(secret: &str) -> Source {
    Source {
        name: "acme".into(),
        awaits_secret: false,
        kept_secrets: Arc::default(),
        secret_names: vec!["secrets[0]".into()],
        keys: Keys::new([secret]),
    }
}

/// The settings that a test can change.
pub(super) struct Tuning {
    pub(super) http: config::http::Http,
    pub(super) append_timeout: Duration,
    pub(super) body_rate_grace: Option<Duration>,
}

impl Bridge {
    pub(super) async fn start() -> Self {
        Self::tuned(|_| {}).await
    }

    pub(super) async fn tuned(tune: impl FnOnce(&mut Tuning)) -> Self {
        let mut tuning = Tuning {
            http: config::http::Http::default(),
            append_timeout: Duration::from_secs(10),
            body_rate_grace: None,
        };
        tune(&mut tuning);
        let config = &tuning.http;
        let open = Source {
            name: "open".into(),
            awaits_secret: false,
            kept_secrets: Arc::default(),
            secret_names: Vec::new(),
            keys: Keys::Unsigned,
        };
        let sources = Sources::new([acme(SECRET), open]);
        let (shelf, metrics, stop) = (shelf(), Arc::new(Metrics::default()), Stop::default());
        let mut ingress = Ingress::new(
            config,
            sources.clone(),
            shelf.clone(),
            Arc::clone(&metrics),
            Traces::default(),
        );
        ingress.append_timeout = tuning.append_timeout;
        if let Some(grace) = tuning.body_rate_grace {
            ingress.budget.rate_grace = grace;
        }
        let limits = ConnectionLimits::of(config);
        let refusals = RequestRefusals::of("http", Arc::clone(&metrics));
        let bodies = ingress.budget.bodies();
        let router = ingress.router();
        let (address, task) = serve_refusing(router, limits, stop.clone(), refusals).await;
        Self {
            address,
            shelf,
            metrics,
            sources,
            bodies,
            stop,
            task,
        }
    }

    pub(super) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Sends one request on a new connection.
    pub(super) async fn ask(&self, request: &[u8]) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }

    /// The statuses of all answers to these bytes, after which the client closes its write half.
    pub(super) async fn statuses(&self, bytes: &[u8]) -> Vec<u16> {
        let mut client = self.connect().await;
        client.send(bytes).await;
        // The bridge may have closed already.
        _ = client.stream.shutdown().await;
        let rest = client.rest().await;
        let answers = rest.split("HTTP/1.").skip(1);
        answers
            .filter_map(|answer| answer.get(2..5)?.parse().ok())
            .collect()
    }

    /// Number of sessions stored so far.
    pub(super) fn held(&self) -> usize {
        self.shelf
            .webhooks
            .lock()
            .unwrap()
            .iter()
            .map(|webhook| webhook.events.len())
            .sum()
    }
}

/// One connection.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    early: Vec<u8>,
}

/// One response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).await.unwrap())
    }

    pub(super) fn of(stream: TcpStream) -> Self {
        Self {
            stream,
            early: Vec::new(),
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .expect("nobody reads")
            .unwrap();
    }

    /// Reads the next response, which may be an interim one.
    pub(super) async fn answer(&mut self) -> Answer {
        let head_end = loop {
            if let Some(at) = self.early.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.read().await > 0,
                "closed without an answer: {:?}",
                self.early
            );
        };
        let head = String::from_utf8(self.early.drain(..head_end).collect()).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer {
            status,
            head,
            body: String::new(),
        };
        let length = answer
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        while self.early.len() < length {
            assert!(self.read().await > 0, "closed within an answer: {answer:?}");
        }
        answer.body = String::from_utf8(self.early.drain(..length).collect()).unwrap();
        answer
    }

    /// Reads everything until the bridge closes.
    pub(super) async fn rest(&mut self) -> String {
        while self.read().await > 0 {}
        String::from_utf8_lossy(&std::mem::take(&mut self.early)).into_owned()
    }

    /// Whether nothing arrives and the connection stays open for `duration`.
    pub(super) async fn is_quiet_for(&mut self, duration: Duration) -> bool {
        let mut byte = [0; 1];
        timeout(duration, self.stream.peek(&mut byte))
            .await
            .is_err()
    }

    async fn read(&mut self) -> usize {
        // A reset counts as a close.
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.early)).await;
        read.expect("waited in vain for the bridge").unwrap_or(0)
    }
}

/// A signed request to `acme`.
pub(super) fn signed(body: &str) -> Vec<u8> {
    post(
        "acme",
        &[("x-dd-signature", &sign(SECRET.as_bytes(), body.as_bytes()))],
        body,
    )
}

/// A request with a `content-length`.
pub(super) fn post(source: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut request = head(source, headers);
    request.extend(format!("content-length: {}\r\n\r\n{body}", body.len()).into_bytes());
    request
}

/// The head of a request, without the blank line at its end.
pub(super) fn head(source: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!("POST /webhooks/{source} HTTP/1.1\r\nhost: bridge\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.into_bytes()
}

/// One session.
pub(super) fn session(id: &str) -> String {
    format!(r#"{{"id":"{id}","status":"created"}}"#)
}

/// Serves this router on a free port.
pub(super) async fn serve(
    router: Router,
    limits: ConnectionLimits,
    stop: Stop,
) -> (SocketAddr, JoinHandle<()>) {
    let refusals = RequestRefusals::of("http", Arc::default());
    serve_refusing(router, limits, stop, refusals).await
}

async fn serve_refusing(
    router: Router,
    limits: ConnectionLimits,
    stop: Stop,
    refusals: Arc<RequestRefusals>,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (
        address,
        tokio::spawn(server::serve(listener, router, limits, stop, refusals)),
    )
}

/// Waits until `is_so` returns true.
pub(super) async fn eventually(mut is_so: impl FnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("waited in vain");
}

/// A value of the public listener's metrics.
pub(super) fn metric(metrics: &Metrics, series: &str) -> Option<String> {
    let page = classic(&[metrics.registry()]);
    page.lines().find_map(|line| {
        line.strip_prefix(series)?
            .strip_prefix(' ')
            .map(str::to_owned)
    })
}

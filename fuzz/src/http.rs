//! Sends bytes to the real listener. Every status code is an expected one. A webhook is stored once
//! if it is answered 202, and otherwise not. Nothing is stored without a valid signature.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deskbridge::config::http::Http;
use deskbridge::http::event_store::EventStore;
use deskbridge::http::ingress::Ingress;
use deskbridge::http::limits::{ConnectionLimits, Stop};
use deskbridge::http::refused::RequestRefusals;
use deskbridge::http::server::serve;
use deskbridge::http::sources::{Source, Sources};
use deskbridge::journal::WriteError;
use deskbridge::telemetry::status::{DiskStatus, Totals};
use deskbridge::telemetry::traces::Traces;
use deskbridge::webhook::Webhook;
use deskbridge::webhook::signature::{HEADER, Keys, sign};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use uuid::Uuid;

use super::json::{Expected, expected};

/// Expected status codes: none that means a full disk, a slow journal or a bug (5xx).
const STATUSES: [u16; 11] = [100, 202, 400, 401, 404, 405, 408, 413, 414, 415, 431];
const SESSIONS_MAX: usize = 50;
const SECOND: &[u8] = br#"[{"id":"the second","status":"created"}]"#;

/// Checks an input: one byte that selects the check, then either the bytes of a connection, or
/// header lines and, after a NUL, a body.
///
/// # Panics
/// If the input violates a property of this module.
pub fn check(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else {
        return;
    };
    let end = rest.iter().position(|byte| *byte == 0);
    let (head, body) = match end {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (rest, &[][..]),
    };
    BRIDGE.with(|bridge| {
        let bridge = bridge.get_or_init(Bridge::start);
        match mode % 4 {
            0 => bridge.check_raw(rest),
            1 => bridge.check_signed(head, body, true),
            2 => bridge.check_signed(head, body, false),
            _ => bridge.check_chunked(head, body),
        }
    });
}

thread_local! {
    static BRIDGE: OnceCell<Bridge> = const { OnceCell::new() };
}

/// The public listener with a journal that only keeps the latest webhooks in memory.
struct Bridge {
    runtime: Runtime,
    address: SocketAddr,
    /// Random in every process, so that no input can contain a valid signature.
    secret: String,
    shelf: Shelf,
}

#[derive(Debug, Clone, Default)]
struct Shelf(Arc<Mutex<Vec<Webhook>>>);

impl EventStore for Shelf {
    fn append(
        &self,
        webhook: Webhook,
        _reserved: Box<dyn Send>,
    ) -> impl Future<Output = Result<(), WriteError>> + Send + 'static {
        let held = Arc::clone(&self.0);
        async move {
            held.lock().expect("no panic before").push(webhook);
            Ok(())
        }
    }

    fn refusal(&self) -> Option<WriteError> {
        None
    }

    fn obstacle(&self) -> Option<String> {
        None
    }

    fn foreign_locks(&self) -> Option<String> {
        None
    }

    fn disk(&self) -> DiskStatus {
        DiskStatus::default()
    }

    fn totals(&self) -> Totals {
        Totals::default()
    }

    fn oldest_seconds(&self) -> f64 {
        0.0
    }
}

impl Bridge {
    fn start() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let secret = Uuid::new_v4().to_string();
        let shelf = Shelf::default();
        let source = |name: &str, keys| Source {
            name: name.into(),
            keys,
            awaits_secret: false,
            kept_secrets: Arc::default(),
            secret_names: Vec::new(),
        };
        let sources = [
            source("acme", Keys::new([&secret])),
            source("open", Keys::Unsigned),
        ];
        let config = Http {
            body_bytes_max: 16 << 10,
            buffered_bytes_max: 64 << 10,
            sessions_max: SESSIONS_MAX,
            ..Http::default()
        };
        let ingress = Ingress::new(
            &config,
            Sources::new(sources),
            shelf.clone(),
            Arc::default(),
            Traces::default(),
        );
        let router = ingress.router();
        let address = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            tokio::spawn(serve(
                listener,
                router,
                ConnectionLimits::of(&config),
                Stop::default(),
                RequestRefusals::of("http", Arc::default()),
            ));
            address
        });
        Self {
            runtime,
            address,
            secret,
            shelf,
        }
    }

    /// Sends raw bytes, none of which has a valid signature.
    fn check_raw(&self, bytes: &[u8]) {
        self.exchange(&[bytes]);
        for webhook in self.take() {
            assert_eq!(
                &*webhook.envelope.source, "open",
                "a forged webhook is stored"
            );
        }
    }

    /// Sends a signed request with header lines of the fuzzer, and then a second request.
    fn check_signed(&self, lines: &[u8], body: &[u8], is_first: bool) {
        let length = format!("content-length: {}\r\n", body.len());
        let lines = [lines, if lines.is_empty() { b"" } else { b"\r\n" }].concat();
        let (before, after) = if is_first {
            (&*lines, length.as_bytes())
        } else {
            (length.as_bytes(), &*lines)
        };
        let first = [&*self.head(body), before, after, b"\r\n", body].concat();
        let second = self.plain(SECOND);
        let answers = self.exchange(&[&first, &second]);
        let held = self.take();
        let bodies: [&[u8]; 2] = [body, SECOND];
        let mut left = bodies.iter();
        // The fuzzer's lines may end the headers and begin a request to the unsigned source.
        let is_signed = |webhook: &&Webhook| &*webhook.envelope.source != "open";
        for webhook in held.iter().filter(is_signed) {
            assert_eq!(&*webhook.envelope.source, "acme");
            let is_of = |body: &&&[u8]| is_made_of(webhook, body);
            assert!(
                left.find(is_of).is_some(),
                "stored, but never signed: {webhook:?}"
            );
        }
        if lines.is_empty() {
            let first = match expected(body, SESSIONS_MAX) {
                _ if body.len() > 16 << 10 => 413,
                Expected::TooMany => 413,
                _ => 202,
            };
            assert_eq!(answers.first(), Some(&first));
            assert!(first == 413 || answers == [202, 202], "{answers:?}");
        }
    }

    /// Sends a signed body in chunks of the given sizes, each in its own packet.
    fn check_chunked(&self, sizes: &[u8], body: &[u8]) {
        let mut head = self.head(body);
        head.extend(b"transfer-encoding: chunked\r\n\r\n");
        let mut packets = vec![head];
        let mut rest = body;
        for size in sizes.iter().chain(std::iter::repeat(&255)) {
            if rest.is_empty() {
                break;
            }
            let size = usize::from(*size).clamp(1, rest.len());
            let (chunk, later) = rest.split_at(size);
            packets.push([format!("{size:x}\r\n").as_bytes(), chunk, b"\r\n"].concat());
            rest = later;
        }
        packets.push(b"0\r\n\r\n".to_vec());
        let packets: Vec<_> = packets.iter().map(|packet| &**packet).collect();
        let answers = self.exchange(&packets);
        let is_too_much =
            body.len() > 16 << 10 || expected(body, SESSIONS_MAX) == Expected::TooMany;
        assert_eq!(answers, [if is_too_much { 413 } else { 202 }]);
        for webhook in self.take() {
            assert!(is_made_of(&webhook, body), "another body is stored");
        }
    }

    /// Request line, `host` header and signature header.
    fn head(&self, body: &[u8]) -> Vec<u8> {
        let signature = sign(self.secret.as_bytes(), body);
        let head = "POST /webhooks/acme HTTP/1.1\r\nhost: bridge\r\n";
        format!("{head}{HEADER}: {signature}\r\n").into_bytes()
    }

    fn plain(&self, body: &[u8]) -> Vec<u8> {
        let length = format!("content-length: {}\r\n\r\n", body.len());
        [&*self.head(body), length.as_bytes(), body].concat()
    }

    /// Takes the webhooks that were stored since the last call.
    fn take(&self) -> Vec<Webhook> {
        std::mem::take(&mut *self.shelf.0.lock().expect("no panic before"))
    }

    /// Sends packets on a new connection, shuts down its sending side, and returns the status codes
    /// received until the bridge closes the connection.
    fn exchange(&self, packets: &[&[u8]]) -> Vec<u16> {
        let talk = async {
            let socket = TcpSocket::new_v4().expect("a socket");
            // Avoids TIME_WAIT: the kernel forgets the connection when it is closed.
            socket.set_zero_linger().expect("a socket option");
            socket.set_nodelay(true).expect("a socket option");
            let stream = socket.connect(self.address).await.expect("a connection");
            let (mut reading, mut writing) = stream.into_split();
            let write = async {
                for packet in packets {
                    if writing.write_all(packet).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                _ = writing.shutdown().await;
            };
            let mut answers = Vec::new();
            // A reset is as good as a close.
            let read = async { _ = reading.read_to_end(&mut answers).await };
            tokio::join!(write, read);
            answers
        };
        let talk = async { timeout(Duration::from_secs(8), talk).await };
        let answers = self.runtime.block_on(talk).expect("the bridge closes");
        let statuses = statuses(&answers);
        for status in &statuses {
            assert!(STATUSES.contains(status), "{status}");
        }
        let held = self.shelf.0.lock().expect("no panic before").len();
        let accepted = statuses.iter().filter(|status| **status == 202).count();
        assert_eq!(held, accepted, "stored and answered 202");
        statuses
    }
}

/// The status codes of all answers on a connection. No answer's body contains a status line.
fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    let lines = text.split("HTTP/1.").skip(1);
    lines
        .filter_map(|line| line.strip_prefix(['0', '1'])?.get(1..4)?.parse().ok())
        .collect()
}

/// Whether the webhook consists of exactly the events of this body, in order.
fn is_made_of(webhook: &Webhook, body: &[u8]) -> bool {
    let events = webhook.events.iter().map(|event| &*event.body);
    match expected(body, SESSIONS_MAX) {
        Expected::Elements(ranges) => events.eq(ranges.into_iter().map(|range| &body[range])),
        Expected::Malformed => events.eq([body]),
        Expected::TooMany => false,
    }
}

//! Connections: timeouts, limits and evictions.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures_util::{StreamExt, stream};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use super::support::*;
use crate::config;
use crate::http::limits::{ConnectionLimits, Stop};
use crate::webhook::signature::sign;

fn limits() -> ConnectionLimits {
    ConnectionLimits::of(&config::http::Http::default())
}

#[tokio::test]
async fn connection_serves_pipelined_requests() {
    let bridge = Bridge::start().await;
    let mut client = bridge.connect().await;
    for id in 0..3 {
        client.send(&signed(&session(&id.to_string()))).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (202, None));
    }
    client
        .send(&[signed("[]"), signed(&session("4")), post("acme", &[], "[]")].concat())
        .await;
    assert_eq!(client.answer().await.status, 202);
    assert_eq!(client.answer().await.status, 202);
    assert_eq!(client.answer().await.status, 401);
    assert_eq!(bridge.held(), 4);
}

#[tokio::test]
async fn idle_connection_outlives_the_header_timeout() {
    let bridge =
        Bridge::tuned(|tuning| tuning.http.header_timeout = Duration::from_millis(100)).await;
    let mut client = bridge.connect().await;
    assert!(
        client.is_quiet_for(Duration::from_millis(300)).await,
        "closed before any request"
    );
    for _ in 0..2 {
        client.send(&signed("[]")).await;
        assert_eq!(client.answer().await.status, 202);
        assert!(
            client.is_quiet_for(Duration::from_millis(300)).await,
            "closed between requests"
        );
    }
}

#[tokio::test]
async fn unfinished_head_closes_the_connection() {
    let bridge =
        Bridge::tuned(|tuning| tuning.http.header_timeout = Duration::from_millis(300)).await;
    let mut client = bridge.connect().await;
    client.send(&signed("[]")).await;
    assert_eq!(client.answer().await.status, 202);
    sleep(Duration::from_millis(400)).await;
    // Every byte is in time, but the head is not: the timeout starts with its first byte.
    let started = Instant::now();
    for byte in "POST /webhooks".bytes() {
        client.send(&[byte]).await;
        if !client.is_quiet_for(Duration::from_millis(50)).await {
            break;
        }
    }
    assert_eq!(client.rest().await, "");
    let elapsed = started.elapsed();
    assert!(
        elapsed > Duration::from_millis(250),
        "closed after {elapsed:?}"
    );
    assert!(
        elapsed < Duration::from_millis(650),
        "closed after {elapsed:?}"
    );
}

#[tokio::test]
async fn idle_connection_is_closed_after_its_timeout() {
    let bridge =
        Bridge::tuned(|tuning| tuning.http.idle_timeout = Duration::from_millis(300)).await;
    let mut fresh = bridge.connect().await;
    let mut used = bridge.connect().await;
    used.send(&signed("[]")).await;
    assert_eq!(used.answer().await.status, 202);
    assert!(fresh.is_quiet_for(Duration::from_millis(100)).await);
    assert_eq!(fresh.rest().await, "");
    assert_eq!(used.rest().await, "");
}

#[tokio::test]
async fn unread_answer_closes_the_connection() {
    let router = Router::new().route("/", get(async || "x".repeat(64 << 20)));
    let answer_timeout = Duration::from_millis(300);
    let limits = ConnectionLimits {
        answer_timeout,
        ..limits()
    };
    let (address, _server) = serve(router, limits, Stop::default()).await;
    let mut client = Client::connect(address).await;
    client.send(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n").await;
    sleep(Duration::from_millis(600)).await;
    let rest = client.rest().await;
    assert!(rest.len() < 64 << 20, "everything was waiting");
}

#[tokio::test]
async fn pause_within_an_answer_is_not_idle() {
    let parts = stream::iter(["first", "second"]).then(async |part| {
        sleep(Duration::from_millis(300)).await;
        Ok::<_, Infallible>(part)
    });
    let parts = Arc::new(Mutex::new(Some(Body::from_stream(parts.boxed()))));
    let router = Router::new().route(
        "/",
        get(async move || parts.lock().unwrap().take().unwrap()),
    );
    let limits = ConnectionLimits::of(&config::http::Http {
        idle_timeout: Duration::from_millis(100),
        ..config::http::Http::default()
    });
    let (address, _server) = serve(router, limits, Stop::default()).await;
    let mut client = Client::connect(address).await;
    client.send(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n").await;
    let rest = client.rest().await;
    assert!(
        rest.contains("first") && rest.ends_with("second\r\n0\r\n\r\n"),
        "{rest}"
    );
}

#[tokio::test]
async fn at_the_limit_the_least_progress_is_evicted() {
    let bridge = Bridge::tuned(|tuning| tuning.http.connections_max = 3).await;
    bridge.shelf.disk.send_replace(Disk::Hangs);
    let mut busy = bridge.connect().await;
    busy.send(&signed("[]")).await;
    sleep(Duration::from_millis(50)).await;
    let mut oldest = bridge.connect().await;
    oldest.send(b"POST /webhooks/acme HTT").await;
    sleep(Duration::from_millis(50)).await;
    let mut younger = bridge.connect().await;
    sleep(Duration::from_millis(50)).await;

    let mut newest = bridge.connect().await;
    assert_eq!(oldest.rest().await, "");
    assert!(younger.is_quiet_for(Duration::from_millis(100)).await);
    bridge.shelf.disk.send_replace(Disk::Writes);
    assert_eq!(busy.answer().await.status, 202);
    for client in [&mut newest, &mut younger, &mut busy] {
        client.send(&signed("[]")).await;
        assert_eq!(client.answer().await.status, 202);
    }
}

#[tokio::test]
async fn new_connection_waits_while_all_are_verified() {
    let bridge = Bridge::tuned(|tuning| tuning.http.connections_max = 2).await;
    bridge.shelf.disk.send_replace(Disk::Hangs);
    let mut busy = [bridge.connect().await, bridge.connect().await];
    for client in &mut busy {
        client.send(&signed("[]")).await;
    }
    sleep(Duration::from_millis(50)).await;
    let mut newcomer = bridge.connect().await;
    newcomer.send(&signed("[]")).await;
    assert!(newcomer.is_quiet_for(Duration::from_millis(300)).await);
    bridge.shelf.disk.send_replace(Disk::Writes);
    for client in &mut busy {
        assert_eq!(client.answer().await.status, 202);
    }
    assert_eq!(newcomer.answer().await.status, 202);
}

/// A head with a well-formed wrong signature, and one byte of a body.
fn forged_and_unfinished() -> Vec<u8> {
    let signature = sign(b"not the secret of anybody", b"");
    let mut request = head("acme", &[("x-dd-signature", &signature)]);
    request.extend(b"content-length: 100\r\n\r\n[");
    request
}

/// Whether the bridge has accepted this client and read everything that it has sent.
fn is_read(bridge: &Bridge, client: &Client) -> bool {
    let hex = |address: SocketAddr| {
        let SocketAddr::V4(address) = address else {
            panic!("{address} is not in /proc/net/tcp");
        };
        let ip = u32::from_ne_bytes(address.ip().octets());
        format!("{ip:08X}:{:04X}", address.port())
    };
    let ends = [bridge.address, client.stream.local_addr().unwrap()].map(hex);
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    sockets.lines().any(|line| {
        // Local and remote address, state, sizes of the send and receive queues.
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1..3] == ends && fields[4].ends_with(":00000000")
    })
}

#[tokio::test]
async fn evicted_requests_are_counted() {
    let bridge = Bridge::tuned(|tuning| tuning.http.connections_max = 3).await;
    let series = "deskbridge_http_refused_total{reason=\"evicted\"}";
    let evicted = || metric(&bridge.metrics, series).unwrap();
    assert_eq!(evicted(), "0");
    let head = b"POST /webhooks/acme HTT".to_vec();
    let mut strangers = Vec::new();
    for sent in [Vec::new(), head, forged_and_unfinished()] {
        let mut client = bridge.connect().await;
        client.send(&sent).await;
        eventually(|| is_read(&bridge, &client)).await;
        strangers.push(client);
    }
    // A connection that has sent an authentic request is evicted after those that have not.
    let mut genuine = Vec::new();
    let started = Instant::now();
    for _ in 0..3 {
        let mut client = bridge.connect().await;
        client.send(&signed("[]")).await;
        assert_eq!(client.answer().await.status, 202);
        genuine.push(client);
    }
    assert!(started.elapsed() < Duration::from_secs(1));
    for stranger in &mut strangers {
        assert_eq!(stranger.rest().await, "");
    }
    // A connection without a byte is not counted as a request.
    eventually(|| evicted() == "2").await;
    for client in &mut genuine {
        client.send(&signed("[]")).await;
        assert_eq!(client.answer().await.status, 202);
    }
    assert_eq!(evicted(), "2");
}

#[tokio::test]
async fn received_request_keeps_its_connection() {
    let bridge = Bridge::tuned(|tuning| tuning.http.connections_max = 1).await;
    for _ in 0..20 {
        let mut first = bridge.connect().await;
        first.send(&signed("[]")).await;
        let _second = bridge.connect().await;
        assert_eq!(first.answer().await.status, 202);
    }
}

#[tokio::test]
async fn authentic_kept_connection_outlives_others() {
    let bridge = Bridge::tuned(|tuning| tuning.http.connections_max = 4).await;
    let mut genuine = bridge.connect().await;
    let mut strangers = Vec::new();
    for _ in 0..20 {
        genuine.send(&signed("[]")).await;
        assert_eq!(genuine.answer().await.status, 202);
        let mut stranger = bridge.connect().await;
        stranger.send(&forged_and_unfinished()).await;
        strangers.push(stranger);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn connections_with_unread_answers_are_evicted() {
    let bridge = Bridge::tuned(|tuning| tuning.http.connections_max = 3).await;
    let asked = "GET /nothing HTTP/1.1\r\nhost: b\r\n\r\n".repeat(100);
    let mut deaf = Vec::new();
    for _ in 0..3 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(1024).unwrap();
        let mut stream = socket.connect(bridge.address).await.unwrap();
        // Until the bridge reads nothing more, because no answer is read.
        let mut is_taken = true;
        while is_taken {
            let write = stream.write_all(asked.as_bytes());
            is_taken = timeout(Duration::from_millis(500), write).await.is_ok();
        }
        deaf.push(stream);
    }
    for _ in 0..5 {
        let answer = timeout(Duration::from_secs(5), bridge.ask(&signed("[]"))).await;
        assert_eq!(answer.expect("waits for a slot").status, 202);
    }
}

/// Strangers arrive as fast as the bridge accepts them: within the genuine sender's pauses, many
/// times as many as there are slots.
#[tokio::test]
async fn slow_request_outlives_silent_connections() {
    const CONNECTIONS_MAX: usize = 64;
    let bridge = Bridge::tuned(|tuning| tuning.http.connections_max = CONNECTIONS_MAX).await;
    let arrived = Arc::new(AtomicUsize::new(0));
    let (address, count) = (bridge.address, Arc::clone(&arrived));
    let flood = tokio::spawn(async move {
        let mut strangers = VecDeque::new();
        loop {
            strangers.push_back(Client::connect(address).await);
            count.fetch_add(1, Ordering::Relaxed);
            if strangers.len() > 2 * CONNECTIONS_MAX {
                strangers.pop_front();
            }
        }
    });
    let request = signed("[]");
    let mut genuine = bridge.connect().await;
    // The head is complete first, then the body.
    for (part, pause_ms) in [
        (&request[..request.len() - 2], 300),
        (b"[", 1200),
        (b"]", 0),
    ] {
        genuine.send(part).await;
        let (sent, before) = (Instant::now(), arrived.load(Ordering::Relaxed));
        eventually(|| {
            let connections = if pause_ms > 0 {
                10 * CONNECTIONS_MAX
            } else {
                0
            };
            sent.elapsed() >= Duration::from_millis(pause_ms)
                && arrived.load(Ordering::Relaxed) >= before + connections
        })
        .await;
    }
    assert_eq!(genuine.answer().await.status, 202);
    flood.abort();
}

#[tokio::test]
async fn client_gets_at_most_its_share() {
    let bridge = Bridge::tuned(|tuning| tuning.http.connections_per_client_max = Some(2)).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(bridge.connect().await);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(clients[0].rest().await, "");
    for client in &mut clients[1..] {
        client.send(&signed("[]")).await;
        assert_eq!(client.answer().await.status, 202);
    }
    let proxied = Bridge::tuned(|tuning| {
        tuning.http.connections_per_client_max = Some(2);
        tuning.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(proxied.connect().await);
    }
    for client in &mut clients {
        client.send(&signed("[]")).await;
        assert_eq!(client.answer().await.status, 202);
    }
}

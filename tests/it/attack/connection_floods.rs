//! Many connections: hundreds of slow ones, and thousands that come and go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use super::genuine_sender::{Genuine, alone, calm};
use super::size;
use crate::support::bridge::run::Bridge;
use crate::support::sender::{SECRET, sign};
use crate::support::wait::{SOON, eventually};

const MEMORY_BYTES_MAX: u64 = 64 << 20;

fn descriptors(bridge: &Bridge) -> usize {
    let dir = format!("/proc/{}/fd", bridge.pid());
    std::fs::read_dir(dir).unwrap().count()
}

/// Memory was bounded, and the descriptors of the attackers are closed.
async fn check_resources(bridge: &Bridge, at_rest: usize) {
    let most = bridge.rss_bytes_max();
    assert!(most <= MEMORY_BYTES_MAX, "{most} bytes");
    eventually("their descriptors are closed", SOON, || async {
        descriptors(bridge) <= at_rest + 4
    })
    .await;
}

/// Clients that continue until they are stopped.
#[derive(Default)]
struct Crowd {
    is_stopped: AtomicBool,
    opened: AtomicUsize,
    closed_by_bridge: AtomicUsize,
}

impl Crowd {
    fn is_over(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

/// Opens one slow connection after the other; `number` chooses how it begins and whether it
/// continues byte by byte.
async fn be_slow(bridge: SocketAddr, number: usize, crowd: Arc<Crowd>) {
    let body = "[]".repeat(500);
    let post = "POST /webhooks/deskdirector HTTP/1.1\r\nhost: slow\r\n";
    let signature = sign(SECRET, body.as_bytes());
    let (begin, drip) = match number % 4 {
        0 => (format!("{post}x: "), true),
        1 => (
            format!("{post}x-dd-signature: {signature}\r\ncontent-length: 1000\r\n\r\n["),
            true,
        ),
        // Requests hundreds of answers and reads none of them.
        2 => (
            "GET /nothing HTTP/1.1\r\nhost: slow\r\n\r\n".repeat(500),
            false,
        ),
        _ => (String::new(), false),
    };
    while !crowd.is_over() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(1024).unwrap();
        let Ok(mut stream) = socket.connect(bridge).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        crowd.opened.fetch_add(1, Ordering::Relaxed);
        let write = stream.write_all(begin.as_bytes());
        _ = timeout(Duration::from_millis(500), write).await;
        let mut byte = [0];
        while !crowd.is_over() {
            if drip && stream.write_all(b"x").await.is_err() {
                break;
            }
            let end = timeout(Duration::from_secs(1), stream.read(&mut byte)).await;
            if matches!(end, Ok(Ok(0) | Err(_))) {
                break;
            }
            if end.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        }
        if !crowd.is_over() {
            crowd.closed_by_bridge.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_connections_delay_no_webhook() {
    let timeouts = "http.header_timeout = \"2s\"\nhttp.body_timeout = \"2s\"";
    let bridge = alone().with(size(timeouts, "")).start().await;
    let before = calm(&bridge).await;
    let at_rest = descriptors(&bridge);
    let crowd = Arc::new(Crowd::default());
    let clients: Vec<_> = (0..900)
        .map(|number| tokio::spawn(be_slow(bridge.address(), number, Arc::clone(&crowd))))
        .collect();
    eventually("all attackers are connected", SOON, || async {
        crowd.opened.load(Ordering::Relaxed) >= 900 && descriptors(&bridge) >= 700
    })
    .await;
    let genuine = Genuine::start(bridge.address());
    if size(true, false) {
        // The timeouts close the slow connections again and again.
        eventually("slow connections are closed", 3 * SOON, || async {
            crowd.closed_by_bridge.load(Ordering::Relaxed) > 225
        })
        .await;
    }
    genuine.goes_on(50, Duration::from_mins(1)).await;
    let answers = genuine.stop().await;
    crowd.is_stopped.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    answers.report("900 slow connections", &before);
    let closed = crowd.closed_by_bridge.load(Ordering::Relaxed);
    assert!(closed > 225, "only {closed} slow connections were closed");
    check_resources(&bridge, at_rest).await;
}

/// One short connection: it does something and closes, gracefully or not.
async fn come_and_go(bridge: SocketAddr, number: usize) -> bool {
    let socket = TcpSocket::new_v4().unwrap();
    if number.is_multiple_of(2) {
        socket.set_zero_linger().unwrap();
    }
    let connect = timeout(Duration::from_secs(5), socket.connect(bridge));
    let Ok(Ok(mut stream)) = connect.await else {
        return false;
    };
    let forged = "POST /webhooks/deskdirector HTTP/1.1\r\nhost: crowd\r\nx-dd-signature: \
                  sha256=0000000000000000000000000000000000000000000000000000000000000000\r\n\
                  content-length: 2\r\n\r\n[]";
    let length = [0, 0, 10, 60, forged.len()][number % 5];
    _ = stream.write_all(&forged.as_bytes()[..length]).await;
    if length == forged.len() {
        let mut answer = [0; 512];
        _ = timeout(Duration::from_secs(5), stream.read(&mut answer)).await;
    } else if number.is_multiple_of(3) {
        // Stays until the bridge evicts it or two seconds are over.
        let mut byte = [0];
        _ = timeout(Duration::from_secs(2), stream.read(&mut byte)).await;
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn short_connections_delay_no_webhook() {
    // At the small scale there are fewer connection slots than clients, so connections are evicted
    // all the time. At full scale the clients arrive within a minute and there is a slot for each.
    let seats = size("http.connections_max = 64", "");
    let pause = size(Duration::ZERO, Duration::from_secs(3));
    let bridge = alone().with(seats).start().await;
    let before = calm(&bridge).await;
    let at_rest = descriptors(&bridge);
    let guests = size(1500, 5000);
    let genuine = Genuine::start(bridge.address());
    let (next, seated) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let address = bridge.address();
    let doors: Vec<_> = (0..size(100, 300))
        .map(|_| {
            let (next, seated) = (Arc::clone(&next), Arc::clone(&seated));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= guests {
                        return;
                    }
                    let is_seated = come_and_go(address, number).await;
                    seated.fetch_add(usize::from(is_seated), Ordering::Relaxed);
                    sleep(pause).await;
                }
            })
        })
        .collect();
    for door in doors {
        door.await.unwrap();
    }
    let answers = genuine.stop().await;
    answers.report(&format!("{guests} connections that come and go"), &before);
    let seated = seated.load(Ordering::Relaxed);
    assert!(
        seated > guests * 9 / 10,
        "only {seated} of {guests} clients could connect"
    );
    assert!(
        answers.count() > 10,
        "the flood ended before genuine webhooks were sent"
    );
    check_resources(&bridge, at_rest).await;
}

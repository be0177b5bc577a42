//! Strangers: they know the address, but no secret. Each attack is limited in time, connections and
//! bytes. A stranger whose connection is closed reconnects until the attack ends.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Evidence;
use crate::event::FORGED_MARK;
use crate::ledger::Strangers;
use crate::schedule::{Kind, Planned};
use crate::stage::Stage;
use crate::support::sender::PATH;

const LASTS_MIN: Duration = Duration::from_secs(2);
const CONNECT_MAX: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(100);
const DRIP: Duration = Duration::from_secs(1);

const IDLE: usize = 1100;
const LARGE: usize = 4;
const LARGE_BYTES: usize = 10_000_000;
const FAT: usize = 1020;
const FAT_BYTES: usize = 30 << 10;
const FOREIGN: usize = 60;
const FORGERS: usize = 8;
const RESTLESS: usize = 100;

/// What a stranger sends, and what it does then.
#[derive(Clone)]
struct Part {
    says: Arc<[u8]>,
    then: Then,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// Sends one more byte per second until it is closed.
    Drips,
    /// Reads the answer and sends the same again.
    Repeats,
    /// Closes without waiting for anything.
    Leaves,
}

#[derive(Default)]
struct Crowd {
    opened: AtomicU64,
    /// How often they were answered with an error, or closed.
    refused: AtomicU64,
    accepted: AtomicU64,
}

pub(super) async fn inject(stage: &Stage, planned: &Planned) -> Evidence {
    let end = Instant::now() + planned.lasts.max(LASTS_MIN);
    let crowd = Arc::new(Crowd::default());
    let mut strangers = JoinSet::new();
    for part in cast(planned.kind) {
        strangers.spawn(play(stage.desk.server(), part, Arc::clone(&crowd), end));
    }
    let wanted = strangers.len() as u64;
    while let Some(played) = strangers.join_next().await {
        played.map_err(|error| error.to_string())?;
    }
    let [opened, refused, accepted] =
        [&crowd.opened, &crowd.refused, &crowd.accepted].map(|count| count.load(Ordering::Relaxed));
    let mut history = stage.ledger.history();
    history.strangers += Strangers { opened, refused };
    if accepted > 0 {
        *history.forged.entry(202).or_default() += accepted;
    }
    drop(history);
    let evidence = format!("{opened} connections opened, {refused} times refused");
    // The bridge may be down for part of the time.
    if opened >= wanted / 2 {
        Ok(evidence)
    } else {
        Err(format!("{evidence}, with {wanted} strangers"))
    }
}

fn cast(kind: Kind) -> Vec<Part> {
    match kind {
        Kind::IdleBodies => idle_bodies(),
        Kind::LargeBodies => large_bodies(),
        Kind::FatHeads => fat_heads(),
        Kind::ForeignBytes => foreign_bytes(),
        Kind::ForgedWebhooks => forged_webhooks(),
        Kind::Restless => restless(),
        _ => [idle_bodies(), large_bodies(), fat_heads()].concat(),
    }
}

fn crowd(says: &[u8], then: Then, count: usize) -> Vec<Part> {
    let says = says.into();
    vec![Part { says, then }; count]
}

fn head(length: usize) -> String {
    let wrong = "ab".repeat(32);
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: stranger\r\nx-dd-signature: sha256={wrong}\r\n\
         content-length: {length}\r\n\r\n"
    )
}

fn forged_body() -> String {
    format!(r#"[{{"id":"{FORGED_MARK}","status":"created"}}]"#)
}

fn idle_bodies() -> Vec<Part> {
    crowd(format!("{}[", head(100)).as_bytes(), Then::Drips, IDLE)
}

/// Bodies without their last bytes, which the stranger sends one per second.
fn large_bodies() -> Vec<Part> {
    let mut says = head(LARGE_BYTES).into_bytes();
    says.extend(forged_body().bytes().cycle().take(LARGE_BYTES - 100));
    crowd(&says, Then::Drips, LARGE)
}

fn fat_heads() -> Vec<Part> {
    let mut says = format!("POST {PATH} HTTP/1.1\r\nhost: stranger\r\n");
    for number in 0.. {
        if says.len() >= FAT_BYTES {
            break;
        }
        let value = "y".repeat(1000);
        write!(says, "x-fat-{number}: {value}\r\n").expect("memory");
    }
    says += "x-last: ";
    crowd(says.as_bytes(), Then::Drips, FAT)
}

fn foreign_bytes() -> Vec<Part> {
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a hello of TLS, as far as it goes";
    let proxy = format!(
        "PROXY TCP4 192.0.2.1 192.0.2.2 40000 8080\r\n{}",
        head(2) + "[]"
    );
    let proxy_2 =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x9c\x40\x1f\x90";
    let garbage: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let all: [&[u8]; 4] = [tls, proxy.as_bytes(), proxy_2, &garbage];
    let parts = all.map(|says| crowd(says, Then::Drips, FOREIGN / all.len()));
    parts.concat()
}

fn forged_webhooks() -> Vec<Part> {
    let body = forged_body();
    crowd(
        (head(body.len()) + &body).as_bytes(),
        Then::Repeats,
        FORGERS,
    )
}

fn restless() -> Vec<Part> {
    let whole = head(2) + "[]";
    let parts = [0, 1, 10, 60, whole.len()]
        .map(|length| crowd(&whole.as_bytes()[..length], Then::Leaves, RESTLESS / 5));
    parts.concat()
}

async fn play(bridge: SocketAddr, part: Part, crowd: Arc<Crowd>, end: Instant) {
    while Instant::now() < end {
        if let Ok(Ok(stream)) = timeout(CONNECT_MAX, TcpStream::connect(bridge)).await {
            crowd.opened.fetch_add(1, Ordering::Relaxed);
            // At the end of the attack the connection is closed, whatever its state.
            _ = timeout_at(end, visit(stream, &part, &crowd)).await;
        }
        sleep(AGAIN).await;
    }
}

/// One connection, until the bridge or the stranger closes it.
async fn visit(mut stream: TcpStream, part: &Part, crowd: &Crowd) {
    let mut answer = [0; 1024];
    loop {
        if stream.write_all(&part.says).await.is_err() {
            crowd.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if part.then == Then::Leaves {
            return;
        }
        let read = loop {
            match timeout(DRIP, stream.read(&mut answer)).await {
                Ok(read) => break read.unwrap_or(0),
                Err(_) if part.then == Then::Repeats => {}
                Err(_) => _ = stream.write_all(b"y").await,
            }
        };
        let is_accepted = answer[..read].starts_with(b"HTTP/1.1 2");
        let count = if is_accepted {
            &crowd.accepted
        } else {
            &crowd.refused
        };
        count.fetch_add(1, Ordering::Relaxed);
        if read == 0 || part.then != Then::Repeats {
            return;
        }
    }
}

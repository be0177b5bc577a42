//! Faults of the network between bridge and broker.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::broker::seen;
use super::{Evidence, SHOWS_WITHIN, last};
use crate::schedule::{Kind, Planned};
use crate::stage::{Stage, until};
use crate::support::proxy::{Direction, Proxy};

const BYTES_PER_SECOND: u64 = 2000;
const PROBE_MAX: Duration = Duration::from_secs(5);

pub(super) async fn inject(stage: &Stage, planned: &Planned) -> Evidence {
    let proxy = &stage.proxy;
    if !until(SHOWS_WITHIN, async || proxy.connections_open() > 0).await {
        return Err("there was no connection to disturb".into());
    }
    let evidence = disturb(proxy, planned).await;
    proxy.pass();
    evidence
}

async fn disturb(proxy: &Proxy, planned: &Planned) -> Evidence {
    let before = proxy.connections();
    match planned.kind {
        Kind::CutReset => {
            proxy.cut();
            reconnected(proxy, before).await
        }
        Kind::CutClose => {
            proxy.close();
            reconnected(proxy, before).await
        }
        Kind::CutAfterBytes => {
            let direction = if planned.dice.is_multiple_of(2) {
                Direction::Up
            } else {
                Direction::Down
            };
            let cuts = proxy.cuts();
            // Confirms are short, so few bytes go down.
            let most = if direction == Direction::Up {
                60_000
            } else {
                600
            };
            proxy.cut_after_bytes((planned.dice >> 8) % most + 1, direction);
            let is_cut = until(SHOWS_WITHIN, async || proxy.cuts() > cuts).await;
            seen(is_cut, "the byte came and the connection was cut")
        }
        Kind::BlackholeUp => blackhole(proxy, planned, &[Direction::Up]).await,
        Kind::BlackholeDown => blackhole(proxy, planned, &[Direction::Down]).await,
        Kind::BlackholeBoth => blackhole(proxy, planned, &[Direction::Up, Direction::Down]).await,
        Kind::StallUp => stall(proxy, planned, Direction::Up).await,
        Kind::StallDown => stall(proxy, planned, Direction::Down).await,
        Kind::Latency => {
            let delay = Duration::from_millis(5 + planned.dice % 300);
            proxy.delay(delay);
            let answered = probe(proxy).await;
            last(planned).await;
            let is_late = answered.is_some_and(|took| took >= delay * 2);
            seen(is_late, format!("an answer took {answered:?}"))
        }
        Kind::Throttle => {
            proxy.throttle(BYTES_PER_SECOND);
            // The protocol greeting has some 500 bytes.
            let answered = probe(proxy).await;
            last(planned).await;
            let is_slow = answered.is_some_and(|took| took >= Duration::from_millis(150));
            seen(is_slow, format!("an answer took {answered:?}"))
        }
        Kind::Slicer => {
            let slices = proxy.slices();
            proxy.slice();
            last(planned).await;
            let is_sliced = until(SHOWS_WITHIN, async || proxy.slices() > slices).await;
            seen(is_sliced, "bytes passed one by one")
        }
        _ => {
            proxy.refuse();
            let is_closed = until(SHOWS_WITHIN, async || proxy.connections_open() == 0).await;
            let answered = probe(proxy).await;
            last(planned).await;
            let evidence = "nothing was connected, and nothing answered";
            seen(is_closed && answered.is_none(), evidence)
        }
    }
}

async fn reconnected(proxy: &Proxy, before: usize) -> Evidence {
    let is_new = until(SHOWS_WITHIN, async || proxy.connections() > before).await;
    seen(is_new, "the bridge connected again")
}

async fn blackhole(proxy: &Proxy, planned: &Planned, directions: &[Direction]) -> Evidence {
    let before = proxy.swallowed();
    for direction in directions {
        proxy.blackhole(*direction);
    }
    last(planned).await;
    let is_lost = until(SHOWS_WITHIN, async || proxy.swallowed() > before).await;
    seen(is_lost, "bytes were swallowed")
}

async fn stall(proxy: &Proxy, planned: &Planned, direction: Direction) -> Evidence {
    proxy.stall(direction);
    tokio::time::sleep(Duration::from_millis(20)).await; // for bytes that are just being written
    let before = proxy.bytes(direction);
    last(planned).await;
    let passed = proxy.bytes(direction) - before;
    seen(passed == 0, format!("{passed} bytes passed"))
}

/// Sends the AMQP greeting to the broker through the proxy; returns how long the answer took.
async fn probe(proxy: &Proxy) -> Option<Duration> {
    let begin = Instant::now();
    let asking = async {
        let mut stream = TcpStream::connect(proxy.address()).await.ok()?;
        stream.write_all(b"AMQP\0\0\x09\x01").await.ok()?;
        let mut frame = [0; 400];
        stream.read_exact(&mut frame).await.ok()?;
        Some(begin.elapsed())
    };
    tokio::time::timeout(PROBE_MAX, asking).await.ok()?
}

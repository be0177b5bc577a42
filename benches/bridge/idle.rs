//! Startup time, size, and the cost of an idle bridge.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::bodies::{Elements, Shape};
use crate::cost::{self, Cost};
use crate::place::Place;
use crate::results::rounded;
use crate::sender::read_answer;
use crate::settings::Settings;
use crate::statistics::{float, median};
use crate::support::bridge::run::Bridge;
use crate::support::sender::signed_head;

const PAUSE: Duration = Duration::from_millis(1);
const START_MAX: Duration = Duration::from_mins(1);

/// Measures all of these.
pub async fn measure(place: &Place, settings: &Settings) -> Value {
    let mut starts = Vec::new();
    for _ in 0..settings.rounds {
        let mut bridge = place.bridge().build();
        starts.push(first_answer(&mut bridge).await);
        bridge.terminate().await;
    }
    let mut bridge = place.working_bridge("", "quorum").await;
    let span = Duration::from_secs(settings.seconds as u64);
    tokio::time::sleep(span / 2).await;
    let (switches, used) = (
        cost::voluntary_switches(bridge.pid()),
        Cost::of(bridge.pid()),
    );
    tokio::time::sleep(span).await;
    let switches = cost::voluntary_switches(bridge.pid()) - switches;
    let used = used.since(bridge.pid()).as_secs_f64();
    let resident = cost::resident_mib(bridge.pid());
    let peak = cost::peak_mib(bridge.pid());
    bridge.terminate().await;
    json!({
        "first_answer_ms": rounded(median(starts.iter().copied())),
        "rounds_first_answer_ms": starts.into_iter().map(rounded).collect::<Vec<_>>(),
        "binary_mb": rounded(binary_mb()),
        "wakeups_per_second": rounded(switches / span.as_secs_f64()),
        "cpu_percent": rounded(100.0 * used / span.as_secs_f64()),
        "resident_mib": rounded(resident),
        "peak_mib": rounded(peak),
    })
}

/// Starts a bridge; returns the milliseconds until its first 202.
pub async fn first_answer(bridge: &mut Bridge) -> f64 {
    let body = Elements::new(Shape::default()).array(0..1);
    let request = [signed_head(&body).as_bytes(), &body].concat();
    let begin = Instant::now();
    bridge.spawn();
    let mut stream = loop {
        match TcpStream::connect(bridge.address()).await {
            Ok(stream) => break stream,
            Err(error) => assert!(begin.elapsed() < START_MAX, "no start: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    };
    stream.write_all(&request).await.expect("sent");
    read_answer(&mut stream, &mut [0; 4096]).await;
    begin.elapsed().as_secs_f64() * 1e3
}

/// Size of the binary in 10⁶ bytes, the unit of the target.
fn binary_mb() -> f64 {
    let binary = std::fs::metadata(env!("CARGO_BIN_EXE_deskbridge")).expect("the binary");
    float(usize::try_from(binary.len()).unwrap_or_default()) / 1e6
}

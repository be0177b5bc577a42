//! Is the cost of a session independent of the amount of work? Each series increases one quantity
//! and keeps the others constant.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bodies::Shape;
use crate::cost::{self, Cost};
use crate::place::{ARRAY, CONNECTIONS, Place, finished, send, timed};
use crate::results::rounded;
use crate::sender::{Load, Pace};
use crate::settings::Settings;
use crate::statistics::{float, median};
use crate::support::bridge::run::Bridge;

const QUEUE: &str = "quorum";
const ROUNDS: usize = 3;
/// Sessions before the measurement starts.
const WARM: usize = 2_000;
/// Bytes per element in the series of arrays: 10,000 of them fit into a body.
const SMALL_BYTES: usize = 500;
/// Total bytes of all bodies of one point in the series of bodies.
const BODIES_BYTES: usize = 60_000_000;

/// One measurement: a size, and the cost at this size.
struct Point {
    x: usize,
    events: usize,
    /// CPU time per session in microseconds.
    cpu: f64,
    rate: f64,
    peak_mib: f64,
}

/// Measures all series.
pub async fn measure(place: &Place, settings: &Settings) -> Value {
    let base = settings.sessions;
    let load = |sessions, array, connections| {
        // A placeholder: the server is not known yet.
        Load::new(([127, 0, 0, 1], 0).into(), sessions, array, connections)
    };
    let mut all = json!({"backlog": backlogs(place, settings.scale_max).await});
    let sizes = [1, 10, 100, 1_000, 10_000, 100_000];
    all["sessions"] = series(place, "sessions", &sizes, |distinct| {
        // Events of one session are published one by one, so there are fewer of them.
        let events = (distinct * 2_000).min(base).max(distinct.min(base * 4));
        let mut load = load(events, ARRAY, CONNECTIONS);
        load.shape.distinct = distinct;
        load
    })
    .await;
    let sizes = [1, 10, 100, 1_000, 10_000];
    all["arrays"] = series(place, "arrays", &sizes, |array| {
        let connections = if array < 1_000 { CONNECTIONS } else { 4 };
        let mut load = load(base.max(array), array, connections);
        load.shape.bytes = Some(SMALL_BYTES);
        load
    })
    .await;
    let sizes = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
    all["bodies"] = series(place, "bodies", &sizes, |bytes| {
        let events = (BODIES_BYTES / bytes).clamp(6, base);
        let connections = if bytes < 1_000_000 { CONNECTIONS } else { 2 };
        let mut load = load(events, 1, connections);
        load.shape.bytes = Some(bytes);
        load
    })
    .await;
    all["routes"] = series(place, "routes", &[1, 10, 100], |routes| {
        let mut load = load(base, ARRAY, CONNECTIONS);
        load.shape = Shape {
            companies: routes,
            statuses: 1,
            ..Shape::default()
        };
        load
    })
    .await;
    all
}

/// A new bridge for each point, because memory retained from an earlier point would be counted.
async fn fresh(place: &Place) -> Bridge {
    let key = "routing.routing_key = \"{company}.{status}\"";
    let bridge = place.working_bridge(key, QUEUE).await;
    send(Load::new(bridge.address(), WARM, ARRAY, CONNECTIONS)).await;
    place.drained(&bridge, QUEUE).await;
    bridge
}

/// Medians of several rounds for each size.
async fn series(place: &Place, name: &str, sizes: &[usize], load: impl Fn(usize) -> Load) -> Value {
    let mut points = Vec::new();
    for &x in sizes {
        let mut bridge = fresh(place).await;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let mut load = load(x);
            load.server = bridge.address();
            rounds.push(point(place, &bridge, x, load).await);
            place.vhost.purge_queue(QUEUE).await;
        }
        bridge.terminate().await;
        let of = |value: fn(&Point) -> f64| median(rounds.iter().map(value));
        let point = Point {
            x,
            events: rounds[0].events,
            cpu: of(|point| point.cpu),
            rate: of(|point| point.rate),
            peak_mib: rounds
                .iter()
                .map(|point| point.peak_mib)
                .fold(0.0, f64::max),
        };
        points.push(told(name, &point));
    }
    points.into()
}

async fn point(place: &Place, bridge: &Bridge, x: usize, load: Load) -> Point {
    let events = load.sessions;
    cost::forget_peak(bridge.pid());
    let used = Cost::of(bridge.pid());
    let (begin, _) = timed(load).await;
    place.arrived(QUEUE, events).await;
    let took = begin.elapsed();
    finished(bridge).await;
    Point {
        x,
        events,
        cpu: used.since(bridge.pid()).as_secs_f64() * 1e6 / float(events),
        rate: float(events) / took.as_secs_f64(),
        peak_mib: cost::peak_mib(bridge.pid()),
    }
}

/// Freezes the broker while a backlog builds up; small backlogs are repeated until the cost is
/// measurable. The cost is that of accepting and forwarding.
async fn backlogs(place: &Place, events_max: usize) -> Vec<Value> {
    let mut points = Vec::new();
    let times = [
        (1, 300),
        (10, 100),
        (100, 50),
        (1_000, 10),
        (10_000, 3),
        (100_000, 1),
        (1_000_000, 1),
    ];
    for (events, times) in times {
        if events > events_max {
            break;
        }
        let mut bridge = fresh(place).await;
        cost::forget_peak(bridge.pid());
        let used = Cost::of(bridge.pid());
        let mut took = Duration::ZERO;
        for _ in 0..times {
            place.broker.freeze();
            let mut load = Load::new(bridge.address(), events, ARRAY, CONNECTIONS.min(events));
            load.pace = Pace::FullUnprepared;
            send(load).await;
            place.broker.thaw();
            let begin = Instant::now();
            if events < 100_000 {
                place.arrived(QUEUE, events).await;
                took += begin.elapsed();
                place.vhost.purge_queue(QUEUE).await;
            } else {
                place.drained(&bridge, QUEUE).await;
                took += begin.elapsed();
            }
        }
        finished(&bridge).await;
        let all = events * times;
        let point = Point {
            x: events,
            events: all,
            cpu: used.since(bridge.pid()).as_secs_f64() * 1e6 / float(all),
            rate: float(all) / took.as_secs_f64(),
            peak_mib: cost::peak_mib(bridge.pid()),
        };
        points.push(told("backlog", &point));
        bridge.terminate().await;
    }
    points
}

fn told(series: &str, point: &Point) -> Value {
    let Point {
        x,
        events,
        cpu,
        rate,
        peak_mib,
    } = point;
    eprintln!(
        "{series} {x:>9}: {cpu:>8.1} µs, {rate:>8.0}/s, {peak_mib:>6.1} MiB ({events} events)"
    );
    json!({
        "x": x,
        "events": events,
        "cpu_us": rounded(*cpu),
        "sessions_per_second": rounded(*rate),
        "peak_mib": rounded(*peak_mib),
    })
}

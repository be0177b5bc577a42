//! A sender that is faster than the broker, from the first request to the last message in the
//! queue: events accepted in the meantime are buffered. Once with many sessions, and once with few
//! sessions whose events wait for each other.

use serde_json::{Value, json};

use crate::place::{ARRAY, CONNECTIONS, Place};
use crate::rounds::{Case, in_turn, told};
use crate::sender::{Load, Pace};
use crate::settings::Settings;
use crate::subject::Subject;

const QUEUE: &str = "quorum";
/// Numbers of distinct sessions, one per load.
const DISTINCT: [usize; 2] = [60_000, 640];
/// A load has the events of the outage divided by this.
const PART: usize = 4;
const ROUNDS_MAX: usize = 2;
const CASES: [Case; 2] = [
    ("bridge", QUEUE, ARRAY, CONNECTIONS),
    ("forwarder", QUEUE, ARRAY, CONNECTIONS),
];

/// Measures both loads.
pub async fn measure(place: &Place, settings: &Settings) -> Value {
    let sessions = settings.backlog / PART;
    let mut loads = Vec::new();
    for distinct in DISTINCT {
        eprintln!("{distinct} different sessions");
        let rounds = in_turn(settings.rounds.min(ROUNDS_MAX), &CASES, async |case| {
            let subject = Subject::usual(place, case.0).await;
            place.subscribe(QUEUE).await;
            let mut load = Load::new(subject.address(), sessions, ARRAY, CONNECTIONS);
            load.shape.distinct = distinct;
            load.pace = Pace::FullUnprepared;
            let round = subject.serve(place, QUEUE, load).await;
            subject.end().await;
            round
        })
        .await;
        loads.push(json!({
            "sessions": sessions,
            "distinct": distinct,
            "cases": CASES.map(|case| told(case, &rounds)),
        }));
    }
    json!({ "loads": loads })
}

//! A bridge whose journal is on an ext4 file system with a journal of its own, where an fsync waits
//! for both; next to it a bridge with its journal at the usual place, and the forwarder. The file
//! system is in an image file at the usual place.

use serde_json::{Value, json};

use crate::place::{ARRAY, CONNECTIONS, Place};
use crate::rounds::{Case, in_turn, told};
use crate::sender::Load;
use crate::settings::Settings;
use crate::subject::Subject;
use crate::support::disk::Disk;

const QUEUE: &str = "quorum";
const DISK_BYTES: u64 = 4 << 30;
const ON_EXT4: &str = "bridge-ext4";
const CASES: [Case; 3] = [
    (ON_EXT4, QUEUE, ARRAY, CONNECTIONS),
    ("bridge", QUEUE, ARRAY, CONNECTIONS),
    ("forwarder", QUEUE, ARRAY, CONNECTIONS),
];

/// Measures all cases; `None`, and a message, if no disk can be mounted.
pub async fn measure(place: &Place, settings: &Settings) -> Option<Value> {
    let disk = Disk::in_a_file_of("ext4", DISK_BYTES, &place.dir)?;
    let rounds = in_turn(settings.rounds, &CASES, async |case| {
        let subject = match case.0 {
            ON_EXT4 => Subject::bridge(place, &disk.path().join("journal"), "").await,
            name => Subject::usual(place, name).await,
        };
        place.subscribe(QUEUE).await;
        subject.warm_up(place, QUEUE, settings.sessions).await;
        let load = Load::new(subject.address(), settings.sessions, ARRAY, CONNECTIONS);
        let round = subject.serve(place, QUEUE, load).await;
        subject.end().await;
        round
    })
    .await;
    Some(json!({ "cases": CASES.map(|case| told(case, &rounds)) }))
}

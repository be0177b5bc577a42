//! One run from an empty broker to the verdict, and the summary of several runs.

use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::event::{Event, FORGED_MARK};
use crate::judge::{Caps, Findings, judge};
use crate::ledger::{Ending, History, Micros, Outcome, Queue};
use crate::nemesis;
use crate::nemesis::write_down_queues;
use crate::producer::Producers;
use crate::report;
use crate::schedule::{Faults, Kind, Lane, storm};
use crate::settings::{Mode, Settings};
use crate::stage::{IN_FLIGHT_MAX, Stage, until};
use crate::support::broker::Broker;
use crate::support::http::Client;
use crate::watch;

/// No fault is injected before this number of requests was accepted.
const WARM_REQUESTS: u32 = 100;
const WARM_WITHIN: Duration = Duration::from_secs(30);
const PROBE_LIMIT: Micros = 10_000_000;
const LOGIN_LIMIT: Micros = 35_000_000;
/// The minimum rate at which a backlog drains.
const DRAINS_PER_SECOND: u64 = 200;
const QUIET: Duration = Duration::from_secs(2);
const DRAIN_MAX: Duration = Duration::from_mins(3);

const CAPS: Caps = Caps {
    // The documented limit of a release build is 64 MiB, whatever the broker or strangers do. Both
    // at once may take half as much again. Without optimisation more code is resident.
    rss_bytes: if cfg!(debug_assertions) { 128 } else { 96 } << 20,
    // Strangers may use all of `http.connections_max`.
    descriptors: 200 + 1024,
    // Slower without optimisation and next to other tests.
    answer: if cfg!(debug_assertions) { 3 } else { 1 } * 1_000_000,
    journal_bytes: 1 << 30,
    in_flight: IN_FLIGHT_MAX,
};

/// Runs all seeds that were requested, up to the first failure; returns the findings of each run.
pub async fn run(settings: &Settings) -> Vec<Findings> {
    let broker = Arc::new(Broker::own_with("").await);
    let mut all = Vec::new();
    for seed in settings.seeds() {
        println!("chaos: seed {seed}, {}", report::versions());
        let begin = Instant::now();
        let stage = Arc::new(Stage::set(Arc::clone(&broker), seed).await);
        let history = play(&stage, settings, seed).await;
        let findings = judge(&history, &CAPS);
        report::print(seed, begin.elapsed(), &history, &findings);
        let files = stage.bridge().await;
        report::keep(seed, settings, &history, &findings, files.dir());
        drop(files);
        let is_failed = findings.verdict() == "FAIL";
        all.push(findings);
        if is_failed {
            break;
        }
    }
    report::print_totals(&all);
    all
}

async fn play(stage: &Arc<Stage>, settings: &Settings, seed: u64) -> History {
    write_down_queues(&stage.broker).await;
    let journal = stage.bridge().await.journal_dir();
    let watching = watch::start(stage, journal.clone());
    let producers = Producers::start(&stage.desk, settings.rate);
    let is_warm = until(WARM_WITHIN, async || stage.desk.accepted() >= WARM_REQUESTS).await;
    if !is_warm {
        stage
            .ledger
            .complain("nothing is accepted before the first fault".into());
    }
    let descriptors = watch::descriptors(stage.pid());
    disturb(stage, settings, seed).await;
    producers.stop().await;

    let mut ending = Ending {
        probe_limit: PROBE_LIMIT,
        ..Ending::default()
    };
    let backlog = watch::account(stage)
        .await
        .map_or(0, |account| account.backlog);
    ending.probe_limit += backlog * 1_000_000 / DRAINS_PER_SECOND;
    let injections = stage.ledger.history().injections.clone();
    if injections
        .iter()
        .rev()
        .take(4)
        .any(|one| one.kind == Kind::PasswordChanged)
    {
        ending.probe_limit += LOGIN_LIMIT - PROBE_LIMIT;
    }
    ending.probe = probe(stage, ending.probe_limit).await;
    drain(stage).await;
    watching.abort();
    ending.account = watch::account(stage).await.unwrap_or_default();
    ending.descriptors = (descriptors, watch::descriptors(stage.pid()));
    ending.interruptions = stage.proxy.connections() as u64 + stage.starts();
    ending.has_forged_bytes = is_in_files(&journal, FORGED_MARK.as_bytes());
    let exit = stage.bridge().await.terminate().await;
    if exit.status.code() != Some(0) {
        stage
            .ledger
            .complain(format!("at the end, SIGTERM: {}", exit.status));
    }
    let mut history = std::mem::take(&mut *stage.ledger.history());
    history.ending = ending;
    history
}

async fn disturb(stage: &Arc<Stage>, settings: &Settings, seed: u64) {
    let lanes = match settings.mode {
        Mode::Crash { rounds } => {
            let plan = storm(seed, rounds).into_iter();
            vec![tokio::spawn(nemesis::follow(Arc::clone(stage), plan, None))]
        }
        Mode::Calm { lasts } => {
            tokio::time::sleep(lasts).await;
            Vec::new()
        }
        Mode::Faults { lasts } => follow(stage, seed, &Lane::ALL, lasts),
        Mode::Strangers { lasts } => follow(stage, seed, &[Lane::Strangers], lasts),
    };
    for lane in lanes {
        if let Err(error) = lane.await {
            let error: String = error.to_string().chars().take(300).collect();
            stage
                .ledger
                .complain(format!("a fault could not be injected or healed: {error}"));
        }
    }
    stage.proxy.pass();
}

fn follow(stage: &Arc<Stage>, seed: u64, lanes: &[Lane], lasts: Duration) -> Vec<JoinHandle<()>> {
    let end = Instant::now() + lasts;
    let lanes = lanes.iter().map(|lane| Faults::new(seed, *lane));
    lanes
        .map(|faults| tokio::spawn(nemesis::follow(Arc::clone(stage), faults, Some(end))))
        .collect()
}

/// Sends a new event; returns how long its delivery took, or `None` if it was not delivered in
/// time.
async fn probe(stage: &Stage, limit: Micros) -> Option<Micros> {
    let event = Event {
        session: stage.desk.new_session(),
        seq: 1,
    };
    let body = stage.desk.body(&[event]);
    let request = stage.ledger.request(vec![event]);
    let begin = stage.ledger.now();
    let mut client = Client::new(stage.desk.server());
    while stage.desk.send(&mut client, request, &body).await != Some(Outcome::Ok) {
        if stage.ledger.now() > begin + limit {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut looked_at = 0;
    let mut came = None;
    until(3 * Duration::from_micros(limit), || {
        let history = stage.ledger.history();
        let new = &history.deliveries[looked_at..];
        let found = new
            .iter()
            .find(|delivery| delivery.event == Some(event) && delivery.queue == Queue::All);
        came = found.map(|delivery| delivery.at.saturating_sub(begin));
        looked_at = history.deliveries.len();
        ready(came.is_some())
    })
    .await;
    came
}

/// Waits until no event is pending and no message is unconsumed.
async fn drain(stage: &Stage) {
    let is_settled = until(DRAIN_MAX, async || {
        let account = watch::account(stage).await;
        account.is_some_and(|account| account.backlog == 0)
    })
    .await;
    if !is_settled {
        return; // the judge reports it
    }
    let mut quiet = (Instant::now(), stage.consumers.total());
    until(DRAIN_MAX, || {
        let total = stage.consumers.total();
        if total != quiet.1 || !stage.consumers.are_idle() {
            quiet = (Instant::now(), total);
        }
        ready(quiet.0.elapsed() > QUIET)
    })
    .await;
}

fn is_in_files(dir: &Path, mark: &[u8]) -> bool {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter_map(|file| std::fs::read(file.path()).ok())
        .any(|bytes| memchr::memmem::find(&bytes, mark).is_some())
}

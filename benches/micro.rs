//! `make bench-micro`: the cost of single steps of processing a session, each measured in isolation
//! with warm caches. This is a lower bound, not a share of the total. Where a benchmark has several
//! items, divide by their number.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deskbridge::backoff::Backoff;
use deskbridge::config::{self, Config};
use deskbridge::forwarder::flow::{Action, Flow, FlowLimits};
use deskbridge::journal::{
    Committed, FinalState, Journal, Opened, QueuedEvent, Transition, TransitionApplied,
};
use deskbridge::rabbitmq::{Link, Outcome, PublisherEvent};
use deskbridge::settings;
use deskbridge::webhook::message::Message;
use deskbridge::webhook::routing::{Route, Routing};
use deskbridge::webhook::signature::{HEADER, Keys, Verified, sign};
use deskbridge::webhook::split::split;
use deskbridge::webhook::{Envelope, Event, Webhook, identity};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::mpsc::Receiver;
use uuid::Uuid;

const SECRET: &[u8] = b"a secret for benchmarks only";
const ARRAYS: [usize; 3] = [1, 10, 50];
const WEBHOOKS: [usize; 3] = [1, 32, 256];
const WINDOW: usize = 256;

fn main() {
    divan::main();
}

// --- receiving ---

#[divan::bench(args = ARRAYS)]
fn verify(bencher: Bencher, array: usize) {
    let body = body(array);
    let keys = Keys::new([SECRET]);
    let value = sign(SECRET, &body);
    let bencher = bencher.counter(BytesCount::new(body.len()));
    bencher.counter(ItemsCount::new(array)).bench(|| {
        let signature = keys.read([divan::black_box(value.as_str())]);
        let signature = signature.expect(HEADER);
        keys.verify(&signature, body.clone())
    });
}

#[divan::bench(name = "split", args = ARRAYS)]
fn split_webhook(bencher: Bencher, array: usize) {
    let body = body(array);
    let bencher = bencher.counter(BytesCount::new(body.len()));
    bencher
        .counter(ItemsCount::new(array))
        .with_inputs(|| (verified(body.clone()), envelope()))
        .bench_values(|(body, envelope)| split(body, envelope, 10_000));
}

#[divan::bench(name = "identity")]
fn message_id(bencher: Bencher) {
    let event = events(1).remove(0);
    bencher.bench(|| identity::of(divan::black_box(&event)));
}

// --- the journal ---

/// Appends a group of webhooks of ten, waits for their commit, completes all events and waits for
/// that commit: two fsyncs.
#[divan::bench(args = WEBHOOKS, sample_count = 20, sample_size = 1)]
fn journal_group(bencher: Bencher, webhooks: usize) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut opened = open(dir.path());
    bencher
        .counter(ItemsCount::new(10 * webhooks))
        .with_inputs(|| (0..webhooks).map(|_| webhook(10)).collect::<Vec<_>>())
        .bench_local_values(|group| runtime.block_on(append_and_settle(&mut opened, group)));
    runtime.block_on(opened.journal.close());
}

async fn append_and_settle(opened: &mut Opened, group: Vec<Webhook>) {
    let events = group.iter().map(|webhook| webhook.events.len()).sum();
    let (journal, committed) = (&opened.journal, &mut opened.committed);
    let appends = join_all(group.into_iter().map(|webhook| journal.append(webhook)));
    let (answers, fresh) = tokio::join!(appends, receive(committed, events));
    assert!(answers.iter().all(Result::is_ok));
    let settle = |held: &QueuedEvent| Transition::Complete {
        seq: held.seq,
        routed_status: Arc::clone(&held.routed_status),
        final_state: FinalState::Published,
        attempts: 1,
    };
    journal.change(fresh.iter().map(settle).collect());
    receive(committed, events).await;
}

/// Waits until commits have reported this number of applied transitions or fresh events; returns
/// the fresh events.
async fn receive(committed: &mut Receiver<Committed>, count: usize) -> Vec<QueuedEvent> {
    let (mut fresh, mut applied) = (Vec::new(), 0);
    while fresh.len() + applied < count {
        let mut next = committed.recv().await.expect("the journal is open");
        applied += next.applied.len();
        fresh.append(&mut next.fresh);
    }
    fresh
}

fn open(dir: &Path) -> Opened {
    let config = config::journal::JournalConfig {
        dir: dir.to_owned(),
        ..Default::default()
    };
    Journal::open(&config, Arc::new(routing()), Box::new(|_| ())).expect("a journal")
}

// --- forwarding ---

#[divan::bench]
fn properties(bencher: Bencher) {
    let event = events(1).remove(0);
    let route = routing().route(&event);
    bencher.bench(|| Message::of(divan::black_box(&event), Arc::clone(&route), "completed"));
}

/// A window of events, from their commit to the commit of their completion.
#[divan::bench]
fn flow_window(bencher: Bencher) {
    let mut flow = Flow::new(limits(), retry());
    let wall = Timestamp::now();
    flow.reported(PublisherEvent::Up(Link::Main), 0, wall);
    let events = events(WINDOW);
    let route = routing().route(&events[0]);
    let events: Vec<_> = events.into_iter().map(Arc::new).collect();
    let mut next = 0;
    bencher
        .counter(ItemsCount::new(WINDOW))
        .with_inputs(|| {
            let mut committed = Committed::default();
            committed.fresh = events
                .iter()
                .map(|event| held(&mut next, event, &route))
                .collect();
            committed
        })
        .bench_local_values(|committed| {
            flow.committed(committed, 0);
            let mut applied = 0;
            while applied < WINDOW {
                let action = flow.next_action(0, wall).expect("something to do");
                applied += carry_out(&mut flow, action, wall);
            }
        });
}

/// Acts as a broker and a disk without faults; returns the number of applied transitions.
fn carry_out(flow: &mut Flow, action: Action, wall: Timestamp) -> usize {
    match action {
        Action::Publish { window, events, .. } => {
            let outcomes = vec![Outcome::Delivered; events.len()];
            flow.reported(PublisherEvent::Done(window, outcomes), 0, wall);
            0
        }
        Action::Transition(Transition::Complete { seq, .. }) => {
            let mut committed = Committed::default();
            committed.applied.push(TransitionApplied::Completed {
                seq,
                promoted: None,
            });
            flow.committed(committed, 0);
            1
        }
        action => panic!("{action:?}"),
    }
}

fn held(next: &mut i64, event: &Arc<Event>, route: &Arc<Route>) -> QueuedEvent {
    *next += 1;
    QueuedEvent {
        seq: *next,
        event: Arc::clone(event),
        routed_status: "created".into(),
        route: Arc::clone(route),
        route_id: 1,
        is_head: true,
        attempts: 0,
        dead_letter_cause: None,
        is_damaged: false,
        has_body: true,
    }
}

fn limits() -> FlowLimits {
    FlowLimits {
        in_flight_max: 2 * WINDOW,
        in_flight_bytes_max: 8 << 20,
        message_bytes_max: 16 << 20,
        confirm_timeout: Duration::from_secs(10),
        attempts_max: 12,
    }
}

fn retry() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(30), 1)
}

// --- webhooks ---

fn routing() -> Routing {
    settings::routing(&Config::default()).expect("the default is right")
}

/// The published example, repeated, each with its own session id.
fn body(array: usize) -> Bytes {
    let sample = include_str!("../tests/data/completed.json");
    let sample: serde_json::Value = serde_json::from_str(sample).expect("JSON");
    let sessions: Vec<_> = (0..array)
        .map(|_| {
            let mut session = sample[0].clone();
            session["id"] = Uuid::new_v4().to_string().into();
            session
        })
        .collect();
    serde_json::to_vec(&sessions).expect("JSON").into()
}

fn verified(body: Bytes) -> Verified<Bytes> {
    let keys = Keys::Unsigned;
    let signature = keys.read::<&[u8]>([]).expect("none is needed");
    keys.verify(&signature, body).expect("none is needed")
}

fn envelope() -> Envelope {
    Envelope {
        webhook_id: Uuid::from_u128(7),
        source: "deskdirector".into(),
        received_at: Timestamp::now(),
        traceparent: None,
        tracestate: None,
    }
}

fn webhook(array: usize) -> Webhook {
    split(verified(body(array)), envelope(), 10_000).expect("at most 10,000 sessions")
}

fn events(count: usize) -> Vec<Arc<Event>> {
    webhook(count).events
}

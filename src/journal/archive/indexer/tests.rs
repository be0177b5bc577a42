//! A search returns the same result with a complete archive, with an incomplete one and without
//! one.

mod speed;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::Sender;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::json;

use super::*;
use crate::journal::archive::{Archive, EventState, Selection};
use crate::journal::interface::{QueuedEvent, Seq};
use crate::journal::tests::support::*;
use crate::journal::{FinalState, Transition};
use crate::webhook::routing::STATUSES as KNOWN;
use crate::webhook::search::Search;
use crate::webhook::split::split;
use crate::webhook::{DeadLetterReason, Envelope, Webhook, samples};

const SESSIONS: [&str; 6] = ["1530-1", "1530-2", "b", "Ünlaut 7", "--", "1530"];
const STATUSES: [&str; 5] = ["created", "missed", "completed", "archived", "new-status"];
const NAMES: [&str; 4] = ["Liam Tait", "Tait Liam", "Zoë", "Warwick Eade"];
const COMPANIES: [&str; 3] = ["Kauri Timber Ltd", "Müller", "Timber"];
const NOTES: [&str; 4] = ["", "the printer \"again\"", "Password-Reset", "created"];
const SOURCES: [&str; 2] = ["acme", "other"];
const PHRASES: [&str; 9] = [
    "tait",
    "LIAM tait",
    "timber",
    "müller",
    "printer again",
    "reset",
    "created",
    "1530",
    "nobody",
];

/// A worker whose steps are called by the test instead of by a thread.
struct Called {
    worker: Worker,
    _stop: Sender<()>,
}

impl Called {
    /// Creates a worker that indexes without waiting for a full batch.
    fn of(bench: &Bench) -> Self {
        let (stop, stopped) = mpsc::channel();
        let mut worker = Worker::of(bench.dir.path(), 0, stopped);
        worker.batch_events = 1;
        Self {
            worker,
            _stop: stop,
        }
    }

    /// Indexes until nothing is left, or until an error.
    fn work(&mut self) -> Result<(), Trouble> {
        while self.worker.step()? != TICK {}
        Ok(())
    }

    /// Handles an error like the thread does.
    fn overcome(&mut self) {
        let trouble = self.work().expect_err("something is wrong");
        self.worker.open = None;
        self.worker.overcome(&trouble);
    }
}

fn archive(bench: &Bench) -> Archive {
    Archive::open(bench.dir.path(), routing(None)).unwrap()
}

fn indexed(bench: &Bench) -> Option<Seq> {
    let archive = archive(bench);
    let index = archive.index.borrow();
    index.as_ref().ok().map(|index| index.indexed().unwrap())
}

fn forward(archive: &Archive, selection: &Selection) -> Vec<Seq> {
    let (mut found, mut next) = (Vec::new(), Some(0));
    while let Some(after) = next {
        let page = archive.page(selection, after, false).unwrap();
        found.extend(page.entries.iter().map(|entry| entry.seq));
        assert!(
            page.next.is_none_or(|next| next > after),
            "the search makes no progress"
        );
        next = page.next;
    }
    found
}

fn backward(archive: &Archive, selection: &Selection, events_max: usize) -> Vec<Seq> {
    let found = archive.last(selection, events_max).unwrap();
    found.iter().map(|entry| entry.seq).collect()
}

/// The expected result, from comparing every event with the selection, without the archive.
fn expected(archive: &Archive, selection: &Selection) -> Vec<Seq> {
    let (mut found, mut next) = (Vec::new(), Some(0));
    while let Some(after) = next {
        let page = archive.page(&Selection::default(), after, true).unwrap();
        let bounds = selection.bounds();
        let is_selected = |entry: &&crate::journal::archive::Entry| {
            entry.seq > bounds.after
                && entry.seq <= bounds.last
                && selection.selects(entry.seq, &entry.event)
                && selection.selects_state(entry.state())
                && selection.search.selects(&entry.event)
        };
        found.extend(
            page.entries
                .iter()
                .filter(is_selected)
                .map(|entry| entry.seq),
        );
        next = page.next;
    }
    found
}

#[track_caller]
fn check(bench: &Bench, selection: &Selection) {
    let archive = archive(bench);
    let expected = expected(&archive, selection);
    assert_eq!(forward(&archive, selection), expected, "{selection:?}");
    let last = backward(&archive, selection, 3);
    assert_eq!(
        last,
        expected[expected.len().saturating_sub(3)..],
        "{selection:?}"
    );
    let all = backward(&archive, selection, usize::MAX);
    assert_eq!(all, expected, "{selection:?}");
}

fn received_at(second: i64) -> Timestamp {
    samples::envelope().received_at + SignedDuration::from_secs(second)
}

/// One event, as indices into the lists of values.
type Made = (Index, Index, Index, Index, Index);

fn element((session, status, name, company, note): &Made) -> String {
    let creator = json!({
        "name": name.get(&NAMES),
        "userId": "instance~c~7",
        "company": {"name": company.get(&COMPANIES), "identifier": "id"},
    });
    json!({
        "id": session.get(&SESSIONS),
        "status": status.get(&STATUSES),
        "creator": creator,
        "participants": [creator, {"name": note.get(&NAMES)}],
        "note": note.get(&NOTES),
    })
    .to_string()
}

fn made_webhook(source: &str, second: i64, elements: &[Made]) -> Webhook {
    let elements: Vec<String> = elements.iter().map(element).collect();
    let body = match elements.len() {
        0 => "not json, but Liam Tait".to_owned(),
        // With an element that is not a session.
        7 => format!("[{},7,\"printer again\"]", elements.join(",")),
        _ => format!("[{}]", elements.join(",")),
    };
    let envelope = Envelope {
        source: source.into(),
        received_at: received_at(second),
        ..samples::envelope()
    };
    let mut webhook = split(samples::verified(body), envelope, 10_000).unwrap();
    let id = uuid::Uuid::new_v4();
    for event in &mut webhook.events {
        let envelope = Envelope {
            webhook_id: id,
            ..(*event.envelope).clone()
        };
        std::sync::Arc::make_mut(event).envelope = std::sync::Arc::new(envelope);
    }
    webhook
}

#[derive(Debug, Clone)]
struct Receipt {
    source: Index,
    second: i64,
    elements: Vec<Made>,
    /// Selects the outcomes of its events, see `fates`.
    fate: u8,
    is_indexed: bool,
}

fn receipts() -> impl Strategy<Value = Vec<Receipt>> {
    let one = || any::<Index>();
    let made = || (one(), one(), one(), one(), one());
    let few = prop::collection::vec(made(), 0..9);
    let many = prop::collection::vec(made(), 200..700);
    let elements = prop_oneof![9 => few, 1 => many];
    let receipt = (one(), 0..40_i64, elements, 0..6_u8, any::<bool>()).prop_map(
        |(source, second, elements, fate, is_indexed)| Receipt {
            source,
            second,
            elements,
            fate,
            is_indexed,
        },
    );
    prop::collection::vec(receipt, 1..14)
}

fn phrase() -> impl Strategy<Value = Option<crate::webhook::search::Phrase>> {
    prop::option::weighted(
        0.3,
        select(&PHRASES[..]).prop_map(|text| text.parse().unwrap()),
    )
}

fn selections() -> impl Strategy<Value = Selection> {
    let texts = |of: &'static [&'static str]| {
        prop_oneof![
            3 => Just(Vec::new()),
            1 => prop::collection::vec(select(of).prop_map(str::to_owned), 1..3),
        ]
    };
    let states = [
        EventState::Pending,
        EventState::Published,
        EventState::DeadLettered,
        EventState::Damaged,
    ];
    let second = || prop::option::weighted(0.3, (-1..41_i64).prop_map(received_at));
    let statuses = prop_oneof![
        4 => texts(&STATUSES),
        1 => Just(vec!["invalid".to_owned()]),
        1 => Just(vec!["malformed".to_owned(), "missed".to_owned()]),
    ];
    let but = prop::option::weighted(
        0.2,
        Just(["created", "handled", "missed", "completed", "callback"]),
    );
    let seqs = prop::option::weighted(0.2, prop::collection::btree_set(1..900_i64, 0..6));
    let when = (second(), second(), prop::option::weighted(0.2, 1..900_i64));
    (
        (texts(&SESSIONS), statuses, but, texts(&SOURCES)),
        when,
        prop::option::weighted(0.3, select(states.to_vec())),
        (phrase(), phrase(), phrase()),
        seqs,
    )
        .prop_map(|(heads, (since, until, seq_max), state, texts, seqs)| {
            let (sessions, statuses, but, sources) = heads;
            Selection {
                sessions,
                statuses,
                statuses_but: but.map(|but| but.map(str::to_owned).to_vec()),
                sources,
                since,
                until,
                state,
                search: Search {
                    text: texts.0,
                    company: texts.1,
                    name: texts.2,
                },
                seqs: seqs.map(|seqs: BTreeSet<Seq>| seqs),
                seq_max,
                ..Selection::default()
            }
        })
}

fn fates(events: &[QueuedEvent], fate: u8) -> Vec<Transition> {
    let of = |(index, held): (usize, &QueuedEvent)| match (fate, index % 3) {
        (0 | 1, _) | (2, 0) => Some(published(held)),
        (2, _) => Some(settle(
            held,
            FinalState::DeadLettered(DeadLetterReason::Nacked),
        )),
        (3, 0) => Some(deferred(held, 0)),
        (4, 0) => Some(settle(
            held,
            FinalState::DeadLettered(DeadLetterReason::TooLarge),
        )),
        _ => None,
    };
    events.iter().enumerate().filter_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn index_and_full_scan_find_the_same(
        receipts in receipts(),
        selections in prop::collection::vec(selections(), 12),
        expires in any::<bool>(),
    ) {
        let mut bench = Bench::new();
        let mut called = Called::of(&bench);
        for receipt in &receipts {
            let source = receipt.source.get(&SOURCES);
            let webhook = made_webhook(source, receipt.second, &receipt.elements);
            let held = bench.commit(&[], &[webhook]).fresh;
            if receipt.fate == 5 {
                bench.empty_window();
            }
            bench.commit(&fates(&held, receipt.fate), &[]);
            if receipt.is_indexed {
                called.work().unwrap();
            }
        }
        if expires {
            bench.retention.age_max = Duration::ZERO;
            bench.store.sweep(bench.now, &bench.retention, 300).unwrap();
        }
        for selection in &selections {
            check(&bench, selection);
        }
        called.work().unwrap();
        for selection in &selections {
            check(&bench, selection);
        }
    }
}

fn sample(bench: &mut Bench, name: &str) -> Vec<QueuedEvent> {
    let element = json!({"id": name, "status": "created", "note": format!("word {name}")});
    let mut webhook = webhook(&[element.to_string()]);
    let envelope = Envelope {
        webhook_id: uuid::Uuid::new_v4(),
        ..samples::envelope()
    };
    std::sync::Arc::make_mut(&mut webhook.events[0]).envelope = std::sync::Arc::new(envelope);
    bench.commit(&[], &[webhook]).fresh
}

fn word(text: &str) -> Selection {
    Selection {
        search: Search {
            text: Some(text.parse().unwrap()),
            ..Search::default()
        },
        ..Selection::default()
    }
}

#[track_caller]
fn finds(bench: &Bench, text: &str, expected: &[Seq]) {
    assert_eq!(forward(&archive(bench), &word(text)), expected, "{text}");
}

#[test]
fn message_id_is_found_with_and_without_archive() {
    let mut bench = Bench::new();
    let id = sample(&mut bench, "a")[0].event.message_id;
    sample(&mut bench, "b");
    sample(&mut bench, "a");
    assert_eq!(archive(&bench).with_message_id(id).unwrap(), [1, 3]);
    Called::of(&bench).work().unwrap();
    assert_eq!(archive(&bench).with_message_id(id).unwrap(), [1, 3]);
}

#[test]
fn deleted_or_damaged_archive_is_rebuilt() {
    let mut bench = Bench::new();
    let path = bench.dir.path().join(ARCHIVE);
    let mut called = Called::of(&bench);
    sample(&mut bench, "a");
    called.work().unwrap();
    assert_eq!(indexed(&bench), Some(1));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );

    files::remove(&path).unwrap();
    finds(&bench, "a", &[1]);
    called.work().unwrap();
    assert_eq!(indexed(&bench), Some(1), "deleted while it is open");

    for ruin in [
        |path: &Path| fs::write(path, vec![0; 40_000]).unwrap(),
        |path: &Path| {
            let length = fs::metadata(path).unwrap().len();
            let mut bytes = fs::read(path).unwrap();
            bytes.truncate(4096);
            bytes.resize(usize::try_from(length).unwrap(), 0xAB);
            fs::write(path, bytes).unwrap();
        },
        |path: &Path| fs::write(path, "").unwrap(),
    ] {
        drop(called);
        ruin(&path);
        finds(&bench, "a", &[1]);
        called = Called::of(&bench);
        sample(&mut bench, "b");
        if called.work().is_err() {
            called.overcome();
        }
        called.work().unwrap();
        assert!(indexed(&bench).unwrap() > 1);
    }
    finds(&bench, "word", &[1, 2, 3, 4]);
}

#[test]
fn foreign_file_is_not_changed() {
    let mut bench = Bench::new();
    sample(&mut bench, "a");
    let path = bench.dir.path().join(ARCHIVE);
    let check = |what: &str| {
        let mut called = Called::of(&bench);
        let error = called.work().unwrap_err();
        assert!(
            error
                .to_string()
                .contains("is not a search index of deskbridge"),
            "{what}: {error}"
        );
        called.worker.overcome(&error);
        finds(&bench, "a", &[1]);
        assert!(fs::symlink_metadata(&path).is_ok(), "{what}");
    };
    fs::write(
        &path,
        "somebody's notes, longer than the header of a database: ".repeat(9),
    )
    .unwrap();
    let before = fs::read(&path).unwrap();
    check("a text");
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::remove_file(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 1")
        .unwrap();
    drop(other);
    check("a database");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    check("a link");
}

#[test]
fn archive_of_other_release_or_journal_is_rebuilt() {
    let mut bench = Bench::new();
    sample(&mut bench, "a");
    Called::of(&bench).work().unwrap();
    let path = bench.dir.path().join(ARCHIVE);
    let alter = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    for sql in [
        "PRAGMA user_version = 99",
        "UPDATE progress SET journal = 'another'",
        // As after restoring a backup: the archive has indexed later numbers than the journal has.
        "UPDATE progress SET indexed = 7",
        "UPDATE progress SET last_webhook = zeroblob(16)",
    ] {
        alter(sql);
        assert_eq!(indexed(&bench), None, "{sql}");
        finds(&bench, "a", &[1]);
        Called::of(&bench).work().unwrap();
        assert_eq!(indexed(&bench), Some(1), "{sql}");
    }
}

#[test]
fn retention_removes_events_from_the_archive() {
    let mut bench = Bench::new();
    let jump = |bench: Bench, seq: Seq| {
        let sql = "UPDATE totals SET value = ?1 WHERE name = 'last_seq'";
        bench.store.database().execute(sql, [seq]).unwrap();
        bench.reopen(&routing(None))
    };
    let first = sample(&mut bench, "a");
    let kept = sample(&mut bench, "b");
    bench = jump(bench, 65_535);
    let second = sample(&mut bench, "c");
    bench = jump(bench, 200_000);
    sample(&mut bench, "d");
    let mut called = Called::of(&bench);
    called.work().unwrap();
    let number = |sql: &str| -> i64 {
        let path = bench.dir.path().join(ARCHIVE);
        let archive = Connection::open(path).unwrap();
        archive.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let tables = "SELECT count(*) FROM sqlite_schema WHERE sql LIKE 'CREATE VIRTUAL%'";
    // Few rows are left of each partition except the last. They are read without an index.
    assert_eq!(number(tables), 1);
    assert_eq!(number("SELECT count(*) FROM unindexed"), 3);
    finds(&bench, "word", &[1, 2, 65_536, 200_001]);
    finds(&bench, "c", &[65_536]);

    let changes: Vec<_> = [&first, &second].map(|held| published(&held[0])).into();
    bench.commit(&changes, &[]);
    bench.retention.age_max = Duration::ZERO;
    bench.store.sweep(bench.now, &bench.retention, 100).unwrap();
    called.worker.forgotten = None;
    called.work().unwrap();
    let number = |sql: &str| -> i64 {
        let path = bench.dir.path().join(ARCHIVE);
        let archive = Connection::open(path).unwrap();
        archive.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(number("SELECT count(*) FROM unindexed"), 1);
    finds(&bench, "word", &[kept[0].seq, 200_001]);
}

#[test]
fn archive_is_deleted_if_disk_space_is_low() {
    let mut bench = Bench::new();
    sample(&mut bench, "a");
    let mut called = Called::of(&bench);
    called.work().unwrap();
    called.worker.disk_free_min = u64::MAX / 4;
    called.overcome();
    let path = bench.dir.path().join(ARCHIVE);
    assert!(!path.exists());
    finds(&bench, "a", &[1]);
    called.work().unwrap();
    assert!(!path.exists(), "there is still no room");
    called.worker.disk_free_min = 0;
    called.work().unwrap();
    assert_eq!(indexed(&bench), Some(1));
}

#[test]
fn thread_fills_the_archive_and_stops_on_request() {
    let mut bench = Bench::new();
    let elements: Vec<_> = (0..BATCH_EVENTS)
        .map(|n| session(&format!("s{n}"), "created"))
        .collect();
    bench.commit(&[], &[webhook(&elements)]);
    sample(&mut bench, "z");
    let indexer = Indexer::start(bench.dir.path(), 0).unwrap();
    // The full batch comes first, then the one that is written because its event is old.
    let began = Instant::now();
    while indexed(&bench) != Some(4097) {
        assert!(
            began.elapsed() < Duration::from_mins(1),
            "indexed: {:?}",
            indexed(&bench)
        );
        thread::sleep(Duration::from_millis(10));
    }
    indexer.stop();
    let log = bench.dir.path().join("archive.db-wal");
    assert!(!log.exists(), "everything is in one file");
}

#[test]
fn stopped_batch_is_repeated_as_a_whole() {
    let mut bench = Bench::new();
    sample(&mut bench, "z");
    let mut called = Called::of(&bench);
    let OpenDatabases {
        journal,
        mut archive,
        ..
    } = called.worker.open_both().unwrap();
    batch::index(&mut archive, &journal, 1, || true).unwrap();
    assert_eq!(indexed(&bench), Some(0));
    drop((archive, journal));
    called.work().unwrap();
    assert!(indexed(&bench) > Some(0));
}

#[test]
fn search_reports_unindexed_events() {
    let mut bench = Bench::new();
    let elements: Vec<_> = (0..BATCH_EVENTS)
        .map(|n| session(&format!("s{n}"), "created"))
        .collect();
    for _ in 0..3 {
        bench.commit(&[], &[webhook(&elements)]);
    }
    let lag = || archive(&bench).lag(&word("x")).unwrap();
    let lag_without = lag().unwrap();
    assert_eq!((lag_without.indexed, lag_without.events), (0, 12_288));
    assert!(
        lag_without.why.unwrap().contains("there is no"),
        "it is missing"
    );

    let mut called = Called::of(&bench);
    called.worker.open = Some(called.worker.open_both().unwrap());
    let lag_of_empty = lag().unwrap();
    assert_eq!((lag_of_empty.indexed, lag_of_empty.events), (0, 12_288));
    assert_eq!(lag_of_empty.why, None);

    called.work().unwrap();
    assert!(lag().is_none(), "everything is indexed");
    let everything = archive(&bench).lag(&Selection::default()).unwrap();
    assert!(everything.is_none(), "the archive does not help with that");
}

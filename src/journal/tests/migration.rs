//! A journal of an earlier schema is migrated with everything in it.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::support::*;
use crate::journal::archive::{Archive, Selection, StateDetails};
use crate::journal::directory::Directory;
use crate::journal::store::Store;
use crate::journal::{Seq, damage};
use crate::webhook::{Content, Event};

/// The state of an event in the old journal.
#[derive(Clone, Copy)]
enum Was {
    /// Published after this many attempts.
    Published(u32),
    /// A dead letter with this reason; its only body may be in the journal.
    Dead(&'static str, bool),
    /// Pending, with a row: whether it is a head, its attempts, its reason.
    Pending(bool, u32, Option<&'static str>),
}

const EVENTS: [(&str, Was); 8] = [
    ("a", Was::Published(1)),
    ("b", Was::Published(3)),
    ("c", Was::Dead("too-large", true)),
    ("d", Was::Pending(true, 0, None)),
    ("d", Was::Pending(false, 0, None)),
    ("e", Was::Pending(true, 12, Some("nacked"))),
    ("f", Was::Published(1)),
    ("g", Was::Dead("nacked", false)),
];

/// A closed journal of an earlier schema: webhooks of three events, and a reject.
fn old_journal(dir: &Path, version: i32) -> PathBuf {
    let path = dir.join("journal.db");
    let database = Connection::open(&path).unwrap();
    database
        .execute_batch(&format!(
            "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
             {}; PRAGMA application_id = 0x64646272; PRAGMA user_version = {version};
             INSERT INTO routes VALUES (7, 'chat-sessions', 'chat.session.created'),
               (8, 'chat-sessions.dead-letter', 'nacked');
             INSERT INTO settings VALUES ('routing', 'of another release');
             INSERT INTO totals VALUES ('last_seq', '', '', 40), ('backlog_events', '', '', 3),
               ('backlog_bytes', '', '', 90), ('accepted', 'acme', 'created', 40),
               ('published', '', 'created', 35), ('dead_lettered', '', 'nacked', 2)",
            include_str!("schema-1.sql")
        ))
        .unwrap();
    if version > 1 {
        let wishes = "CREATE TABLE wishes (id INTEGER PRIMARY KEY, kind TEXT NOT NULL,
                      value INTEGER NOT NULL) STRICT;
                      INSERT INTO wishes (kind, value) VALUES ('replayed', 5)";
        database.execute_batch(wishes).unwrap();
    }
    for (first, sessions) in (10..).step_by(3).zip(EVENTS.chunks(3)) {
        let elements: Vec<_> = sessions
            .iter()
            .map(|(id, _)| session(id, "created"))
            .collect();
        let events = webhook(&elements).events;
        for ((seq, event), (_, was)) in (first..).zip(&events).zip(sessions) {
            insert(&database, seq, event, *was);
        }
    }
    let reject = webhook(&["7"]).events.remove(0);
    insert(&database, 39, &reject, Was::Dead("invalid", false));
    path
}

fn insert(database: &Connection, seq: Seq, event: &Event, was: Was) {
    let (session, status, reason) = match &event.content {
        Content::Session(fields) => (Some(&fields.session), Some(&fields.status), None),
        Content::Reject(reject) => (None, None, Some(reject)),
    };
    database
        .execute(
            "INSERT INTO events (seq, webhook_id, webhook_index, source, received_at, message_id,
               session, status, reject_reason, reject_detail, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                seq,
                event.envelope.webhook_id.as_bytes(),
                event.index,
                event.envelope.source,
                event.envelope.received_at.as_microsecond(),
                event.message_id.as_bytes(),
                session,
                status,
                reason.map(|reject| reject.reason.as_str()),
                reason.map(|reject| &reject.detail),
                &*event.body,
            ],
        )
        .unwrap();
    let bytes = i64::try_from(event.body.len()).unwrap();
    let at = event.envelope.received_at.as_microsecond() + seq;
    let settled = |outcome: &str, attempts: u32, is_exempt: bool| {
        let insert = "INSERT INTO settled VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let row = params![seq, at, outcome, attempts, bytes, is_exempt];
        database.execute(insert, row).unwrap();
    };
    match was {
        Was::Published(attempts) => settled("published", attempts, false),
        Was::Dead(reason, is_exempt) => settled(reason, 1, is_exempt),
        Was::Pending(is_head, attempts, reason) => {
            let insert = "INSERT INTO pending VALUES
                          (?1, 'acme', ?2, ?3, 'created', ?4, ?5, 5000, ?6, ?7, ?7, ?8)";
            let route = if reason.is_some() { 8 } else { 7 };
            let at = reason.map(|_| at);
            let row = params![seq, session, bytes, route, is_head, attempts, reason, at];
            database.execute(insert, row).unwrap();
        }
    }
}

fn open(dir: &Path) -> Store {
    let directory = Directory::open(dir).unwrap();
    let (store, set_aside) = damage::open(&directory, routing(None)).unwrap();
    assert_eq!(set_aside, None);
    store
}

/// All rows of the view `events`, as text.
fn events(path: &Path) -> Vec<String> {
    let database = Connection::open(path).unwrap();
    let sql = "SELECT seq, hex(webhook_id), webhook_index, source, received_at,
                 iif(typeof(message_id) = 'blob', lower(hex(message_id)), replace(message_id, '-', '')),
                 session, status, reject_reason, reject_detail, hex(body) FROM events ORDER BY seq";
    let mut statement = database.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let values = (0..columns).map(|column| format!("{:?}", row.get_ref(column).unwrap()));
        Ok(values.collect::<Vec<_>>().join(" "))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// The final state of each event: seq, state, attempts, exempt from retention.
fn states(dir: &Path) -> Vec<(Seq, String, u32, bool)> {
    let archive = Archive::open(dir, routing(None)).unwrap();
    let page = archive.page(&Selection::default(), 0, true).unwrap();
    let state = |place: &StateDetails| match place {
        StateDetails::Completed {
            final_state,
            attempts,
            ..
        } => (final_state.clone().unwrap().as_str().to_owned(), *attempts),
        StateDetails::Pending {
            attempts,
            dead_letter_cause,
            ..
        } => {
            let reason = dead_letter_cause
                .as_ref()
                .map_or("", |letter| letter.reason.as_str());
            (format!("unsettled {reason}"), *attempts)
        }
    };
    let entries = page.entries.iter();
    entries
        .map(|entry| {
            let (state, attempts) = state(&entry.details);
            (entry.seq, state, attempts, entry.is_exempt())
        })
        .collect()
}

fn check(store: &Store, dir: &Path, before: &[String], version: i32) {
    let path = dir.join("journal.db");
    assert_eq!(events(&path), before);
    let expected = [
        (10, "published", 1, false),
        (11, "published", 3, false),
        (12, "too-large", 1, true),
        (13, "unsettled ", 0, false),
        (14, "unsettled ", 0, false),
        (15, "unsettled nacked", 12, false),
        (16, "published", 1, false),
        (17, "nacked", 1, false),
        (39, "invalid", 1, false),
    ];
    let expected = expected
        .map(|(seq, state, attempts, is_exempt)| (seq, state.to_owned(), attempts, is_exempt));
    assert_eq!(states(dir), expected);
    let totals = store.totals();
    assert_eq!(totals.accepted.values().sum::<u64>(), 40);
    assert_eq!(totals.published.values().sum::<u64>(), 35);
    assert_eq!(totals.backlog_events, 3);
    assert_eq!(totals.replayed, if version > 1 { 5 } else { 0 });
    assert!(totals.backlog_bytes > 300 && store.retained_bytes() > 300);
    let number = |sql| {
        store
            .database()
            .query_row(sql, [], |row| row.get::<_, i64>(0))
    };
    assert_eq!(
        number("SELECT value FROM totals WHERE name = 'last_seq'"),
        Ok(40)
    );
    let due = "SELECT count(*) FROM pending WHERE head = 1 AND due > 0";
    assert_eq!(number(due), Ok(2), "their delay ends with the start");
}

#[test]
fn migration_keeps_everything() {
    for version in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let path = old_journal(dir.path(), version);
        let before = events(&path);
        assert_eq!(before.len(), 9);
        let mut store = open(dir.path());
        check(&store, dir.path(), &before, version);
        assert!(!dir.path().join("journal.db.new").exists());
        // Pending events are published and completed as usual.
        while store.reroute().unwrap().is_some() {}
        let mut reader = crate::journal::reader::Reader::open(&path, store.window()).unwrap();
        let mut fetched = Vec::new();
        for route_id in reader.routes().unwrap() {
            let runs = reader.fetch(&request(route_id)).unwrap().batches;
            fetched.extend(runs.into_iter().flat_map(|run| run.events));
        }
        assert!(fetched.iter().all(|held| !held.is_damaged));
        fetched.sort_by_key(|held| held.seq);
        assert_eq!(seqs(&fetched), [13, 14, 15]);
        assert_eq!(
            fetched[2].dead_letter_cause.as_ref().unwrap().detail,
            "nacked"
        );
        let changes: Vec<_> = fetched.iter().map(published).collect();
        let retention = Bench::new().retention;
        let now = jiff::Timestamp::now();
        store.commit(&changes, &[], now, &retention).unwrap();
        assert_eq!(store.totals().backlog_events, 0);
        assert_eq!(store.totals().backlog_bytes, 0);
        drop(reader);
        store.close().unwrap();
    }
}

/// Until the new file has the old one's name, the old file is unchanged.
#[test]
fn interrupted_migration_begins_again() {
    let interrupted: [fn(&Path); 3] = [
        |dir| fs::write(dir.join("journal.db.new"), "half of it").unwrap(),
        |dir| {
            fs::write(dir.join("journal.db.new"), "").unwrap();
            fs::write(dir.join("journal.db.new-wal"), "half of it").unwrap();
        },
        // Complete, except for the rename.
        |dir| {
            let other = tempfile::tempdir().unwrap();
            old_journal(other.path(), 3);
            open(other.path()).close().unwrap();
            fs::copy(other.path().join("journal.db"), dir.join("journal.db.new")).unwrap();
        },
    ];
    for interrupt in interrupted {
        let dir = tempfile::tempdir().unwrap();
        let before = events(&old_journal(dir.path(), 3));
        interrupt(dir.path());
        let store = open(dir.path());
        check(&store, dir.path(), &before, 3);
        store.close().unwrap();
        let again = open(dir.path());
        assert_eq!(again.totals().backlog_events, 3);
    }
}

/// A damaged journal of an earlier schema is not migrated; its readable events are copied.
#[test]
fn damaged_older_journal_yields_readable_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = old_journal(dir.path(), 3);
    let database = Connection::open(&path).unwrap();
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'settled'";
    let root: u64 = database
        .query_row(root, [], |row| row.get::<_, i64>(0))
        .unwrap()
        .unsigned_abs();
    database.close().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let page = [0x5a; 8192];
    std::os::unix::fs::FileExt::write_all_at(&file, &page, (root - 1) * 8192).unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let (store, set_aside) = damage::open(&directory, routing(None)).unwrap();
    assert!(set_aside.is_some());
    assert_eq!(store.totals().backlog_events, 3);
    assert_eq!(store.totals().lost_events, 0);
}

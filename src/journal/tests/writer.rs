//! The writer thread: what an answer guarantees, which requests share a commit, what is refused and
//! when it is accepted again.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;

use super::support::*;
use crate::config::journal::JournalConfig as Config;
use crate::journal::directory::Directory;
use crate::journal::disk_size;
use crate::journal::schema::PAGE_BYTES;
use crate::journal::{
    Committed, Journal, ObserveCommit, OpenError, Opened, QueuedEvent, Transition,
    TransitionApplied, WriteError, damage,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn config(dir: &TempDir) -> Config {
    Config {
        dir: dir.path().to_owned(),
        disk_free_min: 0,
        ..Config::default()
    }
}

fn open(config: &Config) -> Opened {
    open_observed(config, Box::new(|_| {}))
}

fn open_observed(config: &Config, observe: ObserveCommit) -> Opened {
    Journal::open(config, routing(None), observe).unwrap()
}

/// The next commit that is handed over with acknowledgements or events.
async fn next(committed: &mut Receiver<Committed>) -> Committed {
    let next = tokio::time::timeout(PATIENCE, committed.recv()).await;
    next.expect("a commit is handed over")
        .expect("the writer lives")
}

async fn append(opened: &mut Opened, sessions: &[&str]) -> Vec<QueuedEvent> {
    let elements: Vec<String> = sessions.iter().map(|id| session(id, "created")).collect();
    opened.journal.append(webhook(&elements)).await.unwrap();
    next(&mut opened.committed).await.fresh
}

async fn until(what: &str, is_true: impl Fn() -> bool) {
    let wait = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect(what);
}

#[tokio::test]
async fn waiting_webhooks_share_a_commit_and_stay_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (commits, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
    let observe = {
        let (commits, gate) = (commits.clone(), gate.clone());
        Box::new(move |_| {
            // Keeps the writer in the first commit until all others are waiting.
            if commits.fetch_add(1, Ordering::SeqCst) == 0 {
                gate.wait();
            }
        })
    };
    let mut opened = open_observed(&config(&dir), observe);
    let journal = opened.journal.clone();
    let first = tokio::spawn(async move { journal.append(webhook(&[session("0", "x")])).await });
    until("the first commit", || commits.load(Ordering::SeqCst) == 1).await;
    let mut others = Vec::new();
    for id in 0..100 {
        let journal = opened.journal.clone();
        let elements = [
            session(&format!("a{id}"), "x"),
            session(&format!("b{id}"), "x"),
        ];
        let mut append = Box::pin(async move { journal.append(webhook(&elements)).await });
        // Sends the request now and waits for the answer later.
        assert!(futures_util::poll!(append.as_mut()).is_pending());
        others.push(append);
    }
    tokio::task::spawn_blocking(move || gate.wait())
        .await
        .unwrap();
    first.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap();
    }
    assert_eq!(commits.load(Ordering::SeqCst), 2);
    assert_eq!(next(&mut opened.committed).await.fresh.len(), 1);
    let fresh = next(&mut opened.committed).await.fresh;
    assert_eq!(seqs(&fresh), (2..=201).collect::<Vec<_>>());
    let indexes: Vec<u32> = fresh.iter().map(|held| held.event.index).collect();
    assert_eq!(indexes, [0, 1].repeat(100));
}

#[tokio::test]
async fn full_backlog_refuses_until_an_event_completes() {
    let dir = tempfile::tempdir().unwrap();
    // As long as real ids are, so that the estimate equals what is written.
    let ids = ["a", "b", "c"].map(|id| id.repeat(36));
    let size = disk_size::of_webhook(&webhook(&[session(&ids[0], "created")]));
    let mut opened = open(&Config {
        backlog_bytes_max: 2 * size,
        ..config(&dir)
    });
    let mut fresh = append(&mut opened, &[&ids[0]]).await;
    fresh.extend(append(&mut opened, &[&ids[1]]).await);
    let backlog = opened.journal.totals().backlog_bytes;
    let refused = webhook(&[session(&ids[2], "created")]);
    let full = Err(WriteError::BacklogFull);
    assert_eq!(opened.journal.append(refused.clone()).await, full);
    assert_eq!(opened.journal.refusal(), Some(WriteError::BacklogFull));
    opened.journal.change(vec![published(&fresh[0])]);
    let applied = next(&mut opened.committed).await.applied;
    assert_eq!(
        applied,
        [TransitionApplied::Completed {
            seq: 1,
            promoted: None
        }]
    );
    assert_eq!(opened.journal.refusal(), None);
    opened.journal.append(refused).await.unwrap();
    assert_eq!(opened.journal.totals().backlog_bytes, backlog);
}

#[tokio::test]
async fn group_counts_its_own_bytes_against_the_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let size = disk_size::of_webhook(&webhook(&[session("a", "created")]));
    let opened = open(&Config {
        backlog_bytes_max: 10 * size,
        ..config(&dir)
    });
    let appends = (0..100).map(|_| opened.journal.append(webhook(&[session("a", "created")])));
    let results = futures_util::future::join_all(appends).await;
    let held = results.iter().filter(|result| result.is_ok()).count();
    // What is written may be a little smaller than the estimate.
    assert!((10..=11).contains(&held), "{held}");
    assert!(opened.journal.totals().backlog_bytes <= 10 * size);
}

#[tokio::test]
async fn low_space_refuses_webhooks_but_not_transitions() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(&config(&dir));
    let fresh = append(&mut opened, &["a", "b"]).await;
    opened.journal.close().await;
    drop(opened);
    let mut opened = open(&Config {
        disk_free_min: u64::MAX,
        ..config(&dir)
    });
    let full = Some(WriteError::DiskFull);
    until("a look at the disk", || opened.journal.refusal() == full).await;
    opened.journal.change(vec![published(&fresh[0])]);
    assert_eq!(next(&mut opened.committed).await.applied.len(), 1);
    // Writing a completion does not make the disk larger.
    assert_eq!(opened.journal.refusal(), full);
    let refused = opened.journal.append(webhook(&[session("c", "x")])).await;
    assert_eq!(refused, Err(WriteError::DiskFull));
}

/// ENOSPC as SQLite reports it, by a limit on the pages of the connection.
#[tokio::test]
async fn full_disk_refuses_webhooks_and_keeps_completing() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        retention: Duration::ZERO,
        ..config(&dir)
    };
    let directory = Directory::open(&config.dir).unwrap();
    let (store, _) = damage::open(&directory, routing(None)).unwrap();
    let limit = "PRAGMA max_page_count = 50";
    store.database().query_row(limit, [], |_| Ok(())).unwrap();
    let (journal, mut committed) =
        Journal::start(&config, directory, store, Box::new(|_| {})).unwrap();
    let large = format!(r#"{{"id":"a","status":"x","x":"{}"}}"#, "x".repeat(100_000));
    journal.append(webhook(&[&large])).await.unwrap();
    let held = next(&mut committed).await.fresh.remove(0);
    let larger = webhook(&[&large, &large]);
    let full = Err(WriteError::DiskFull);
    assert_eq!(journal.append(larger.clone()).await, full);
    assert_eq!(journal.totals().backlog_events, 1);
    assert_eq!(journal.refusal(), Some(WriteError::DiskFull));
    journal.change(vec![published(&held)]);
    assert_eq!(next(&mut committed).await.applied.len(), 1);
    until("room", || journal.refusal().is_none()).await;
    journal.append(webhook(&[&large])).await.unwrap();
    assert!(journal.failures().borrow().is_none());
}

#[tokio::test]
async fn failed_transitions_are_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(&config(&dir));
    let held = append(&mut opened, &["a"]).await.remove(0);
    let beside = rusqlite::Connection::open(dir.path().join("journal.db")).unwrap();
    let failing = "CREATE TRIGGER failing BEFORE INSERT ON completed
                   BEGIN SELECT RAISE(FAIL, 'the disk fails'); END";
    beside.execute_batch(failing).unwrap();
    opened.journal.change(vec![published(&held)]);
    let journal = opened.journal.clone();
    until("a failure", || {
        journal.refusal() == Some(WriteError::DiskFailing)
    })
    .await;
    assert_eq!(journal.totals().backlog_events, 1);
    beside.execute_batch("DROP TRIGGER failing").unwrap();
    assert_eq!(next(&mut opened.committed).await.applied.len(), 1);
    assert_eq!(journal.totals().backlog_events, 0);
    until("webhooks are accepted", || journal.refusal().is_none()).await;
}

#[tokio::test]
async fn replaced_database_is_noticed_without_a_webhook() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(&config(&dir));
    fs::rename(dir.path().join("journal.db"), dir.path().join("elsewhere")).unwrap();
    until("it is noticed", || opened.journal.refusal().is_some()).await;
}

#[tokio::test]
async fn closing_writes_all_changes_into_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(&config(&dir));
    let fresh = append(&mut opened, &["a", "b"]).await;
    let one_by_one: Vec<Transition> = fresh.iter().map(published).collect();
    for change in one_by_one {
        opened.journal.change(vec![change]);
    }
    opened.journal.close().await;
    assert!(!dir.path().join("journal.db-wal").exists());
    let closed = opened.journal.append(webhook(&[session("c", "x")])).await;
    assert_eq!(closed, Err(WriteError::Closed));
    let fetched = opened.journal.fetch(request(1)).await.unwrap();
    assert!(fetched.batches.is_empty());
    drop(opened);
    let reopened = open(&config(&dir));
    assert_eq!(reopened.journal.totals().backlog_events, 0);
    assert_eq!(reopened.journal.totals().published.values().sum::<u64>(), 2);
}

/// The clock is ahead during the first ten minutes after a start.
#[tokio::test]
async fn closing_deletes_nothing_because_of_its_age() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(&config(&dir));
    let fresh = append(&mut opened, &["a"]).await;
    opened.journal.change(vec![published(&fresh[0])]);
    next(&mut opened.committed).await;
    let database = rusqlite::Connection::open(dir.path().join("journal.db")).unwrap();
    database.execute("UPDATE completed SET at = 0", []).unwrap();
    drop(database);
    opened.journal.close().await;
    let database = rusqlite::Connection::open(dir.path().join("journal.db")).unwrap();
    let events = database.query_row("SELECT count(*) FROM events", [], |row| {
        row.get::<_, i64>(0)
    });
    assert_eq!(events, Ok(1));
}

#[tokio::test]
async fn second_journal_is_refused_with_the_holders_name() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(&config(&dir));
    let second = Journal::open(&config(&dir), routing(None), Box::new(|_| {}));
    let Err(OpenError::Directory(refused)) = second else {
        panic!("opened twice");
    };
    let holder = format!("process {}", std::process::id());
    assert!(refused.to_string().contains(&holder), "{refused}");
    first
        .journal
        .append(webhook(&[session("a", "x")]))
        .await
        .unwrap();
}

#[tokio::test]
async fn all_files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        dir: dir.path().join("new/journal"),
        ..config(&dir)
    };
    let mut opened = open(&config);
    append(&mut opened, &["a"]).await;
    damage::suspect(&config.dir.join("journal.db"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&config.dir), 0o700);
    let mut names: Vec<_> = fs::read_dir(&config.dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    assert_eq!(names.len(), 5, "{names:?}");
    for path in names {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn restored_file_is_made_private_again() {
    let dir = tempfile::tempdir().unwrap();
    open(&config(&dir)).journal.close().await;
    let database = dir.path().join("journal.db");
    fs::set_permissions(&database, fs::Permissions::from_mode(0o644)).unwrap();
    let _opened = open(&config(&dir));
    let mode = fs::metadata(&database).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn damage_found_by_a_write_ends_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(&config(&dir));
    let mut failures = opened.journal.failures();
    ruin_pending(dir.path());
    let refused = opened.journal.append(webhook(&[session("a", "x")])).await;
    assert_eq!(refused, Err(WriteError::DiskFailing));
    let failure = tokio::time::timeout(PATIENCE, failures.wait_for(Option::is_some)).await;
    assert!(failure.unwrap().unwrap().as_ref().unwrap().is_damage);
    assert!(dir.path().join("journal.suspect").exists());
    let closed = opened.journal.append(webhook(&[session("a", "x")])).await;
    assert!(closed.is_err());
}

#[tokio::test]
async fn damage_found_by_a_read_ends_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(&config(&dir));
    ruin_pending(dir.path());
    opened.journal.fetch(request(1)).await.unwrap_err();
    assert!(
        opened
            .journal
            .failures()
            .borrow()
            .as_ref()
            .unwrap()
            .is_damage
    );
    assert!(dir.path().join("journal.suspect").exists());
}

/// Destroys the root pages of the queue, through the WAL, so that every connection sees it.
fn ruin_pending(dir: &Path) {
    let path = dir.join("journal.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    let pages = "SELECT rootpage FROM sqlite_schema WHERE tbl_name IN ('pending', 'webhooks')";
    let roots: Vec<u64> = {
        let mut statement = database.prepare(pages).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
        rows.map(|root| u64::try_from(root.unwrap()).unwrap())
            .collect()
    };
    let copied = "PRAGMA wal_checkpoint(TRUNCATE)";
    database.query_row(copied, [], |_| Ok(())).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for root in roots {
        let place = (root - 1) * u64::from(PAGE_BYTES);
        let page = [0x5a; PAGE_BYTES as usize];
        std::os::unix::fs::FileExt::write_all_at(&file, &page, place).unwrap();
    }
    // A commit of another connection invalidates the page cache of every connection.
    database
        .execute("INSERT INTO settings VALUES ('ruined', '1')", [])
        .unwrap();
}

/// Overlapping readers, like fetches under load: at each moment there is at least one.
#[tokio::test]
async fn wal_is_reset_despite_permanent_readers() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(&Config {
        retention: Duration::ZERO,
        ..config(&dir)
    });
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (path, is_over) = (dir.path().join("journal.db"), is_over.clone());
            std::thread::spawn(move || {
                let reader = rusqlite::Connection::open(path).unwrap();
                while !is_over.load(Ordering::SeqCst) {
                    reader.execute_batch("BEGIN; SELECT 1 FROM events").unwrap();
                    std::thread::sleep(Duration::from_millis(15));
                    reader.execute_batch("COMMIT").unwrap();
                }
            })
        })
        .collect();
    let large = format!(r#"{{"id":"a","status":"x","x":"{}"}}"#, "x".repeat(1 << 20));
    let log = dir.path().join("journal.db-wal");
    let mut beginnings = HashSet::new();
    for _ in 0..200 {
        opened.journal.append(webhook(&[&large])).await.unwrap();
        let held = next(&mut opened.committed).await.fresh.remove(0);
        opened.journal.change(vec![published(&held)]);
        next(&mut opened.committed).await;
        beginnings.insert(beginning(&log));
        if beginnings.len() == 3 {
            break;
        }
    }
    is_over.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.join().unwrap();
    }
    assert_eq!(beginnings.len(), 3, "the log went on and on");
}

/// The part of a WAL header that changes with each reset: sequence number and salts.
fn beginning(log: &Path) -> [u8; 12] {
    let mut head = [0; 24];
    File::open(log).unwrap().read_exact(&mut head).unwrap();
    head[12..].try_into().unwrap()
}

#[tokio::test]
async fn database_removed_during_a_commit_stores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let opened = open_observed(
        &config(&dir),
        Box::new(move |_| drop(fs::remove_file(&path))),
    );
    let lost = opened.journal.append(webhook(&[session("a", "x")])).await;
    assert_eq!(lost, Err(WriteError::DiskFailing));
}

//! D3: a damaged database is set aside whole, and what is readable of it goes on.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::support::*;
use crate::journal::directory::Directory;
use crate::journal::reader::Reader;
use crate::journal::store::Store;
use crate::journal::{Seq, Settlement, damage};
use crate::webhook::Reason;

const PAGE: usize = 8192;

/// A closed journal of so many sessions with two events each, some of them settled.
fn journal(sessions: u32) -> (Bench, usize) {
    let mut bench = Bench::new();
    let mut backlog = 0;
    for id in 0..sessions {
        let element = |status: &str| {
            format!(
                r#"{{"id":"s{id}","status":"{status}","x":"{}"}}"#,
                "x".repeat(700)
            )
        };
        let elements = [element("created"), element("handled")];
        let events = bench.commit(&[], &[webhook(&elements)]).fresh;
        backlog += 2;
        if id % 4 == 0 {
            bench.change(published(&events[0]));
            backlog -= 1;
        }
    }
    bench
        .store
        .database()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    (bench, backlog)
}

/// Its directory with only the database, as after a clean end.
fn closed(bench: &Bench) -> (tempfile::TempDir, PathBuf) {
    let (dir, path) = (tempfile::tempdir().unwrap(), bench.database());
    let copy = dir.path().join("journal.db");
    fs::copy(path, &copy).unwrap();
    (dir, copy)
}

struct Reopened {
    store: Store,
    set_aside: Option<(PathBuf, u64)>,
}

fn reopen(dir: &Path) -> Reopened {
    let directory = Directory::open(dir).unwrap();
    let (store, set_aside) = damage::open(&directory, routing(None), true).unwrap();
    Reopened { store, set_aside }
}

fn overwrite(path: &Path, page: u64, with: u8) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[with; PAGE], (page - 1) * PAGE as u64)
        .unwrap();
}

fn unsettled(store: &Store) -> Vec<(Seq, String)> {
    let sql = "SELECT seq, session FROM pending ORDER BY seq";
    let mut statement = store.database().prepare(sql).unwrap();
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    rows.map(Result::unwrap).collect()
}

/// Holds of every outcome: nothing deleted, nothing invented, everything accounted for.
fn check(path: &Path, damaged: &[u8], before: &[(Seq, String)]) -> usize {
    let reopened = reopen(path.parent().unwrap());
    let (aside, lost) = reopened.set_aside.expect("it is set aside");
    let name = aside.file_name().unwrap().to_string_lossy();
    assert!(name.starts_with("journal.db.damaged-"), "{name}");
    assert!(
        fs::read(&aside).unwrap() == damaged,
        "it is set aside as it was"
    );
    let after = unsettled(&reopened.store);
    let known: Vec<Seq> = before.iter().map(|(seq, _)| *seq).collect();
    assert!(after.iter().all(|(seq, _)| known.contains(seq)));
    let changed = after.iter().filter(|event| !before.contains(event));
    // Half a page can be missing; what lay there no longer matches its `message_id`.
    assert!(changed.count() <= 1);
    assert!(after.is_sorted());
    let totals = reopened.store.totals();
    assert_eq!(totals.lost_events, lost);
    assert_eq!(totals.backlog_events, after.len() as u64);
    assert_eq!(totals.accepted.values().sum::<u64>(), after.len() as u64);
    reopened.store.close().unwrap();
    let again = reopen(path.parent().unwrap());
    assert_eq!(again.set_aside, None);
    assert_eq!(unsettled(&again.store), after);
    assert_eq!(again.store.totals(), totals);
    let heads = "SELECT count(*) FROM pending WHERE head = 1";
    let sessions = "SELECT count(DISTINCT session) FROM pending";
    let count = |sql| {
        again
            .store
            .database()
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(count(heads), count(sessions));
    assert!(
        lost == 0 || lost + after.len() as u64 >= before.len() as u64,
        "{lost} {}",
        after.len()
    );
    after.len()
}

#[test]
fn whichever_page_is_lost_the_others_are_carried_over() {
    let (bench, backlog) = journal(80);
    let before = unsettled(&bench.store);
    assert_eq!(before.len(), backlog);
    let pages = u64::try_from(bench.number("PRAGMA page_count")).unwrap();
    let (_dir, original) = closed(&bench);
    let (mut found, mut whole) = (0, 0);
    for page in 2..=pages {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        fs::copy(&original, &path).unwrap();
        overwrite(&path, page, 0x5a);
        let damaged = fs::read(&path).unwrap();
        let probe = rusqlite::Connection::open_with_flags(
            &path,
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
        )
        .unwrap();
        let verdict = probe.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        drop(probe);
        if verdict.is_ok_and(|verdict| verdict == "ok") {
            // A page that holds only bytes of a body: the event's `message_id` tells.
            continue;
        }
        found += 1;
        let carried = check(&path, &damaged, &before);
        // A leaf has a few events; only a root takes more with it.
        whole += usize::from(carried + 12 >= backlog);
    }
    assert!(found >= 20, "{found} of {pages}");
    assert!(found - whole <= 4, "{whole} of {found}");
}

#[test]
fn a_truncated_database_gives_what_is_left() {
    let (bench, backlog) = journal(80);
    let before = unsettled(&bench.store);
    let (dir, path) = closed(&bench);
    let size = fs::metadata(&path).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(size / 3 * 2 / PAGE as u64 * PAGE as u64 + 100)
        .unwrap();
    let damaged = fs::read(&path).unwrap();
    let carried = check(&path, &damaged, &before);
    assert!(carried > backlog / 4, "{carried} of {backlog}");
    assert!(carried < backlog, "{carried} of {backlog}");
    let reopened = reopen(dir.path());
    assert_eq!(
        reopened.store.totals().lost_events,
        (backlog - carried) as u64
    );
}

#[test]
fn an_empty_or_blank_database_is_set_aside_too() {
    let blank: [fn(&Path); 3] = [
        |path| fs::write(path, "").unwrap(),
        |path| fs::write(path, vec![0; 5 * PAGE]).unwrap(),
        |path| {
            // Its log is all that is left of it.
            fs::remove_file(path).unwrap();
            fs::write(path.with_extension("db-wal"), "frames").unwrap();
        },
    ];
    for ruin in blank {
        let (dir, path) = closed(&journal(3).0);
        ruin(&path);
        let reopened = reopen(dir.path());
        let (aside, _) = reopened.set_aside.expect("it is set aside");
        let wal = PathBuf::from(format!("{}-wal", aside.display()));
        assert!(aside.exists() || wal.exists());
        assert_eq!(reopened.store.totals().backlog_events, 0);
    }
}

#[test]
fn a_database_without_unsettled_events_loses_none() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("b", "created")]);
    bench.commit(&[published(&events[0]), published(&events[1])], &[]);
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'events'";
    let root = u64::try_from(bench.number(root)).unwrap();
    bench.store.checkpoint().unwrap();
    let (dir, path) = closed(&bench);
    overwrite(&path, root, 0x5a);
    let mut reopened = reopen(dir.path());
    assert_eq!(reopened.set_aside.unwrap().1, 0);
    // Nor does it use a number twice.
    let retention = Bench::new().retention;
    let next = vec![webhook(&[session("c", "created")])];
    let now = jiff::Timestamp::now();
    let fresh = reopened
        .store
        .commit(&[], &next, now, &retention)
        .unwrap()
        .fresh;
    assert_eq!(seqs(&fresh), [3]);
}

#[test]
fn a_body_that_lies_only_here_comes_along_under_its_number() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("b", "created"), ("c", "created")]);
    bench.change(settle(
        &events[1],
        Settlement::DeadLettered(Reason::TooLarge),
    ));
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'pending_session'";
    let root = u64::try_from(bench.number(root)).unwrap();
    bench.store.checkpoint().unwrap();
    let (dir, path) = closed(&bench);
    overwrite(&path, root, 0x5a);
    let reopened = reopen(dir.path());
    assert_eq!(reopened.set_aside.unwrap().1, 0);
    let kept = "SELECT count(*) FROM events JOIN settled USING (seq)
                WHERE seq = 2 AND kept AND session = 'b'";
    let count = |sql| {
        reopened
            .store
            .database()
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(count(kept), 1);
    assert_eq!(count("SELECT count(*) FROM pending"), 2);
    let totals = reopened.store.totals();
    assert_eq!(totals.accepted.values().sum::<u64>(), 3);
    assert_eq!(
        totals.dead_lettered[&*std::sync::Arc::<str>::from("too-large")],
        1
    );
}

#[test]
fn what_is_carried_over_can_be_taken_and_is_what_was_received() {
    let (bench, _) = journal(3);
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'settled'";
    let root = u64::try_from(bench.number(root)).unwrap();
    let (dir, path) = closed(&bench);
    overwrite(&path, root, 0x5a);
    let reopened = reopen(dir.path());
    assert_eq!(reopened.set_aside.unwrap().1, 0);
    let mut reader = Reader::open(&path).unwrap();
    let mut taken = 0;
    for route_id in reader.routes().unwrap() {
        let runs = reader.take(&request(route_id)).unwrap().runs;
        let events = runs.iter().flat_map(|run| &run.events);
        taken += events.filter(|held| !held.is_damaged).count();
    }
    assert_eq!(taken, 5);
}

/// C2, "during recovery": every state that an interrupted start can leave behind.
#[test]
fn a_swap_that_was_interrupted_is_ended_by_the_next_start() {
    let (bench, backlog) = journal(3);
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'settled'";
    let root = u64::try_from(bench.number(root)).unwrap();
    let (dir, path) = closed(&bench);
    overwrite(&path, root, 0x5a);
    let damaged = fs::read(&path).unwrap();
    let aside = reopen(dir.path()).set_aside.unwrap().0;
    let new = fs::read(&path).unwrap();
    let name = aside.file_name().unwrap().to_string_lossy().into_owned();
    let time = name.strip_prefix("journal.db.damaged-").unwrap();

    let check = |files: &[(&str, &[u8])]| {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let reopened = reopen(dir.path());
        assert_eq!(reopened.store.totals().backlog_events, backlog as u64);
        let (aside, lost) = reopened.set_aside.unwrap();
        assert_eq!(lost, 0);
        assert!(fs::read(&aside).unwrap() == damaged);
        assert!(!dir.path().join("journal.db.new").exists());
    };
    let carried = format!("journal.db.carried-{time}");
    check(&[("journal.db", &damaged), ("journal.db.new", b"half of it")]);
    check(&[("journal.db", &damaged), (&carried, &new)]);
    check(&[(&name, &damaged), (&carried, &new)]);
}

#[test]
fn a_creation_that_was_interrupted_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("journal.db.new"), "half of it").unwrap();
    let reopened = reopen(dir.path());
    assert_eq!(reopened.set_aside, None);
    assert!(!dir.path().join("journal.db.new").exists());
}

#[test]
fn a_large_database_is_checked_when_there_is_reason_to() {
    let (bench, _) = journal(3);
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'settled'";
    let root = u64::try_from(bench.number(root)).unwrap();
    let large = "INSERT INTO settings VALUES ('large', hex(zeroblob(33 << 20)))";
    bench.store.database().execute_batch(large).unwrap();
    bench.store.checkpoint().unwrap();
    let (dir, path) = closed(&bench);
    assert!(fs::metadata(&path).unwrap().len() > 64 << 20);
    overwrite(&path, root, 0x5a);
    let unsuspected = reopen(dir.path());
    assert_eq!(unsuspected.set_aside, None);
    drop(unsuspected);
    damage::suspect(&path);
    assert!(reopen(dir.path()).set_aside.is_some());
    assert!(!dir.path().join("journal.suspect").exists());
}

#[test]
fn the_queue_and_its_indexes_stand_in_for_each_other() {
    for lost in ["pending", "pending_session", "pending_head"] {
        let (bench, backlog) = journal(80);
        let before = unsettled(&bench.store);
        let root = format!("SELECT rootpage FROM sqlite_schema WHERE name = '{lost}'");
        let root = u64::try_from(bench.number(&root)).unwrap();
        let (_dir, path) = closed(&bench);
        overwrite(&path, root, 0x5a);
        let damaged = fs::read(&path).unwrap();
        assert_eq!(check(&path, &damaged, &before), backlog, "{lost}");
    }
}

#[test]
fn a_database_that_lost_its_first_page_loses_nothing_else() {
    for with in [0, 0x5a] {
        let (bench, backlog) = journal(80);
        let before = unsettled(&bench.store);
        let (dir, path) = closed(&bench);
        overwrite(&path, 1, with);
        let damaged = fs::read(&path).unwrap();
        assert_eq!(check(&path, &damaged, &before), backlog);
        let totals = reopen(dir.path()).store.totals();
        assert_eq!(totals.lost_events, 0);
        let copy = dir.path().join("journal.db.copy");
        assert!(!copy.exists());
    }
}

/// What the transplant relies on.
#[test]
fn a_new_database_begins_with_its_roots() {
    let bench = Bench::new();
    bench.store.checkpoint().unwrap();
    assert!(crate::journal::schema::is_beheaded(&bench.database()));
    let roots = bench.column("SELECT rootpage FROM sqlite_schema WHERE rootpage > 0 ORDER BY 1");
    assert!(roots.len() >= 8);
    assert!(
        roots
            .iter()
            .copied()
            .eq(3..3 + i64::try_from(roots.len()).unwrap()),
        "{roots:?}"
    );
}

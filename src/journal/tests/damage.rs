//! A damaged database is set aside whole, and its readable pending events are copied.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::support::*;
use crate::journal::directory::Directory;
use crate::journal::reader::Reader;
use crate::journal::schema::PAGE_BYTES;
use crate::journal::store::Store;
use crate::journal::{FinalState, Seq, damage};
use crate::webhook::{DeadLetterReason, Webhook};

const PAGE: usize = PAGE_BYTES as usize;

/// A closed journal with this many sessions of two events each, some of which are completed.
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

/// The directory with only the database, as after a clean stop.
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
    let (store, set_aside) = damage::open(&directory, routing(None)).unwrap();
    Reopened { store, set_aside }
}

fn overwrite(path: &Path, page: u64, with: u8) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[with; PAGE], (page - 1) * PAGE as u64)
        .unwrap();
}

/// The closed journal, with the first page of a table or index destroyed.
fn without(bench: &Bench, table: &str) -> (tempfile::TempDir, PathBuf) {
    let root = format!("SELECT rootpage FROM sqlite_schema WHERE name = '{table}'");
    let root = u64::try_from(bench.number(&root)).unwrap();
    bench.store.checkpoint().unwrap();
    let (dir, path) = closed(bench);
    overwrite(&path, root, 0x5a);
    (dir, path)
}

fn unsettled(store: &Store) -> Vec<(Seq, String)> {
    let sql = "SELECT seq, session FROM events WHERE seq NOT IN (SELECT seq FROM settled)
               ORDER BY seq";
    let mut statement = store.database().prepare(sql).unwrap();
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    rows.map(Result::unwrap).collect()
}

/// Must hold after any damage: nothing deleted, nothing invented, everything accounted for.
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
    // An event that is not known to be completed is published again, under its number.
    let again = |seq: &Seq| before.iter().all(|(known, _)| known != seq);
    let known = |(seq, _): &&(Seq, String)| !again(seq);
    let changed = after
        .iter()
        .filter(known)
        .filter(|event| !before.contains(event));
    // Half a page can be missing: an event that was on it no longer matches its `message_id`.
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
    let sessions: BTreeSet<_> = after.iter().map(|(_, session)| session).collect();
    let heads = again.store.window().lock().unwrap().all_heads();
    assert_eq!(heads.len(), sessions.len());
    assert!(
        lost == 0 || lost + after.len() as u64 >= before.len() as u64,
        "{lost} {}",
        after.len()
    );
    after.len()
}

#[test]
fn loss_of_any_page_keeps_the_others() {
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
            // A page with only bytes of a body: the event no longer matches its `message_id`.
            continue;
        }
        found += 1;
        let carried = check(&path, &damaged, &before);
        // A leaf page contains a few events; only the loss of a root page loses more.
        whole += usize::from(carried + 12 >= backlog);
    }
    assert!(found >= 20, "{found} of {pages}");
    assert!(found - whole <= 4, "{whole} of {found}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Every readable event of a webhook is copied, unless it is known to be completed.
    #[test]
    fn loss_of_any_four_pages_keeps_readable_events(
        position in 0.0..1.0f64,
        count in 1..=4u64,
        has_rows in any::<bool>(),
    ) {
        let (mut bench, _) = journal(60);
        if has_rows {
            bench.empty_window();
            bench.store.checkpoint().unwrap();
        }
        let settled = bench.column("SELECT seq FROM settled");
        let all = bench.column("SELECT seq FROM events");
        let pages = bench.number("PRAGMA page_count");
        let (dir, path) = closed(&bench);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
                 reason = "a position in a file of some pages")]
        let first = 2 + (position * (pages - 1) as f64) as u64;
        for page in first..(first + count).min(pages.unsigned_abs() + 1) {
            overwrite(&path, page, 0x5a);
        }
        let readable = readable_one_by_one(&path, &all);
        let reopened = reopen(dir.path());
        if reopened.set_aside.is_some() {
            let after: BTreeSet<Seq> = unsettled(&reopened.store).into_iter().map(|(seq, _)| seq).collect();
            let lost: Vec<_> = readable
                .iter()
                .filter(|seq| !settled.contains(seq) && !after.contains(seq))
                .collect();
            prop_assert!(lost.is_empty(), "{lost:?} of {readable:?}");
        }
    }
}

#[test]
fn event_with_pending_row_is_always_copied() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("b", "created")]);
    bench.change(deferred(&events[0], 0));
    bench.change(published(&events[1]));
    let lie = "UPDATE completed SET runs = '[[1,2]]', first = 1";
    bench.store.database().execute(lie, []).unwrap();
    let (dir, _path) = without(&bench, "outcomes");
    let reopened = reopen(dir.path());
    assert!(reopened.set_aside.is_some());
    let carried = unsettled(&reopened.store);
    assert_eq!(carried, [(1, "a".to_owned())]);
}

/// The events whose row can be read by its key.
fn readable_one_by_one(path: &Path, seqs: &[Seq]) -> Vec<Seq> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(path, flags).unwrap();
    let row = "SELECT fields || hex(bodies) FROM webhooks WHERE first = ?1";
    let is_readable = |seq: &&Seq| {
        // The webhooks have two events each.
        [**seq, **seq - 1].into_iter().any(|first| {
            let read = database.query_row(row, [first], |row| row.get::<_, String>(0));
            read.is_ok()
        })
    };
    seqs.iter().filter(is_readable).copied().collect()
}

#[test]
fn truncated_database_yields_its_rest() {
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
fn empty_or_blank_database_is_set_aside() {
    let blank: [fn(&Path); 3] = [
        |path| fs::write(path, "").unwrap(),
        |path| fs::write(path, vec![0; 5 * PAGE]).unwrap(),
        |path| {
            // Only its WAL is left.
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
fn database_without_pending_events_loses_none() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("b", "created")]);
    bench.commit(&[published(&events[0]), published(&events[1])], &[]);
    let (dir, _path) = without(&bench, "webhooks");
    let mut reopened = reopen(dir.path());
    assert_eq!(reopened.set_aside.unwrap().1, 0);
    // No number is used twice, either.
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
fn kept_body_is_copied_with_its_number() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("b", "created"), ("c", "created")]);
    bench.change(settle(
        &events[1],
        FinalState::DeadLettered(DeadLetterReason::TooLarge),
    ));
    let (dir, _path) = without(&bench, "pending_session");
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
    assert_eq!(unsettled(&reopened.store).len(), 2);
    let totals = reopened.store.totals();
    assert_eq!(totals.accepted.values().sum::<u64>(), 3);
    assert_eq!(
        totals.dead_lettered[&*std::sync::Arc::<str>::from("too-large")],
        1
    );
}

#[test]
fn copied_events_are_fetched_unchanged() {
    let (bench, _) = journal(3);
    let (dir, path) = without(&bench, "outcomes");
    let reopened = reopen(dir.path());
    assert_eq!(reopened.set_aside.unwrap().1, 0);
    let mut reader = Reader::open(&path, reopened.store.window()).unwrap();
    let mut fetched = 0;
    for route_id in reader.routes().unwrap() {
        let runs = reader.fetch(&request(route_id)).unwrap().batches;
        let events = runs.iter().flat_map(|run| &run.events);
        fetched += events.filter(|held| !held.is_damaged).count();
    }
    assert_eq!(fetched, 5);
}

/// Covers every state that an interrupted start can leave.
#[test]
fn interrupted_swap_is_completed_at_the_next_start() {
    let (bench, backlog) = journal(3);
    let (dir, path) = without(&bench, "outcomes");
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
fn interrupted_creation_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("journal.db.new"), "half of it").unwrap();
    let reopened = reopen(dir.path());
    assert_eq!(reopened.set_aside, None);
    assert!(!dir.path().join("journal.db.new").exists());
}

#[test]
fn large_database_is_checked_only_when_suspected() {
    let (bench, _) = journal(3);
    let large = "INSERT INTO settings VALUES ('large', hex(zeroblob(33 << 20)))";
    bench.store.database().execute_batch(large).unwrap();
    let (dir, path) = without(&bench, "outcomes");
    assert!(fs::metadata(&path).unwrap().len() > 64 << 20);
    let unsuspected = reopen(dir.path());
    assert_eq!(unsuspected.set_aside, None);
    drop(unsuspected);
    damage::suspect(&path);
    assert!(reopen(dir.path()).set_aside.is_some());
    assert!(!dir.path().join("journal.suspect").exists());
}

#[test]
fn table_and_indexes_replace_each_other() {
    for lost in ["pending", "pending_session", "pending_head"] {
        let (bench, backlog) = journal(80);
        let before = unsettled(&bench.store);
        let (_dir, path) = without(&bench, lost);
        let damaged = fs::read(&path).unwrap();
        assert_eq!(check(&path, &damaged, &before), backlog, "{lost}");
    }
}

#[test]
fn lost_first_page_loses_nothing_else() {
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

/// `restore_header` relies on this.
#[test]
fn new_database_begins_with_its_root_pages() {
    let bench = Bench::new();
    bench.store.checkpoint().unwrap();
    assert!(crate::journal::schema::has_lost_header(&bench.database()));
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

#[test]
fn large_database_with_any_damaged_page_is_opened() {
    let (bench, backlog) = journal(40);
    let pages = fs::metadata(bench.database()).unwrap().len() / PAGE as u64;
    for page in 1..=pages {
        let (dir, path) = closed(&bench);
        overwrite(&path, page, 0x5a);
        let directory = Directory::open(dir.path()).unwrap();
        // As if it were too large to be checked.
        let (store, aside) = damage::open_checking(&directory, routing(None), 0)
            .unwrap_or_else(|error| panic!("page {page}: {error}"));
        let totals = store.totals();
        if aside.is_some() {
            let found = totals.backlog_events + totals.lost_events;
            assert!(found >= backlog as u64, "page {page}: {totals:?}");
        }
    }
}

/// The frames of a WAL.
const FRAME: usize = 24 + PAGE;

fn frames(wal: &[u8]) -> Vec<&[u8]> {
    wal[32..].chunks_exact(FRAME).collect()
}

/// Whether a frame is the last one of a transaction.
fn ends(frame: &[u8]) -> bool {
    frame[4..8] != [0; 4]
}

/// Opens a copy of the journal whose WAL has a bit flipped at each of these positions.
fn with_flipped_bits(
    bench: &Bench,
    positions: impl IntoIterator<Item = usize>,
) -> (tempfile::TempDir, Reopened) {
    let (dir, path) = closed(bench);
    let mut wal = fs::read(bench.database().with_file_name("journal.db-wal")).unwrap();
    positions
        .into_iter()
        .for_each(|position| wal[position] ^= 1);
    fs::write(path.with_file_name("journal.db-wal"), wal).unwrap();
    let reopened = reopen(dir.path());
    (dir, reopened)
}

fn webhook_of_a_page(id: u64) -> Webhook {
    let filler = "x".repeat(3000);
    webhook(&[format!(
        r#"{{"id":"s{id}","status":"created","x":"{filler}"}}"#
    )])
}

#[test]
fn damage_in_the_middle_of_the_wal_is_counted_and_the_rest_is_copied() {
    const WEBHOOKS: u64 = 12;
    let mut bench = Bench::new();
    bench.store.checkpoint().unwrap();
    for id in 0..WEBHOOKS {
        bench.commit(&[], &[webhook_of_a_page(id)]);
    }
    let wal = fs::read(bench.database().with_file_name("journal.db-wal")).unwrap();
    let frames = frames(&wal);
    let in_header = (0..32).map(|byte| (byte, frames.len()));
    let in_frames = (0..frames.len()).flat_map(|number| {
        let behind = frames[number..].iter().filter(|frame| ends(frame)).count();
        // Salts, checksum, and content.
        [8, 16, 24 + PAGE / 2].map(|byte| (32 + number * FRAME + byte, behind))
    });
    let mut gaps = 0;
    for (position, ends) in in_header.chain(in_frames) {
        let (_dir, Reopened { store, set_aside }) = with_flipped_bits(&bench, [position]);
        // With a wrong salt, even the end of its own transaction is not recognised.
        if ends >= 3 {
            assert!(set_aside.is_some(), "byte {position}");
        } else if ends < 2 {
            assert!(set_aside.is_none(), "byte {position}");
        }
        if set_aside.is_some() {
            let totals = store.totals();
            let known = totals.backlog_events + totals.lost_events;
            assert_eq!(known, WEBHOOKS, "byte {position}: {totals:?}");
            assert!(totals.lost_events <= 2, "byte {position}: {totals:?}");
            gaps += 1;
        }
    }
    assert!(gaps > 60, "{gaps} of {}", frames.len());
}

/// The counters are newer than the rows: events whose rows are lost must not count as completed.
#[test]
fn events_whose_rows_are_lost_with_a_part_of_the_wal_are_copied() {
    let mut bench = Bench::new();
    bench.store.checkpoint().unwrap();
    let mut events = Vec::new();
    for id in 0..6 {
        events.extend(bench.commit(&[], &[webhook_of_a_page(id)]).fresh);
    }
    let later: Vec<_> = events.iter().map(|held| deferred(held, 1000)).collect();
    bench.commit(&later, &[]);
    // So many that the start of the window is recorded behind the rows.
    let many: Vec<_> = (0..1100)
        .map(|id| session(&format!("many-{id}"), "created"))
        .collect();
    let many = bench.commit(&[], &[webhook(&many)]).fresh;
    let completed: Vec<_> = many.iter().map(published).collect();
    bench.commit(&completed, &[]);
    let window_first = "SELECT value FROM totals WHERE name = 'window_first'";
    assert!(bench.number(window_first) > 6);
    for id in 12..16 {
        bench.commit(&[], &[webhook_of_a_page(id)]);
    }
    let wal = fs::read(bench.database().with_file_name("journal.db-wal")).unwrap();
    // As many frames as a transaction has: the table of the rows and its indexes.
    for number in 0..frames(&wal).len() - 20 {
        let damaged = (number..number + 6).map(|number| 32 + number * FRAME + 24 + PAGE / 2);
        let (_dir, reopened) = with_flipped_bits(&bench, damaged);
        assert!(reopened.set_aside.is_some(), "frame {number}");
        let left = "SELECT count(DISTINCT session) FROM events
                    WHERE session BETWEEN 's0' AND 's5' AND length(session) = 2";
        let database = reopened.store.database();
        let left: i64 = database.query_row(left, [], |row| row.get(0)).unwrap();
        let lost = 6 - left;
        assert!(lost <= 3, "frame {number}: {lost} of 6");
    }
}

#[test]
fn suspected_database_is_checked_for_wrong_index_entries() {
    let (mut bench, _) = journal(3);
    let events = bench.append(&[("of-the-index", "created")]);
    bench.change(deferred(&events[0], 1000));
    bench.store.checkpoint().unwrap();
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'pending_session'";
    let start = usize::try_from(bench.number(root) - 1).unwrap() * PAGE;
    let (dir, path) = closed(&bench);
    let mut content = fs::read(&path).unwrap();
    let key = b"of-the-index";
    let page = content[start..start + PAGE].windows(key.len());
    let place = page.clone().position(|window| window == key).unwrap();
    content[start + place] = b'p';
    fs::write(&path, content).unwrap();
    assert_eq!(reopen(dir.path()).set_aside, None);
    damage::suspect(&path);
    assert!(reopen(dir.path()).set_aside.is_some());
}

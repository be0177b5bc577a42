//! A problem of the directory that is not damage prevents the start, is reported, and changes
//! nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::support::*;
use crate::config::journal::JournalConfig as Config;
use crate::journal::{DirectoryError, Journal, OpenError, SchemaError};

fn open(dir: &Path) -> OpenError {
    let config = Config {
        dir: dir.to_owned(),
        ..Config::default()
    };
    match Journal::open(&config, routing(None), Box::new(|_| {})) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

/// Names and contents of all files except the lock and the WAL index.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap_or_default())
        })
        .filter(|(name, content)| {
            let is_index = Path::new(name)
                .extension()
                .is_some_and(|name| name == "db-shm");
            name != "journal.lock" && !is_index && !(name == "journal.db-wal" && content.is_empty())
        })
        .collect()
}

fn check(prepare: impl FnOnce(&Path), expected: impl FnOnce(&OpenError) -> bool) {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let before = content(dir.path());
    let error = open(dir.path());
    assert!(expected(&error), "{error:?}");
    assert_eq!(content(dir.path()), before, "{error}");
}

fn is_foreign(error: &OpenError) -> bool {
    matches!(error, OpenError::Schema(SchemaError::Foreign(_)))
}

/// The state that a process leaves when it ends without closing its journal.
fn killed(dir: &Path, change: &str) {
    let mut bench = Bench::new();
    bench.append(&[("a", "created"), ("b", "created")]);
    bench.store.database().execute_batch(change).unwrap();
    for name in ["journal.db", "journal.db-wal"] {
        fs::copy(bench.dir.path().join(name), dir.join(name)).unwrap();
    }
}

#[test]
fn text_file_of_that_name_is_foreign() {
    let notes =
        "somebody's notes, long enough to be looked at by anybody who wonders. ".repeat(100);
    check(
        |dir| fs::write(dir.join("journal.db"), &notes).unwrap(),
        is_foreign,
    );
    check(
        |dir| fs::write(dir.join("journal.db"), "hi").unwrap(),
        is_foreign,
    );
}

#[test]
fn database_of_another_program_is_foreign() {
    let theirs = |dir: &Path, sql: &str| {
        let database = Connection::open(dir.join("journal.db")).unwrap();
        database.execute_batch(sql).unwrap();
    };
    check(|dir| theirs(dir, "CREATE TABLE theirs (x)"), is_foreign);
    check(
        |dir| theirs(dir, "PRAGMA journal_mode = WAL; CREATE TABLE theirs (x)"),
        is_foreign,
    );
    check(
        |dir| theirs(dir, "PRAGMA application_id = 7; VACUUM"),
        is_foreign,
    );
}

#[test]
fn newer_schema_is_refused_with_its_number() {
    let is_newer = |error: &OpenError| {
        matches!(
            error,
            OpenError::Schema(SchemaError::Newer { found: 5, .. })
        ) && error.to_string().contains("schema version 5")
    };
    let newer = |dir: &Path| {
        killed(dir, "");
        let database = Connection::open(dir.join("journal.db")).unwrap();
        database.execute_batch("PRAGMA user_version = 5").unwrap();
    };
    check(newer, is_newer);
    // Not even its WAL is checkpointed.
    check(|dir| killed(dir, "PRAGMA user_version = 5"), is_newer);
}

#[test]
fn directory_of_that_name_is_refused() {
    let is_refused =
        |error: &OpenError| matches!(error, OpenError::Directory(DirectoryError::NotAFile { .. }));
    check(
        |dir| fs::create_dir(dir.join("journal.db")).unwrap(),
        is_refused,
    );
}

#[test]
fn file_instead_of_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    assert!(matches!(open(&path), OpenError::Directory(_)));
}

#[test]
fn journal_of_a_killed_process_is_not_damaged() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path(), "");
    let config = Config {
        dir: dir.path().to_owned(),
        ..Config::default()
    };
    let opened = Journal::open(&config, routing(None), Box::new(|_| {})).unwrap();
    assert_eq!(opened.set_aside, None);
    assert_eq!(opened.journal.totals().backlog_events, 2);
}

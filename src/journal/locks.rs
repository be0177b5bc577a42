//! Locks of other programs on the database. The bridge has locked its directory against other
//! bridges, so the lock is that of an operator's tool or a backup.
//!
//! Finds the program in `/proc/locks`: SQLite reports only that the database is busy. Opening one of
//! SQLite's files here is not possible: closing it would release SQLite's own locks on it.

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rusqlite::ErrorCode;

use super::files;
use crate::foreign;

/// The bytes of the WAL index that are locked for writing and for reading:
/// <https://sqlite.org/walformat.html>.
const WRITER: RangeInclusive<u64> = 120..=120;
const READERS: RangeInclusive<u64> = 123..=127;
/// The kernel's limit for a process name is 16. The name comes from another program and is not
/// trusted.
const NAME_CHARS_MAX: usize = 16;

/// How long a statement waits for a lock before its holder is looked up and reported.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// How long a start or a command waits for a lock.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(5);

/// The locks of other programs that are in the way, with one sentence each for operators.
#[derive(Debug, Default)]
pub(super) struct ForeignLocks {
    pub(super) writer: ArcSwapOption<Lock>,
    pub(super) reader: ArcSwapOption<Lock>,
}

#[derive(Debug)]
pub(super) struct Lock {
    pub(super) since: Instant,
    pub(super) sentence: String,
}

impl ForeignLocks {
    /// The sentence about the lock that blocks the writer, or else about the reader that prevents
    /// the WAL from being reset.
    pub(super) fn sentence(&self) -> Option<String> {
        let lock = self.writer.load_full().or_else(|| self.reader.load_full());
        lock.map(|lock| lock.sentence.clone())
    }

    /// The sentence about a write lock, and for how long the writer has been waiting.
    pub(super) fn writer(&self) -> Option<(Duration, String)> {
        let lock = self.writer.load_full()?;
        Some((lock.since.elapsed(), lock.sentence.clone()))
    }
}

/// Whether an error means that another program holds a lock.
pub(super) fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

/// The text for operators about another program's write lock.
pub(super) fn writer(database: &Path) -> String {
    let program = program(database, &WRITER);
    format!("{program} holds a write lock on journal.db")
}

/// The text for operators about another program's long read transaction.
pub(super) fn reader(database: &Path) -> String {
    let program = program(database, &READERS);
    format!("{program} reads journal.db in one long transaction, so that its WAL cannot be reset")
}

/// The program that has these bytes locked, with process id and name where they are visible.
fn program(database: &Path, bytes: &RangeInclusive<u64>) -> String {
    let holder = holder(database, bytes).map(|process| match name(process) {
        Some(name) => format!("another program (process {process}, {name})"),
        None => format!("another program (process {process})"),
    });
    holder.unwrap_or_else(|| "another program".to_owned())
}

fn holder(database: &Path, bytes: &RangeInclusive<u64>) -> Option<u32> {
    let index = fs::metadata(files::with_suffix(database, "-shm")).ok()?;
    let device = index.dev();
    let file = format!(
        "{:02x}:{:02x}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device),
        index.ino()
    );
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, &file, bytes)
}

/// A line is `1: POSIX  ADVISORY  WRITE 4711 08:01:1234 120 120`; a process that waits for the lock
/// has an arrow before `POSIX`.
fn holder_in(locks: &str, file: &str, bytes: &RangeInclusive<u64>) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, "POSIX", _, _, process, locked, first, last] = fields[..] else {
            return None;
        };
        let process = process.parse().ok()?;
        let first: u64 = first.parse().ok()?;
        let last = last.parse().unwrap_or(u64::MAX);
        let is_one = locked == file
            && first <= *bytes.end()
            && last >= *bytes.start()
            && ![0, std::process::id()].contains(&process);
        is_one.then_some(process)
    })
}

fn name(process: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    let name: String = name.trim().chars().take(NAME_CHARS_MAX).collect();
    (!name.is_empty()).then(|| foreign::line(&name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_holder_is_distinguished_from_waiters() {
        let locks = "1: POSIX  ADVISORY  READ 11 08:01:7 123 123\n\
                     2: POSIX  ADVISORY  WRITE 12 08:01:8 120 120\n\
                     3: FLOCK  ADVISORY  WRITE 13 08:01:7 0 EOF\n\
                     4: POSIX  ADVISORY  WRITE 14 08:01:7 120 120\n\
                     4: -> POSIX  ADVISORY  WRITE 15 08:01:7 120 120\n";
        assert_eq!(holder_in(locks, "08:01:7", &WRITER), Some(14));
        assert_eq!(holder_in(locks, "08:01:7", &READERS), Some(11));
        assert_eq!(holder_in(locks, "08:01:9", &WRITER), None);
    }
}

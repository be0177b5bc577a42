//! Which other programs lock the database. The kernel's list says it: SQLite says only that it is
//! busy, and opening a file of SQLite's here would, when it is closed, drop SQLite's own locks.

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::files;

/// Bytes of the log's index that are locked for writing and for reading: <https://sqlite.org/walformat.html>.
const WRITER: RangeInclusive<u64> = 120..=120;
const READERS: RangeInclusive<u64> = 123..=127;
/// A name is no longer than this in the kernel, and is not ours to trust.
const NAME_CHARS_MAX: usize = 16;

/// What an operator is told about a write lock of another program.
pub(super) fn writer(database: &Path) -> String {
    let program = program(database, &WRITER);
    format!("{program} holds a write lock on journal.db")
}

/// What an operator is told about a transaction of another program that reads for very long.
pub(super) fn reader(database: &Path) -> String {
    let program = program(database, &READERS);
    format!("{program} reads journal.db in one long transaction, so that its log cannot begin anew")
}

/// The program that has these bytes locked, as far as it can be seen from here.
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

/// `1: POSIX  ADVISORY  WRITE 4711 08:01:1234 120 120`; those who wait have an arrow before `POSIX`.
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
    let name = name.trim().chars().take(NAME_CHARS_MAX);
    let name: String = name.filter(char::is_ascii_graphic).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_among_others_and_those_who_wait() {
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
